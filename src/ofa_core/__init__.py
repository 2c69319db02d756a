"""OFA, the vision-and-language encoder-decoder, in pure PyTorch."""

from .api import OFA, load
from .cache import DecoderCache
from .config import OFAConfig, TaskSettings
from .encoder import ImageFeatures, Memory
from .errors import CheckpointError, OFAError, UnsafePickleError
from .generation import (
    AllowedRange,
    AnswerTrie,
    GenerationOptions,
    Hypothesis,
    NoRepeatNgram,
    generate,
    score_candidates,
)
from .heads.box_codec import BoxCodec
from .heads.grounding import Grounding
from .model import OFAModel
from .text import Tokenizer
from .vision.transform import ImageTransform

__version__ = "0.1.0"

__all__ = [
    "OFA",
    "AllowedRange",
    "AnswerTrie",
    "BoxCodec",
    "CheckpointError",
    "DecoderCache",
    "GenerationOptions",
    "Grounding",
    "Hypothesis",
    "ImageFeatures",
    "ImageTransform",
    "Memory",
    "NoRepeatNgram",
    "OFAConfig",
    "OFAError",
    "OFAModel",
    "TaskSettings",
    "Tokenizer",
    "UnsafePickleError",
    "__version__",
    "generate",
    "load",
    "score_candidates",
]
