"""Default paths of data sets, for commands that name none: ``$OFA_DATA``, and ``[data]`` in the user's settings.

``$OFA_DATA`` is a directory; the files that are looked for in it stand in a table. The settings are
``ofa_core.toml`` in ``$XDG_CONFIG_HOME`` or ``~/.config``, or the file that ``$OFA_CONFIG`` names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from ..errors import OFAError, first_problem
from ..utils.toml_files import read_toml
from .records import Format

#: Names of rows, those of the published test or validation splits first. One without a slash is looked for in the
#: directory and in its folder of the format's name; behind them come the format's own name with :data:`ENDINGS`.
ROWS: Mapping[Format, tuple[str, ...]] = {
    "guesswhat": ("guesswhat.test.jsonl.gz", "guesswhat.test.jsonl", "guesswhat/data/test-00000-of-00001.parquet"),
    "invig": ("invig.test.jsonl", "invig/data/test-00000-of-00001.parquet"),
    "refcoco": ("refcoco_val.tsv", "refs(unc).p"),
    "grefcoco": ("grefs(unc).json",),
    "caption": ("caption_test.tsv", "captions_val2014.json"),
    "vqa": ("vqa_val.tsv", "v2_OpenEnded_mscoco_val2014_questions.json"),
    "snli_ve": ("snli_ve_test.tsv", "snli_ve_test.jsonl"),
    "pretrain_detection": ("instances_val2017.json",),
}
ENDINGS = (".jsonl", ".jsonl.gz", ".parquet", ".tsv", ".json", "")

_COCO = ("coco", "coco.zip", "train2014", "train2014.zip", "coco/train2014")
#: Names of pictures, looked for in the same way; behind them come :data:`PICTURES_OF_ALL` in the format's folder alone.
PICTURES: Mapping[Format, tuple[str, ...]] = {
    "guesswhat": _COCO,
    "invig": ("openimages", "openimages.zip"),
    "refcoco": _COCO,
    "grefcoco": _COCO,
    "caption": ("val2014", "val2014.zip", *_COCO),
    "vqa": ("val2014", "val2014.zip", *_COCO),
    "snli_ve": ("flickr30k", "flickr30k-images", "flickr30k.zip"),
    "pretrain_detection": ("val2017", "val2017.zip", *_COCO),
}
PICTURES_OF_ALL = ("images", "images.zip", "images.tar", "images.tar.gz")

#: The variables that name the directory and the settings, and the settings' name.
DIRECTORY_VARIABLE, SETTINGS_VARIABLE, SETTINGS_NAME = "OFA_DATA", "OFA_CONFIG", "ofa_core.toml"


@dataclass(frozen=True)
class DefaultData:
    """The rows and pictures of a format that nobody named, and what led there."""

    format: Format
    path: Path
    images: Path | None
    #: ``$OFA_DATA`` or the settings' file.
    source: str

    def __str__(self) -> str:
        pictures = "" if self.images is None else f", pictures {self.images}"
        return f"{self.format} rows: {self.path}{pictures} (from {self.source})"


class _UserSettings(BaseModel):
    """The user's settings: ``[data]`` and ``[images]`` name a path for a format."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    data: dict[Format, Path] = {}
    images: dict[Format, Path] = {}


def default_data(format: Format) -> DefaultData | None:
    """The rows and pictures of ``format`` by the directory, else by the settings; None where neither has them.

    Raises:
        OFAError: the variable names no directory, the settings are wrong, or name what does not exist.
    """
    return _in_directory(format) or _in_settings(format)


def ways_to_name(format: Format) -> str:
    """The ways in which data of ``format`` may be named by default, for messages: one line."""
    directory = os.environ.get(DIRECTORY_VARIABLE)
    there = f"{directory} holds no" if directory else "a directory with"
    names = " or ".join(list(_names(format, ROWS, ENDINGS))[:3])
    return f'${DIRECTORY_VARIABLE} ({there} {names}, ...), or {format} = "PATH" under [data] in {settings_path()}'


def settings_path() -> Path:
    """The file of the user's settings, which need not exist."""
    if named := os.environ.get(SETTINGS_VARIABLE):
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / SETTINGS_NAME


# In a directory


def _in_directory(format: Format) -> DefaultData | None:
    named = os.environ.get(DIRECTORY_VARIABLE)
    if not named:
        return None
    directory = Path(named)
    if not directory.is_dir():
        raise OFAError(f"${DIRECTORY_VARIABLE} is {named}, which is no directory")
    path = _first(directory, _names(format, ROWS, ENDINGS))
    if path is None:
        return None
    pictures = [*_names(format, PICTURES), *(f"{format}/{name}" for name in PICTURES_OF_ALL)]
    return DefaultData(format, path, _first(directory, pictures), f"${DIRECTORY_VARIABLE}")


def _names(format: Format, table: Mapping[Format, tuple[str, ...]], endings: tuple[str, ...] = ()) -> Iterator[str]:
    """The names that are looked for, in their order."""
    for name in (*table.get(format, ()), *(f"{format}{ending}" for ending in endings if ending)):
        yield name
        if "/" not in name:
            yield f"{format}/{name}"
    if "" in endings:
        yield format


def _first(directory: Path, names: Iterator[str] | list[str]) -> Path | None:
    return next((directory / name for name in names if (directory / name).exists()), None)


# In the settings


def _in_settings(format: Format) -> DefaultData | None:
    settings, path = _user_settings(), settings_path()
    if format not in settings.data:
        return None
    rows, images = settings.data[format], settings.images.get(format)
    for table, named in (("data", rows), ("images", images)):
        if named is not None and not (path.parent / named.expanduser()).exists():
            raise OFAError(f"{path}: [{table}] names {named} for {format}, which does not exist")
    pictures = None if images is None else path.parent / images.expanduser()
    return DefaultData(format, path.parent / rows.expanduser(), pictures, str(path))


def _user_settings() -> _UserSettings:
    path = settings_path()
    if not path.exists():
        if os.environ.get(SETTINGS_VARIABLE):
            raise OFAError(f"${SETTINGS_VARIABLE} is {path}, which does not exist")
        return _UserSettings()
    content = read_toml(path)
    for table, names in content.items():
        wrong = [name for name in names if name not in get_args(Format)] if isinstance(names, Mapping) else []
        if wrong and table in _UserSettings.model_fields:
            raise OFAError(f"{path}: [{table}] names {wrong[0]!r}; formats are {', '.join(get_args(Format))}")
    try:
        return _UserSettings.model_validate(content)
    except ValidationError as error:
        raise OFAError(f"{path}: {first_problem(error)}") from None
