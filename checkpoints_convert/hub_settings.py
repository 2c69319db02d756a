"""Settings of the task in the files that stand beside config.json on the hubs.

ModelScope's ``configuration.json`` names the task, the picture's side, its normalisation and the search;
``preprocessor_config.json`` the side and the normalisation.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ofa_core.config import PRESETS
from ofa_core.errors import CheckpointError, OFAError, shown
from ofa_core.generation import GenerationOptions

from .wrappers import read_json

CONFIGURATION_FILE = "configuration.json"
PREPROCESSOR_FILE = "preprocessor_config.json"

#: ModelScope's name of a task -> fairseq's.
MODELSCOPE_TASKS: dict[str, str] = {
    "ofa": "ofa",
    "visual-grounding": "refcoco",
    "image-captioning": "caption",
    "visual-question-answering": "vqa_gen",
    "visual-entailment": "snli_ve",
    "image-classification": "image_classify",
    "text-summarization": "gigaword",
    "text-to-image-synthesis": "image_gen",
    "ocr-recognition": "ocr",
    "text-classification": "mnli",
}
#: Its tasks whose models are of another network, with the reason.
_OTHER_MODELS = {
    "auto-speech-recognition": "MMSpeech: it reads speech, which OFA's network does not",
    "sudoku": "OFASys, whose network is another",
    "text2sql": "OFASys, whose network is another",
}
#: Its settings of the search -> ours.
_SEARCH: dict[str, str] = {
    "beam_size": "num_beams",
    "max_len_a": "max_new_tokens_per_source_token",
    "max_len_b": "max_new_tokens",
    "min_len": "min_new_tokens",
    "len_penalty": "length_penalty",
    "unk_penalty": "unk_penalty",
    "temperature": "temperature",
    "normalize_scores": "normalize_scores",
    "no_repeat_ngram_size": "no_repeat_ngram_size",
}
#: Settings of the task that have fairseq's names there.
_TASK = (
    *("patch_image_size", "max_image_size", "imagenet_default_mean_and_std", "max_src_length", "max_tgt_length"),
    *("num_bins", "code_dict_size", "prompt_type", "add_object", "max_object_length"),
)
_LANGUAGES = {"en": "gpt2", "zh": "bert", "cn": "bert"}

_HALF = (0.5, 0.5, 0.5)
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

#: Side of pictures, by the width of the size, that the public model cards of the pre-trained models use.
CARD_SIDES: dict[int, int] = {
    PRESETS[size]["embed_dim"]: side
    for size, side in {"tiny": 256, "medium": 256, "base": 384, "large": 480, "huge": 480}.items()
}


def modelscope_settings(directory: Path) -> tuple[dict[str, Any], dict[str, int | float | bool]]:
    """Task settings by fairseq's names, and settings of the search by ours, of a ``configuration.json``.

    Raises:
        CheckpointError: the file is broken, or of a model that is not OFA's.
    """
    path = directory / CONFIGURATION_FILE
    content = read_json(path)
    model = content.get("model") or {}
    if not isinstance(model, dict):
        raise CheckpointError(f"{path}: model should be an object")
    name = content.get("task")
    if name in _OTHER_MODELS:
        raise CheckpointError(f"{directory} is a model of {_OTHER_MODELS[name]}; it cannot be converted")
    if model.get("type", "ofa") != "ofa":
        raise CheckpointError(f"{path} is of a model of type {shown(model['type'])}, not 'ofa'")
    told: dict[str, Any] = {key: model[key] for key in _TASK if model.get(key) is not None}
    if name is not None:
        if name not in MODELSCOPE_TASKS:
            known = ", ".join(MODELSCOPE_TASKS)
            raise CheckpointError(f"{path} has the task {shown(name)}; known are {known}")
        told["task"] = MODELSCOPE_TASKS[name]
    language = model.get("language")
    if language is not None:
        if language not in _LANGUAGES:
            raise CheckpointError(f"{path} has language {shown(language)}; {' and '.join(_LANGUAGES)} are known")
        told["bpe"] = _LANGUAGES[language]
    return told, _search(path, model.get("beam_search") or {})


def _search(path: Path, stored: Any) -> dict[str, int | float | bool]:
    if not isinstance(stored, dict):
        raise CheckpointError(f"{path}: beam_search should be an object")
    found = {ours: stored[theirs] for theirs, ours in _SEARCH.items() if stored.get(theirs) is not None}
    try:
        GenerationOptions(**found)
    except (ValidationError, OFAError) as error:
        raise CheckpointError(f"{path}: beam_search: {str(error).splitlines()[0]}") from None
    return found


def preprocessor_settings(directory: Path) -> dict[str, Any]:
    """Task settings by fairseq's names of a ``preprocessor_config.json``.

    Raises:
        CheckpointError: the file is broken, or asks for what OFA's pictures are not.
    """
    path = directory / PREPROCESSOR_FILE
    content = read_json(path)
    told: dict[str, Any] = {}
    side = _side(path, content.get("size"))
    if side is not None:
        told["patch_image_size"] = side
    mean, std = (tuple(content[key]) if isinstance(content.get(key), list) else None for key in _MOMENTS)
    if mean is not None or std is not None:
        if (mean, std) not in ((_HALF, _HALF), _IMAGENET):
            raise CheckpointError(
                f"{path} has image_mean {shown(list(mean or ()))} and image_std {shown(list(std or ()))}; "
                "OFA's pictures have 0.5 and 0.5, or ImageNet's"
            )
        told["imagenet_default_mean_and_std"] = (mean, std) == _IMAGENET
    return told


_MOMENTS = ("image_mean", "image_std")


def _side(path: Path, size: Any) -> int | None:
    """The side of a square, which stands there as a number or by any of three names."""
    if isinstance(size, Mapping):
        sides = {size[key] for key in ("shortest_edge", "height", "width") if type(size.get(key)) is int}
        if not sides and size:
            raise CheckpointError(f"{path}: size should have shortest_edge, or height and width")
        if len(sides) > 1:
            raise CheckpointError(f"{path}: size is {dict(size)}; OFA's pictures are squares")
        return next(iter(sides), None)
    if size is not None and type(size) is not int:
        raise CheckpointError(f"{path}: size is {shown(size)}, not a number of pixels")
    return size
