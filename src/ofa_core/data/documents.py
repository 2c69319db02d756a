"""Files and folders that are read as a whole: JSON with several lists, pickles, and folders of pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import OFAError
from .layouts import coco, conversation, folders, refer, vqa
from .layouts.whole_files import read_json, rows_under
from .plain_pickle import read_plain_pickle
from .records import Format

#: The file of a folder of pictures that tells about them, as the library ``datasets`` reads it.
METADATA = "metadata.jsonl"

_Rows = Iterator[tuple[str, Mapping[str, Any]]]


@dataclass(frozen=True)
class Join:
    """A way in which rows lie in a JSON file."""

    name: str
    formats: tuple[Format, ...]
    #: The reason why a content is not of this kind; None if it is.
    reason_against: Callable[[Any], str | None]
    rows: Callable[[Path, Any], _Rows]


def _has(*names: str) -> Callable[[Any], str | None]:
    def reason(content: Any) -> str | None:
        if not isinstance(content, Mapping):
            return "it is no object with fields"
        return next((f"no {name}" for name in names if name not in content), None)

    return reason


def _first_has(*names: str) -> Callable[[Any], str | None]:
    def reason(content: Any) -> str | None:
        if not isinstance(content, list) or not content or not isinstance(content[0], Mapping):
            return "it is no list of objects"
        return next((f"no {name}" for name in names if name not in content[0]), None)

    return reason


def _annotation_has(name: str) -> Callable[[Any], str | None]:
    def reason(content: Any) -> str | None:
        missing = _has("images", "annotations")(content)
        return missing or _first_has(name)(content["annotations"])

    return reason


def _list_rows(path: Path, content: Any) -> _Rows:
    return rows_under(path, {"rows": content}, "rows")


_REFERENCES: tuple[Format, ...] = ("refcoco", "grefcoco")
#: The kinds of JSON files, those that say most about their content first.
JOINS = (
    Join(
        "references with instances.json", _REFERENCES, _first_has("sentences", "ann_id", "image_id"), refer.joined_rows
    ),
    Join("COCO captions", ("caption",), _annotation_has("caption"), coco.caption_rows),
    Join("COCO instances", ("pretrain_detection",), _annotation_has("bbox"), coco.instance_rows),
    Join("VQAv2 questions", ("vqa",), _has("questions"), vqa.question_rows),
    Join("VisDial", ("conversation",), _has("data", "split"), conversation.visdial_rows),
)
#: A list of rows, which is JSON lines in one.
_LIST = Join("a list of rows", (), _first_has(), _list_rows)


@dataclass(frozen=True)
class Document:
    """A kind of file or folder that is read as a whole."""

    name: str
    #: Its files, as messages say it.
    files: str
    formats: tuple[Format, ...]
    #: Tell whether a path is of this kind, by its name or what lies in it.
    is_it: Callable[[Path], bool]
    rows: Callable[[Format, Path], _Rows]

    def takes(self, format: Format, path: Path) -> bool:
        """Tell whether a path is read in this way for a format."""
        return (not self.formats or format in self.formats) and self.is_it(path)


def _json_rows(format: Format, path: Path) -> _Rows:
    """The rows of a JSON file, whose kind its content tells."""
    content = read_json(path)
    against: list[str] = []
    for join in (*JOINS, _LIST):
        if join.formats and format not in join.formats:
            continue
        reason = join.reason_against(content)
        if reason is None:
            yield from join.rows(path, content)
            return
        against.append(f"{join.name}: {reason}")
    raise OFAError(f"{path}: the file is of no kind that holds {format} rows ({'; '.join(against)})")


def _pickle_rows(format: Format, path: Path) -> _Rows:
    content = read_plain_pickle(path)
    reason = _first_has("sentences", "ann_id", "image_id")(content)
    if reason is not None:
        raise OFAError(f"{path}: it holds no references ({reason})")
    yield from refer.joined_rows(path, content)


def _folder_rows(format: Format, path: Path) -> _Rows:
    yield from folders.picture_rows(path)


def _is_class_folder(path: Path) -> bool:
    """A directory of folders, with nothing that tells rows."""
    if not path.is_dir() or not folders.class_folders(path):
        return False
    names = {entry.name for entry in path.iterdir()}
    tables = any(name.endswith((".parquet", ".arrow")) for name in names)
    return not tables and not names & {METADATA, "state.json", "dataset_dict.json"}


def _ends_with(*suffixes: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.name.lower().endswith(suffixes)


#: Every kind.
DOCUMENTS = (
    Document("JSON", ".json", (), _ends_with(".json"), _json_rows),
    Document("references", ".p", _REFERENCES, _ends_with(".p", ".pkl", ".pickle"), _pickle_rows),
    Document("classes", "a folder for each", ("image_classify",), _is_class_folder, _folder_rows),
)


def document_rows(document: Document, format: Format, path: Path) -> _Rows:
    """The rows of a file or folder with their places.

    Raises:
        OFAError: while reading: it is damaged, or of another kind.
    """
    return document.rows(format, path)


def files_beside(format: Format, path: Path) -> list[Path]:
    """The further files that reading a file or folder of a format takes: boxes, annotations, names of classes."""
    if path.is_dir():
        return [] if not _is_class_folder(path) else folders.name_files(path)
    suffix = path.suffix.lower()
    if format in _REFERENCES and suffix in (".json", ".p", ".pkl", ".pickle"):
        boxes = path.with_name(refer.INSTANCES)
        return [boxes] if boxes.is_file() and boxes != path else []
    if format == "vqa" and suffix == ".json":
        return vqa.annotation_files(path)
    return []


def picture_folder(path: Path, images: Path | None) -> Path | None:
    """The place of pictures: as it was named, else a data set's own directory where its pictures lie in it."""
    if images is None and path.is_dir() and ((path / METADATA).is_file() or _is_class_folder(path)):
        return path
    return images
