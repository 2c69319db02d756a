"""The network in plain PyTorch, to be read from top to bottom: :mod:`~ofa_core.model.ofa` first."""

from .ofa import OFAModel

__all__ = ["OFAModel"]
