"""Checkpoints of OFA in circulation to model directories and back."""

from .convert import Conversion, convert
from .export import export, save_fairseq
from .infer_config import config_from_fairseq
from .state_dict import from_fairseq, to_fairseq
from .unpickle import Checkpoint, read_checkpoint

__all__ = [
    "Checkpoint",
    "Conversion",
    "config_from_fairseq",
    "convert",
    "export",
    "from_fairseq",
    "read_checkpoint",
    "save_fairseq",
    "to_fairseq",
]
