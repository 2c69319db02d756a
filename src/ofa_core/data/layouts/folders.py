"""Folders of pictures, one for each class, as ImageNet has them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from ...errors import OFAError
from ...utils.input_files import read_text_file

#: Files that tell the names of classes, one a line: the folder's name, a space, and names with commas between.
_NAMES = ("LOC_synset_mapping.txt", "synset_words.txt", "classes.txt")


def class_folders(root: Path) -> list[str]:
    """The folders of a directory, in their order."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not entry.name.startswith("."))


def picture_rows(root: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every picture with the name of its class.

    Raises:
        OFAError: a file of names lacks a folder, or a folder cannot be read.
    """
    names = _class_names(root)
    suffixes = Image.registered_extensions()
    for folder in class_folders(root):
        if names is not None and folder not in names:
            raise OFAError(f"{root}: its file of names has none for the folder {folder}")
        label = folder if names is None else names[folder]
        for file in sorted(os.listdir(root / folder)):
            if os.path.splitext(file)[1].lower() in suffixes:
                name = f"{folder}/{file}"
                yield str(root / name), {"id": name, "image": name, "label": label}


def name_files(root: Path) -> list[Path]:
    """The files in a directory that tell the names of its classes, of which the first counts."""
    return [root / name for name in _NAMES if (root / name).is_file()]


def _class_names(root: Path) -> dict[str, str] | None:
    """The first name of each class by its folder, where a file in the directory tells them."""
    files = name_files(root)
    if not files:
        return None
    found = files[0]
    pairs = [line.split(maxsplit=1) for line in read_text_file(found).splitlines() if line.strip()]
    if wrong := [pair[0] for pair in pairs if len(pair) < 2]:
        raise OFAError(f"{found}: {wrong[0]} has no name behind it")
    return {folder: names.split(",")[0].strip() for folder, names in pairs}
