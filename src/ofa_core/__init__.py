"""OFA, the vision-and-language encoder-decoder, in pure PyTorch."""

from typing import TYPE_CHECKING

from .utils.lazy_names import LazyNames
from .utils.moved_names import MovedNames
from .version import MOVED, __version__

if TYPE_CHECKING:
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

#: Modules and the public names in them, as type checkers read them above.
_PUBLIC = {
    "api": (
        "OFA",
        "load",
    ),
    "config": (
        "OFAConfig",
        "TaskSettings",
    ),
    "errors": (
        "CheckpointError",
        "OFAError",
        "UnsafePickleError",
    ),
    "generation": (
        "AllowedRange",
        "AnswerTrie",
        "GenerationOptions",
        "Hypothesis",
        "NoRepeatNgram",
        "generate",
        "score_candidates",
    ),
    "heads.box_codec": ("BoxCodec",),
    "heads.caption": ("Caption",),
    "heads.caption_grounding": (
        "GroundedCaption",
        "GroundedPhrase",
    ),
    "heads.chat": (
        "Chat",
        "ChatTurn",
    ),
    "heads.explanation": ("Explanation",),
    "heads.grounding": ("Grounding",),
    "heads.image_generation": ("Imagined",),
    "heads.matching": ("Match",),
    "heads.ocr": ("Reading",),
    "heads.oracle": ("OracleAnswer",),
    "heads.pipeline": ("EncodedImage",),
    "heads.questioner": ("AgentTurn",),
    "heads.results": (
        "Answer",
        "Detection",
        "Detections",
        "Text",
    ),
    "inference.fast_model": ("optimized",),
    "model.encoder": (
        "ImageFeatures",
        "Memory",
    ),
    "model.kv_cache": ("DecoderCache",),
    "model.ofa": ("OFAModel",),
    "text": ("Tokenizer",),
    "vision.images": ("open_image",),
    "vision.transform": ("ImageTransform",),
}
#: Modules and packages that are attributes without being imported by name, the latter with all that answers need.
_PARTS = ("api", "checkpoint", "config", "errors", "generation", "heads", "inference", "model", "text", "vision")

_names = LazyNames(__name__, _PUBLIC, _PARTS, MovedNames(__name__, MOVED).attribute)
__getattr__ = _names.attribute
__dir__ = _names.names
