"""Model cards: the README.md of a model directory, by which people and the hub know what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..config import OFAConfig

CARD_FILE = "README.md"


@dataclass(frozen=True)
class CardScore:
    """A score of a model: of a benchmark on some data."""

    benchmark: str
    data: str
    #: Name of the score, and its value as it is shown, such as ``90.1 (89.5 to 90.7)``.
    name: str
    value: str


def model_card(
    config: OFAConfig,
    parameters: int,
    *,
    load: str = "DIRECTORY",
    data: Sequence[str] = (),
    scores: Sequence[CardScore] = (),
    notes: str = "",
) -> str:
    """A model card: architecture, task, data, scores and how to load it.

    Args:
        config: the model's configuration.
        parameters: how many it has.
        load: what :func:`ofa_core.load` is given for it.
        data: what it was trained on.
        scores: results of ``ofa-core bench``.
        notes: text behind the table.

    Returns:
        Markdown with the metadata that the hub reads.
    """
    task = config.task
    normalization = "ImageNet's mean and standard deviation" if task.imagenet_normalization else "0.5 and 0.5"
    facts = {
        "width": config.embed_dim,
        "layers": f"{config.encoder_layers} + {config.decoder_layers}",
        "heads": config.num_heads,
        "parameters": f"{parameters:,}",
        "vocabulary": f"{config.vocab_size:,}",
        "task": task.name,
        "pictures": f"{task.image_size} × {task.image_size} pixels, normalised by {normalization}",
    }
    if data:
        facts["trained on"] = ", ".join(map(_cell, data))
    parts = [
        "---\nlibrary_name: ofa_core\ntags:\n- ofa\n- vision-language\n---\n",
        f"# OFA{f' {config.size}' if config.size else ''}, task {task.name}\n",
        "| | |\n| --- | --- |\n" + "".join(f"| {name} | {value} |\n" for name, value in facts.items()),
        *([f"{notes}\n"] if notes else []),
        *([_score_table(scores)] if scores else []),
        f'To load it with ofa_core:\n\n```python\nimport ofa_core\n\nofa = ofa_core.load("{load}")\n```\n',
    ]
    return "\n".join(parts)


def _score_table(scores: Sequence[CardScore]) -> str:
    lines = ["| benchmark | data | score | value (95% interval) |", "|---|---|---|---|"]
    lines += [f"| {' | '.join(map(_cell, (s.benchmark, s.data, s.name, s.value)))} |" for s in scores]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text within a table of Markdown."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
