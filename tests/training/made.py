"""What tests of training share: a nano model, a few examples, and short runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from reference import small_config

from ofa_core import OFAModel, Tokenizer
from ofa_core.data.examples import Example
from ofa_core.text import small_vocabulary_dir
from ofa_core.text.vocabulary import EOS
from ofa_core.training.settings import TrainingSettings

TOKENIZER = Tokenizer.from_dir(small_vocabulary_dir(), code_dict_size=0)
COLOURS = ("red", "green", "blue", "black", "white", "orange")


def nano(seed: int = 0, **changes: Any) -> OFAModel:
    torch.manual_seed(seed)
    return OFAModel(small_config(**changes))


def example(text: str, answer: str, image: Image.Image | None = None) -> Example:
    source = TOKENIZER.encode(text, add_special_tokens=True)
    return Example(source, [*TOKENIZER.encode(answer), EOS], image)


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (64, 64), colour)


class Questions:
    """Rows to learn from: what colour a picture is, and what was said; two examples share each picture."""

    def examples(self, index: int) -> list[Example]:
        colour = COLOURS[index % len(COLOURS)]
        shown = picture(colour)
        number = ("one", "two", "three", "four", "five")[index % 5]
        return [
            example(" what color is it?", f" {colour}", shown),
            example(f" say {number} and {colour}", f" {number} {colour}", shown),
        ]


def settings(out: Path, **changes: Any) -> TrainingSettings:
    """A short run on the drawn world with a nano model of random weights."""
    content: dict[str, Any] = {
        "out": out,
        "steps": 6,
        "batch_size": 2,
        "workers": 0,
        "save_every": 2,
        "log_every": 1,
        "optimizer": {"lr": 1e-3},
        "new_model": {
            "config": {
                "embed_dim": 32,
                "ffn_dim": 64,
                "encoder_layers": 1,
                "decoder_layers": 1,
                "num_heads": 4,
                "stem_depths": [1, 1, 1],
                "dropout": 0.1,
                "task": {"image_size": 64, "max_image_size": 64, "code_dict_size": 0},
            }
        },
        "data": [{"task": "shapes", "options": {"weights": {"ground": 1, "caption": 1}, "questions": 2}}],
    }
    return TrainingSettings.model_validate(content | changes)


def differing(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> Sequence[str]:
    """Names of the tensors that are not equal bit for bit."""
    assert first.keys() == second.keys()
    return [name for name in first if not torch.equal(first[name], second[name])]
