"""The cache of what was downloaded and converted: ``$OFA_CACHE``, by default ``~/.cache/ofa_core``.

``downloads`` holds released files as they came, ``converted`` a model directory of each checkpoint that was loaded as
it was, ``bpe`` the vocabulary files, and ``digests`` what each download was when it first came. What comes from a hub
is in that hub's own cache.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..errors import CheckpointError
from .released import released

#: A part of the cache whose entries are listed and removed one by one.
Part = Literal["downloads", "converted"]
PARTS: tuple[Part, ...] = get_args(Part)
#: Behind the name of a file: what came so far, what is known of it, and the lock of who downloads it.
PARTIAL, FACTS, LOCK = ".part", ".part.json", ".lock"


def cache_directory() -> Path:
    """The cache's directory: ``$OFA_CACHE``, else ``$XDG_CACHE_HOME/ofa_core``, else ``~/.cache/ofa_core``."""
    if own := os.environ.get("OFA_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ofa_core"


def downloaded(file: str) -> Path:
    """The place of a released file in the cache, whether it is there or not."""
    return cache_directory() / "downloads" / file


def converted(label: str) -> Path:
    """The place of a converted checkpoint in the cache, whether it is there or not."""
    return cache_directory() / "converted" / label


def digest_record(path: Path) -> Path:
    """The file that tells what the download at ``path`` was when it first came."""
    return path.parent.parent / "digests" / f"{path.name}.json"


def read_record(path: Path) -> dict[str, Any]:
    """The facts about the first download at ``path``: sha256, bytes, address and time; empty before there was one."""
    try:
        found = json.loads(digest_record(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("sha256"), str) else {}


def known_sha256(path: Path) -> str | None:
    """The sha256 of a download; None before there was one, and where another file was put in its place."""
    record = read_record(path)
    replaced = path.is_file() and path.stat().st_size != record.get("bytes")
    return None if replaced else record.get("sha256")


@dataclass(frozen=True)
class Entry:
    """Something in the cache."""

    part: Part
    name: str
    path: Path
    bytes: int
    #: True for a download that was cut off, and goes on when it is asked for again.
    partial: bool = False


def list_entries() -> list[Entry]:
    """Everything that may be removed, by part and name."""
    return [entry for part in PARTS for entry in _entries(part)]


def _entries(part: Part) -> list[Entry]:
    directory = cache_directory() / part
    if not directory.is_dir():
        return []
    found = []
    for path in sorted(directory.iterdir()):
        if path.name.startswith(".") or path.name.endswith((FACTS, LOCK)):
            continue
        partial = part == "downloads" and path.name.endswith(PARTIAL)
        found.append(Entry(part, path.name.removesuffix(PARTIAL) if partial else path.name, path, _size(path), partial))
    return found


def _size(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def remove_entries(name: str, *, forget: bool = False) -> list[Entry]:
    """Remove everything of a name from the cache: a download, whole or not, and what was converted of it.

    Args:
        name: an entry's name, or the beginning of it up to a ``-`` or a ``.``.
        forget: forget what a download was when it first came, too, so that another file is accepted.

    Returns:
        What was removed.

    Raises:
        CheckpointError: there is nothing of this name.
    """
    names = _names(name)
    found = [entry for entry in list_entries() if _belongs(entry.name, names)]
    records = sorted((cache_directory() / "digests").glob("*.json")) if forget else []
    records = [record for record in records if _belongs(record.name.removesuffix(".json"), names)]
    if not found and not records:
        there = ", ".join(dict.fromkeys(entry.name for entry in list_entries()))
        raise CheckpointError(f"the cache {cache_directory()} has no {name!r}; it has {there or 'nothing'}")
    for entry in found:
        if entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink(missing_ok=True)
            entry.path.with_name(f"{entry.name}{FACTS}").unlink(missing_ok=True)
    for record in records:
        record.unlink(missing_ok=True)
    return found


def stands_for(entry: str, name: str) -> bool:
    """Tell whether an entry of the cache is of the model of a name."""
    return _belongs(entry, _names(name))


def _names(name: str) -> list[str]:
    """The names under which something may stand in the cache."""
    entry = released().get(name)
    return [name.removeprefix("hf:").replace("/", "--"), *([entry.file] if entry and entry.file else [])]


def _belongs(entry: str, names: Sequence[str]) -> bool:
    return any(entry == name or (bool(name) and entry.startswith((f"{name}-", f"{name}."))) for name in names)
