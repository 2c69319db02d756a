"""The weights of exported graphs rounded to 8 bits, and what that changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from statistics import mean
from typing import Any

import torch
from PIL import Image

from ..demo.language import phrase
from ..demo.world import draw, make_scene
from ..errors import OFAError
from ..vision.boxes import Box, box_iou
from .graph_files import GRAPHS

#: A question: a picture's file, and the phrase to ground in it.
Question = tuple[Path, str]
#: Answers of a runner, as it prints them.
Answer = dict[str, Any]


def check_onnxruntime() -> None:
    """Raise where onnxruntime is missing.

    Raises:
        OFAError: it is.
    """
    try:
        import onnxruntime  # noqa: F401
    except ImportError:
        raise OFAError("rounding to int8 needs onnxruntime: pip install onnxruntime") from None


def round_weights(exact: Path, rounded: Path) -> None:
    """Write the ONNX graphs in ``exact`` to ``rounded``, with the weights of matrix products in 8 bits.

    A scale for each column; what is multiplied with them is rounded when it is known. Convolutions, embeddings and
    products of two computed matrices stay float32.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises a preparation, of which the exporter has done what counts
    try:
        for name in GRAPHS:
            quantize_dynamic(
                exact / f"{name}.onnx",
                rounded / f"{name}.onnx",
                op_types_to_quantize=["MatMul"],
                per_channel=True,
                weight_type=QuantType.QInt8,
                use_external_data_format=True,
                extra_options={"MatMulConstBOnly": True},
            )
    finally:
        root.setLevel(level)


@dataclass(frozen=True)
class Comparison:
    """Two runners' answers to the same questions."""

    questions: int
    equal: int  # of the same tokens
    iou: float  # on average; 1 where neither finds a box, 0 where one does

    def line(self) -> str:
        """One line that tells it."""
        return f"int8 and float32 on {self.questions} drawn pictures: IoU {self.iou:.4f}, {self.equal} equal"


def compare(
    questions: Sequence[Question], one: Callable[[Path, str], Answer], other: Callable[[Path, str], Answer]
) -> Comparison:
    """Compare two runners' answers to ``questions``."""
    pairs = [(one(path, text), other(path, text)) for path, text in questions]
    equal = sum(left["tokens"] == right["tokens"] for left, right in pairs)
    return Comparison(len(pairs), equal, mean(_overlap(left["box"], right["box"]) for left, right in pairs))


def drawn_questions(directory: Path, count: int) -> list[Question]:
    """Draw pictures of coloured shapes into ``directory``, each with a phrase that describes one of them."""
    questions: list[Question] = []
    seed = 0
    while len(questions) < count:
        scene = make_scene(seed, "test")
        found = phrase(scene, Random(f"export {seed}"))
        if found is not None:
            picture: Image.Image = draw(scene)
            picture.save(directory / f"{seed}.png")
            questions.append((directory / f"{seed}.png", found[2]))
        seed += 1
    return questions


def _overlap(one: Box | None, other: Box | None) -> float:
    if one is None or other is None:
        return float(one is other)
    return float(box_iou(torch.tensor(one), torch.tensor(other)))
