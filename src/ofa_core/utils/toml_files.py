"""TOML files: settings of training runs, and those of the user."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ..errors import OFAError
from .input_files import read_text_file


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file.

    Raises:
        OFAError: it cannot be read, or is no TOML.
    """
    try:
        return _parsed(read_text_file(path))
    except (OSError, ValueError, RecursionError) as error:
        raise OFAError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def _parsed(text: str) -> dict[str, Any]:
    """The content of a TOML file, read by what came into Python with 3.11 or by the package it came from."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ImportError:
            raise OFAError("TOML files need Python 3.11, or: pip install tomli") from None
    return tomllib.loads(text)
