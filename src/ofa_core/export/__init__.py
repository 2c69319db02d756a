"""The network for other engines: ONNX files and ``torch.export`` programs, and a runner that needs no torch."""

from .folder import export_model

__all__ = ["export_model"]
