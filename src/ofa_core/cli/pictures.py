"""Pictures that a command line names: files, directories of them, and patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from pathlib import Path

from ..errors import OFAError
from ..vision.images import is_picture_name

_PATTERN = frozenset("*?[")


def named_pictures(names: Sequence[str]) -> list[Path]:
    """The pictures of ``names``: directories and patterns give those in them, by their names, hidden ones left out.

    Raises:
        OFAError: a directory holds none, or a pattern fits none.
    """
    found: list[Path] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            inside = pictures_below(path)
            if not inside:
                raise OFAError(f"{name} is a directory without pictures")
            found += inside
        elif not path.exists() and _PATTERN & set(name):
            fitting = sorted(Path(one) for one in glob.glob(name, recursive=True) if os.path.isfile(one))
            if not fitting:
                raise OFAError(f"no file fits the pattern {name}")
            found += fitting
        else:
            found.append(path)
    return found


def pictures_below(directory: Path) -> list[Path]:
    """The files below a directory that have a picture's name, in the order of their paths; none that is hidden."""
    found = []
    for folder, folders, files in os.walk(directory):
        folders[:] = sorted(one for one in folders if not one.startswith("."))
        found += [Path(folder) / one for one in files if not one.startswith(".") and is_picture_name(one)]
    return sorted(found)


def check_no_picture(text: str, metavar: str, command: str) -> None:
    """Refuse a text that is a picture's name: the text itself was forgotten, and a picture stands in its place.

    Raises:
        OFAError: it is one.
    """
    path = Path(text)
    name_alone = text == text.strip() and not any(map(str.isspace, text))
    is_there = is_picture_name(text) and path.is_file()
    if is_there or (name_alone and is_picture_name(text)) or (os.sep in text and path.is_dir()):
        raise OFAError(
            f"{metavar} is {text!r}, which names pictures: ofa-core {command} IMAGE... {metavar} ends with a text"
        )
