"""The originals of RefCOCO, RefCOCO+, RefCOCOg and gRefCOCO: references, joined with ``instances.json`` beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ...errors import OFAError
from .whole_files import read_json, rows_under

INSTANCES = "instances.json"
#: The number of no annotation, with which gRefCOCO says that a phrase means nothing in the picture.
_NOTHING = -1


def joined_rows(path: Path, references: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The references of a file, each with its picture and the boxes of its annotations.

    Raises:
        OFAError: the file is no list of references, ``instances.json`` is not beside it, or is of another data set.
    """
    beside = path.with_name(INSTANCES)
    if not beside.is_file():
        raise OFAError(f"{path} needs {INSTANCES} beside it, which knows pictures and boxes")
    content = read_json(beside)
    pictures, boxes, names = (_by_id(beside, content, name) for name in ("images", "annotations", "categories"))
    for place, reference in rows_under(path, {"references": references}, "references"):
        picture = _known(pictures, reference.get("image_id"), f"{place}: image_id", beside)
        numbers = reference.get("ann_id")
        wanted = [one for one in (numbers if isinstance(numbers, list) else [numbers]) if one != _NOTHING]
        found = [_known(boxes, one, f"{place}: ann_id", beside) for one in wanted]
        kind = names.get(str(found[0].get("category_id"))) if found else None
        yield (
            place,
            {
                **{name: reference[name] for name in ("ref_id", "split", "sentences") if name in reference},
                **{name: picture[name] for name in ("file_name", "width", "height") if name in picture},
                "annotation_boxes": [one.get("bbox") for one in found],
                "category": str(kind.get("name", "")) if kind else "",
            },
        )


def _by_id(path: Path, content: Any, name: str) -> dict[str, Mapping[str, Any]]:
    return {str(row.get("id")): row for _, row in rows_under(path, content, name)}


def _known(known: Mapping[str, Mapping[str, Any]], id: object, place: str, path: Path) -> Mapping[str, Any]:
    found = known.get(str(id))
    if found is None:
        raise OFAError(f"{place}: {str(id)[:40]} is not in {path}")
    return found
