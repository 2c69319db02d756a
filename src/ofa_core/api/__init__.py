"""OFA as its users see it: load once, then ask about one picture or many."""

from .loading import load, model_directory
from .ofa import OFA

__all__ = ["OFA", "load", "model_directory"]
