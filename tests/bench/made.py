"""Results that tests score: rows whose boxes and answers are drawn, with pictures of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ofa_core import BoxCodec
from ofa_core.bench.metrics import scored_iou
from ofa_core.bench.results import Detected, Header, ResultsFile, Row, Target
from ofa_core.bench.summary import TASK_SCORES
from ofa_core.heads.box_codec import Box

SIZE = (320, 240)
CATEGORIES = ("circle", "square", "star")
COLORS = ("crimson", "royalblue", "goldenrod")


def header(task: str = "guesswhat_grounding", **changes: Any) -> Header:
    fields = {
        "task": task,
        "comment": "base",
        "model": "models/ofa-small",
        "model_sha256": "ab" * 32,
        "data": "data/guesswhat.valid.jsonl.gz",
        "settings": {"batch_size": 16, "limit": None, "protocol": "open"},
        "versions": {"ofa_core": "0.1.0", "torch": "2.8"},
        "started": "2025-03-01T12:30:05",
    }
    return Header(**(fields | changes))


def bins(box: Box) -> str:
    return " ".join(f"<bin_{number}>" for number in BoxCodec("invig").encode(box, SIZE))


def row(index: int = 0, /, **changes: Any) -> Row:
    """A grounding row whose box was missed."""
    fields: dict[str, Any] = {
        "index": index,
        "id": f"game-{index}",
        "image": f"{index}.png",
        "size": SIZE,
        "source": " which region does the context describe?",
        "target": "region: <bin_1> <bin_2> <bin_3> <bin_4>",
        "output": "region: <bin_5> <bin_6> <bin_7> <bin_8>",
        "box": (10.0, 10.0, 50.0, 50.0),
        "found": (200.0, 100.0, 250.0, 150.0),
        "iou": 0.0,
        "score": 0.5,
    }
    return Row(**(fields | changes))


def rows(count: int, task: str = "guesswhat_grounding", seed: int = 0, skill: float = 12.0) -> list[Row]:
    """Drawn samples of a task; the lower ``skill`` (pixels of error), the better the model."""
    kinds = {
        "grounding": _grounding,
        "oracle": _oracle,
        "selfplay": _selfplay,
        "boxes": _boxes,
        "caption": _captioned,
        "vqa": _asked,
        "choice": _chosen,
        "likelihood": _weighed,
    }
    make = kinds.get(TASK_SCORES[task].kind, _answered)
    generator = np.random.default_rng(seed)
    return [make(index, task, generator, skill) for index in range(count)]


def _grounding(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    side = float(generator.choice([20, 60, 120]))
    x, y = generator.uniform(0, SIZE[0] - side), generator.uniform(0, SIZE[1] - side)
    box = (x, y, x + side, y + side)
    moved = np.clip(np.array(box) + generator.normal(0, skill, 4), 0, [SIZE[0], SIZE[1]] * 2)
    found: Box | None = tuple(moved.tolist())  # type: ignore[assignment]
    if generator.random() < 0.1:
        found = None
    category = CATEGORIES[int(generator.integers(3))]
    return row(
        index,
        category=category,
        box=box,
        found=found,
        target=f"region: {bins(box)}",
        output="not sure" if found is None else "region: <bin_1> <bin_2> <bin_3> <bin_4>",
        iou=scored_iou(box, found, SIZE, TASK_SCORES[task].convention),
        score=float(generator.random()),
        turns=("is it red?", "yes", f"is it a {category}?", "yes", "is it on the left?", "no"),
    )


def _oracle(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    target = ("yes", "no", "n/a")[int(generator.choice(3, p=[0.45, 0.5, 0.05]))]
    output = target if generator.random() > skill / 50 else "no"
    left = float(generator.random())
    return row(
        index,
        id=f"game-{index // 3}/{index % 3 + 1}",
        category=CATEGORIES[index % 3],
        target=target,
        output=output,
        found=None,
        iou=None,
        score=left,
        probabilities={"yes": left, "no": (1 - left) / 2, "n/a": (1 - left) / 2},
        turns=("is it red?", "yes", "is it a circle?"),
    )


def _answered(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    """A row without boxes; a picture is there or not."""
    answers = {"sst2": ("positive", "negative"), "ocr": ("some text", "other words")}.get(task, ("yes", "no"))
    target = answers[int(generator.integers(2))]
    output = target if generator.random() > skill / 50 else answers[0]
    return row(index, target=target, output=output, box=None, found=None, iou=None, score=float(generator.random()))


def _boxes(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    """A row of any number of boxes, each of which was found about where it is, or not."""
    count = int(generator.integers(4))
    places = [_grounding(index, "refcoco_grounding", generator, skill) for _ in range(count)]
    found = [(place.found, place.category, place.score) for place in places if place.found is not None]
    return row(
        index,
        targets=tuple(Target(box=place.box, label=place.category) for place in places if place.box is not None),
        detected=tuple(Detected(box=box, label=label, score=score) for box, label, score in found),
        **_TEXT,
    )


_TEXT: dict[str, Any] = {"box": None, "found": None, "iou": None}
_WORDS = ("a", "red", "blue", "square", "circle", "on", "the", "left")


def _captioned(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    texts = [" ".join(generator.choice(_WORDS, int(generator.integers(3, 9)))) for _ in range(6)]
    output = texts[0] if generator.random() < skill / 50 else texts[1]
    return row(index, references=tuple(texts[1:]), target=texts[1], output=output, **_TEXT)


def _asked(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    people = tuple(str(answer) for answer in generator.choice(("red", "2", "a dog"), 10))
    kept = {"answer_type": ("other", "number")[index % 2]}
    weights = {answer: min(1.0, 0.3 * people.count(answer)) for answer in people}
    output = people[0] if generator.random() > skill / 50 else "blue"
    return row(index, references=people, weights=weights, kept=kept, target=people[0], output=output, **_TEXT)


def _chosen(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    labels = [str(label) for label in generator.permutation(("dog", "cat", "cup", "car", "bus", "tree"))[:5]]
    probabilities = dict(zip(labels, (0.5, 0.2, 0.1, 0.1, 0.05), strict=True))
    return row(index, target="dog", output=labels[0], score=0.5, probabilities=probabilities, **_TEXT)


def _weighed(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    log_probs = tuple(np.log(generator.uniform(0.1, 1, int(generator.integers(2, 9)))).tolist())
    return row(index, target="is it red?", output="", log_probs=log_probs, turns=("the cup",), **_TEXT)


def _selfplay(index: int, task: str, generator: np.random.Generator, skill: float) -> Row:
    played = _grounding(index, task, generator, skill)
    turns = ("the red one", "is it on the left?", "no", "is it large?", "yes")
    asked = int(generator.integers(0, 9))
    return played.model_copy(update={"questions": asked, "turns": turns})


def written(path: Path, content: list[Row], of: Header) -> Path:
    with ResultsFile(path, of) as file:
        file.write(content)
    return path


def picture(of: Row) -> Image.Image:
    """A drawn picture with a shape where the row's target is."""
    image = Image.new("RGB", SIZE, "whitesmoke")
    draw = ImageDraw.Draw(image)
    for line in range(0, SIZE[0], 20):
        draw.line((line, 0, line, SIZE[1]), fill="gainsboro")
    if of.box is not None:
        draw.ellipse(of.box, fill=COLORS[of.index % 3])
    return image
