"""Names of models: a local path, a demo model of the package, a released checkpoint, or a repository of the hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointError
from .cache import converted, downloaded, known_sha256
from .download import download
from .hub import SCHEME, Repository, fetch, parse_repository
from .model_dir import CONFIG_FILE
from .released import OF_ONE_FILE, Released, check_downloadable, nearest_names, released

#: The models that come with the package, by their names, unless there is a file or directory of such a name: one that
#: answers about pictures of shapes, in the original's file format, and one that draws them.
DEMO, DRAWING_DEMO = "demo", "demo-pictures"
_OF_PACKAGE = Path(__file__).parent.parent / "demo"
DEMO_CHECKPOINT, DRAWING_MODEL = _OF_PACKAGE / "model" / "ofa_shapes.pt", _OF_PACKAGE / "drawing_model"
_DEMOS = {DEMO: DEMO_CHECKPOINT, DRAWING_DEMO: DRAWING_MODEL}
#: The beginning of a file's sha256 in its name, as OpenMMLab names files.
_DIGEST = re.compile(r"-([0-9a-f]{8})\.pth$")
#: Endings that only files have.
_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".zip", ".json", ".ckpt")
#: Files that a checkpoint's directory has and a model directory has not.
_FOREIGN = (
    *("vocab.json", "configuration.json", "preprocessor_config.json", "pytorch_model.bin", "trainer_state.json"),
    *("pytorch_model.bin.index.json", "model.safetensors.index.json"),
)


@dataclass(frozen=True)
class Located:
    """The place of what a name means."""

    path: Path
    #: The name of its conversion in the cache; None for one that depends on the file's size and time.
    label: str | None = None


def locate(name: str | os.PathLike[str]) -> Located:
    """The place of a model or a checkpoint, which is downloaded if need be.

    A path that exists always wins. ``demo`` and ``demo-pictures`` come with the package; a released checkpoint has the
    name that ``ofa-core models`` lists; ``hf:org/name`` is a repository of the hub, with ``@revision`` behind it where
    it is not the newest.

    Raises:
        CheckpointError: there is no such path or name, or it cannot be downloaded.
    """
    text = os.fspath(name)
    path = Path(text).expanduser()
    if path.exists():
        return Located(path)
    if text in _DEMOS:
        return Located(_DEMOS[text])
    if text.startswith(SCHEME):
        return _of_hub(parse_repository(text))
    entry = find_released(text)
    if entry is None:
        raise CheckpointError(_unknown(text, path))
    check_downloadable(entry)
    if entry.family in OF_ONE_FILE:
        path = download(entry.url, downloaded(entry.file), digest=published_digest(entry))
        sha256 = known_sha256(path)
        return Located(path, f"{entry.name}-{sha256[:16]}" if sha256 else None)
    return _of_hub(parse_repository(text))


def already_converted(name: str | os.PathLike[str]) -> Path | None:
    """The model directory that was made of a released file, though the file itself may be gone from the cache."""
    text = os.fspath(name)
    entry = None if Path(text).expanduser().exists() else find_released(text)
    if entry is None or entry.family not in OF_ONE_FILE:
        return None
    sha256 = known_sha256(downloaded(entry.file))
    directory = converted(f"{entry.name}-{sha256[:16]}") if sha256 else None
    return directory if directory is not None and (directory / CONFIG_FILE).is_file() else None


def published_digest(entry: Released) -> str:
    """The beginning of a file's sha256, where its publishers put it into the name."""
    found = _DIGEST.search(entry.file)
    return found[1] if found else ""


def is_name(text: str) -> bool:
    """Tell whether a text that is no path that exists is a name of a model all the same."""
    return text in _DEMOS or text.startswith(SCHEME) or find_released(text) is not None


def find_released(text: str) -> Released | None:
    """The released checkpoint of a name; of the hub's, with a revision or without."""
    table = released()
    entry = table.get(text)
    if entry is None and "/" in text and (found := table.get(text.partition("@")[0])) is not None:
        entry = found if found.family == "hub" else None
    return entry


def _of_hub(repository: Repository) -> Located:
    """A repository's checkpoint: the file that the table of released ones names, or what the repository tells."""
    entry = released().get(repository.id)
    if entry is not None:
        check_downloadable(entry)
        if entry.file and repository.file is None:
            repository = Repository(repository.id, entry.file, repository.revision)
    path = fetch(repository)
    snapshot = path.parts[path.parts.index("snapshots") + 1]
    label = "--".join([*repository.id.split("/"), *([path.stem] if path.is_file() else [])])
    return Located(path, f"{label}-{snapshot[:16]}")


def _unknown(text: str, path: Path) -> str:
    """The reason why something is neither a path nor a name."""
    if _looks_like_path(text, path):
        name = path.stem if path.stem in released() else None
        more = f"; the released checkpoint of this name is {name}, without an ending" if name else ""
        return f"{text} does not exist; it should be a directory written by convert-ckpt, or a checkpoint{more}"
    near = ", ".join(nearest_names(text))
    hub = f"; a repository of the hub is {SCHEME}{text}" if text.count("/") == 1 else ""
    return f"{text} does not exist, and is no released checkpoint (ofa-core models lists them); nearest: {near}{hub}"


def _looks_like_path(text: str, path: Path) -> bool:
    parts = text.split("/")
    outward = text.startswith(("/", ".", "~")) or "\\" in text or text.endswith((*_SUFFIXES, "/"))
    return outward or len(parts) > 2 or (len(parts) == 2 and Path(parts[0]).is_dir())


def is_checkpoint(path: Path) -> bool:
    """Tell whether a path is something to be converted: a file, or a directory that is no model directory's."""
    if path.is_file():
        return True
    chinese = (path / "vocab.txt").is_file() and not (path / "dict.txt").is_file()
    return chinese or any((path / name).is_file() for name in _FOREIGN)
