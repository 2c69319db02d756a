"""The commands about models themselves: ``inspect``, ``models``, ``cache`` and ``push``."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .. import api
from ..bench.summary import format_score, read_summary
from ..checkpoint.cache import Entry, cache_directory, list_entries, remove_entries, stands_for
from ..checkpoint.card import CARD_FILE, CardScore, model_card
from ..checkpoint.hub import SCHEME, upload
from ..checkpoint.inspection import inspect_directory
from ..checkpoint.released import Released, released
from ..checkpoint.verification import verify_directory
from ..config import TaskSettings
from ..errors import OFAError
from ..heads.tasks import DIALOG_METHODS, answered_methods
from ..utils.printable import printable


def inspect(args: argparse.Namespace) -> int:
    """Print what a model directory or a checkpoint holds."""
    directory = api.model_directory(args.path)
    verified = verify_directory(directory) if args.verify else None
    found = inspect_directory(directory)
    if args.json:
        more = {"config": found.config.model_dump()} | ({"verified": asdict(verified)} if verified else {})
        print(json.dumps(asdict(found) | more, default=str))
    else:
        lines = [*found.lines(), *([verified.line()] if verified else [])]
        print("\n".join(map(printable, lines)))
    return 0


# Released checkpoints


def methods_of(entry: Released) -> list[str]:
    """The methods of ``OFA`` that a released checkpoint answers; none where it is not OFA with pictures."""
    if entry.trained_for:
        return answered_methods(TaskSettings(name=entry.trained_for))
    return list(DIALOG_METHODS) if entry.family == "hub" else []


def models(args: argparse.Namespace) -> int:
    """Print the table of released checkpoints."""
    entries = list_entries()
    rows = [_row(entry, entries) for entry in released().values()]
    words = [word.lower() for word in args.words]
    rows = [row for row in rows if all(word in json.dumps(row, ensure_ascii=False).lower() for word in words)]
    if args.json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return 0
    heads = ("name", "size", "task", "answers", "MB", "in the cache", "published")
    cells = [[_shown(row[head]) for head in heads] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    for line in (heads, *cells):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    return 0


def _row(entry: Released, entries: Sequence[Entry]) -> dict[str, Any]:
    """A line of the table; megabytes are those of the file where it is in the cache, since none are published."""
    there = [found for found in entries if stands_for(found.name, entry.name)]
    files = [found.bytes for found in there if found.part == "downloads" and not found.partial]
    return {
        "name": entry.name,
        "size": entry.size,
        "task": entry.task,
        "answers": methods_of(entry),
        "MB": round(files[0] / 1e6) if files else None,
        "in the cache": list(dict.fromkeys("cut off" if found.partial else found.part for found in there)),
        "published": entry.published,
        "url": entry.url,
    }


def _shown(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else "" if value is None else str(value)


# The cache


def list_cache(args: argparse.Namespace) -> int:
    """Print every entry of the cache."""
    entries = list_entries()
    for entry in entries:
        if args.json:
            print(json.dumps(asdict(entry), default=str))
        else:
            more = " (cut off; goes on when it is asked for)" if entry.partial else ""
            print(printable(f"{entry.bytes / 1e6:10,.1f} MB  {entry.part:<10}  {entry.name}{more}"))
    if not args.json:
        total = sum(entry.bytes for entry in entries)
        print(printable(f"{total / 1e6:10,.1f} MB  in {cache_directory()}"))
    return 0


def remove_from_cache(args: argparse.Namespace) -> int:
    """Remove the entries of ``args.names``."""
    for name in args.names:
        for entry in remove_entries(name, forget=args.forget):
            print(printable(f"removed {entry.path} ({entry.bytes / 1e6:,.1f} MB)"))
    return 0


# The hub


def push(args: argparse.Namespace) -> int:
    """Put a model into a repository, with a card."""
    scores = [_card_score(path) for path in args.scores]
    directory = api.model_directory(args.model)
    found = inspect_directory(directory)
    data = args.data or _learned_from(found.provenance)
    load, parameters = f"{SCHEME}{args.repository}", sum(found.parameters.values())
    with tempfile.TemporaryDirectory() as place:
        for path in directory.resolve().iterdir():
            if path.is_file() and path.name != CARD_FILE:
                (Path(place) / path.name).symlink_to(path)
        card = model_card(found.config, parameters, load=load, data=data, scores=scores)
        (Path(place) / CARD_FILE).write_text(card, encoding="utf-8")
        print(upload(Path(place), args.repository, private=args.private, message="Model of ofa_core"))
    return 0


def _learned_from(provenance: dict[str, Any]) -> list[str]:
    """The names of what a model of ``ofa-core train`` learned from."""
    settings = provenance.get("settings")
    tables = settings.get("data") if isinstance(settings, dict) else None
    return [str(table["task"]) for table in tables or [] if isinstance(table, dict) and "task" in table]


def _card_score(path: Path) -> CardScore:
    """The headline of a summary."""
    summary = read_summary(path)
    if summary is None:
        raise OFAError(f"{path} is no summary of ofa-core bench, which stands beside the results as a .json")
    score = summary.headline
    shown = [format_score(score.name, number) for number in (score.value, score.low, score.high)]
    value = f"{shown[0]} ({shown[1]} to {shown[2]}), {summary.samples:,} samples"
    return CardScore(summary.task, Path(summary.data).name, score.name, value)
