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
from .heads.caption import Caption
from .heads.grounding import Grounding
from .heads.oracle import OracleAnswer
from .heads.pipeline import Look
from .heads.questioner import AgentTurn
from .heads.results import Answer, Text
from .model import OFAModel
from .optimize import optimized
from .text import Tokenizer
from .version import __version__
from .vision.transform import ImageTransform

__all__ = [
    "OFA",
    "AgentTurn",
    "AllowedRange",
    "Answer",
    "AnswerTrie",
    "BoxCodec",
    "Caption",
    "CheckpointError",
    "DecoderCache",
    "GenerationOptions",
    "Grounding",
    "Hypothesis",
    "ImageFeatures",
    "ImageTransform",
    "Look",
    "Memory",
    "NoRepeatNgram",
    "OFAConfig",
    "OFAError",
    "OFAModel",
    "OracleAnswer",
    "TaskSettings",
    "Text",
    "Tokenizer",
    "UnsafePickleError",
    "__version__",
    "generate",
    "load",
    "optimized",
    "score_candidates",
]
