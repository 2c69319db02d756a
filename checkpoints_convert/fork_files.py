"""Files of a Hugging Face style directory besides config.json and the vocabulary, as OFA's fork reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ofa_core.checkpoint.card import model_card
from ofa_core.config import OFAConfig, TaskSettings

from .huggingface import state_to_huggingface

TOKENIZER_FILE = "tokenizer_config.json"

_VERSIONS = ("encoder.version", "decoder.version")
_POSITIONS = "decoder.image_position_idx"
_HALF = [0.5, 0.5, 0.5]
_IMAGENET_MEAN, _IMAGENET_STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
#: Pillow's number of the bicubic filter.
_BICUBIC = 3


def state_of_fork(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """fairseq's ``state`` as the fork's model has it: its names, no format numbers, one code position less."""
    kept = {name: tensor for name, tensor in state.items() if name not in _VERSIONS}
    kept[_POSITIONS] = kept[_POSITIONS][:-1].clone()
    return state_to_huggingface(kept)


def preprocessor_config(task: TaskSettings) -> dict[str, Any]:
    """The content of a preprocessor_config.json: squares of the model's side, bicubic, normalised as it was trained."""
    mean, std = (_IMAGENET_MEAN, _IMAGENET_STD) if task.imagenet_normalization else (_HALF, _HALF)
    return {
        "image_processor_type": "ViTImageProcessor",
        "do_resize": True,
        "size": {"height": task.image_size, "width": task.image_size},
        "resample": _BICUBIC,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": mean,
        "image_std": std,
    }


def tokenizer_config() -> dict[str, Any]:
    """The content of a tokenizer_config.json."""
    return {
        "tokenizer_class": "OFATokenizer",
        "add_prefix_space": False,
        "errors": "replace",
        "bos_token": "<s>",
        "cls_token": "<s>",
        "eos_token": "</s>",
        "sep_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "<unk>",
        "mask_token": "<mask>",
    }


def fork_card(config: OFAConfig, parameters: int) -> str:
    """A model card that says how to load a directory in Hugging Face style."""
    notes = "Written by `convert-ckpt --to hf`; ofa_core converts it once when it is loaded."
    return (
        model_card(config, parameters, notes=notes)
        + """
With OFA's fork of transformers:

```python
from transformers import OFAModel, OFATokenizer

tokenizer = OFATokenizer.from_pretrained("DIRECTORY")
model = OFAModel.from_pretrained("DIRECTORY", use_cache=False)
```
"""
    )
