"""OFA, the vision-and-language encoder-decoder, in pure PyTorch."""

from .api import OFA, load
from .config import OFAConfig, TaskSettings
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
from .heads.caption_grounding import GroundedCaption, GroundedPhrase
from .heads.chat import Chat, ChatTurn
from .heads.explanation import Explanation
from .heads.grounding import Grounding
from .heads.image_generation import Imagined
from .heads.matching import Match
from .heads.ocr import Reading
from .heads.oracle import OracleAnswer
from .heads.pipeline import EncodedImage
from .heads.questioner import AgentTurn
from .heads.results import Answer, Detection, Detections, Text
from .inference.fast_model import optimized
from .model.encoder import ImageFeatures, Memory
from .model.kv_cache import DecoderCache
from .model.ofa import OFAModel
from .text import Tokenizer
from .utils.moved_names import MovedNames
from .version import MOVED, __version__
from .vision.images import open_image
from .vision.transform import ImageTransform

__all__ = [
    "OFA",
    "AgentTurn",
    "AllowedRange",
    "Answer",
    "AnswerTrie",
    "BoxCodec",
    "Caption",
    "Chat",
    "ChatTurn",
    "CheckpointError",
    "DecoderCache",
    "Detection",
    "Detections",
    "EncodedImage",
    "Explanation",
    "GenerationOptions",
    "GroundedCaption",
    "GroundedPhrase",
    "Grounding",
    "Hypothesis",
    "ImageFeatures",
    "ImageTransform",
    "Imagined",
    "Match",
    "Memory",
    "NoRepeatNgram",
    "OFAConfig",
    "OFAError",
    "OFAModel",
    "OracleAnswer",
    "Reading",
    "TaskSettings",
    "Text",
    "Tokenizer",
    "UnsafePickleError",
    "__version__",
    "generate",
    "load",
    "open_image",
    "optimized",
    "score_candidates",
]

_moved = MovedNames(__name__, MOVED)
__getattr__ = _moved.attribute
