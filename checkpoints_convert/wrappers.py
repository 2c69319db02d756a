"""Wrappings of a state dict: keys of the file, prefixes of its names, files it was cut into, a zip around all.

Here it is taken out and its names become fairseq's, whichever of the known layouts they have.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from torch import Tensor

from ofa_core.checkpoint.model_dir import list_names, read_safetensors
from ofa_core.errors import CheckpointError, OFAError, shown
from ofa_core.utils.input_files import parse_json, read_text_file

from .huggingface import COPIES, is_huggingface, state_from_huggingface
from .mmpretrain import is_mmpretrain, state_from_mmpretrain
from .unpickle import read_checkpoint

#: Keys under which training programs keep the state dict, the first that holds one counts.
STATE_KEYS = ("model", "state_dict", "model_state_dict", "module")
#: Prefixes that wrappers put before every name, also one behind the other: those of distributed training and Trainers.
PREFIXES = ("module.", "model.")
#: First segments of the names of a state dict of OFA.
_ROOTS = ("encoder", "decoder", "classification_heads", *(name.split(".")[0] for name in COPIES))
INDEX_SUFFIX = ".index.json"
SAFETENSORS = ".safetensors"
#: Files of weights that may lie in a zip.
_IN_ZIP = (".pt", ".pth", ".bin", SAFETENSORS)


def is_state(value: object) -> TypeGuard[dict[str, Tensor]]:
    """Tell whether ``value`` is a state dict: names and tensors, and at least one."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in value.items())
    )


def state_in(path: Path, content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in the content of a file: the whole of it, or what stands under one of :data:`STATE_KEYS`.

    Raises:
        CheckpointError: there is none.
    """
    if is_state(content):
        return content
    for key in STATE_KEYS:
        if is_state(content.get(key)):
            return content[key]
    found = ", ".join(map(str, content)) or "nothing"
    raise CheckpointError(
        f"{path}: this is not a checkpoint of OFA: it has no 'model' with tensors "
        f"(it holds {found[:200]}) and is no state dict itself"
    )


def without_prefix(path: Path, state: Mapping[str, Tensor], prefix: str | None) -> Mapping[str, Tensor]:
    """``state`` with ``prefix`` taken off every name; None takes off :data:`PREFIXES` where all names have them.

    Raises:
        CheckpointError: a name does not begin with ``prefix``, or all begin with another one that is not OFA's.
    """
    if prefix is None:
        prefix = _wrappers_prefix(state)
    odd = next((name for name in state if not name.startswith(prefix)), None)
    if odd is not None:
        raise CheckpointError(f"{path}: entry {odd} does not begin with the prefix {prefix!r}")
    stripped = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    common = _shared_beginning(stripped)
    if common and common.split(".")[0] not in _ROOTS:
        raise CheckpointError(
            f"{path}: all {len(state)} entries begin with {shown(prefix + common)}, which no entry of OFA does; "
            f"take it off with --strip-prefix {prefix}{common}"
        )
    return stripped


def _shared_beginning(names: Iterable[str]) -> str:
    """The segments, each with its dot, with which all names begin."""
    levels = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{level[0]}." for level in takewhile(lambda level: len(set(level)) == 1, levels))


def _wrappers_prefix(state: Mapping[str, Tensor]) -> str:
    prefix = ""
    while True:
        more = next((p for p in PREFIXES if state and all(name.startswith(prefix + p) for name in state)), None)
        if more is None:
            return prefix
        prefix += more


def by_fairseqs_names(path: Path, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """``state`` by fairseq's names, from whichever layout it has.

    Raises:
        CheckpointError: entries that are not part of OFA, names of two layouts, or another family's model.
    """
    _refuse_other_families(path, state)
    try:
        if is_mmpretrain(state):
            return state_from_mmpretrain(state)
        return state_from_huggingface(state) if is_huggingface(state) else state
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None


#: Segments of names that tell another family of models -> its name and the reason.
_OTHER_FAMILIES: dict[str, str] = {
    "adaptor": "OFASys: its inputs go through adaptors of its own, which OFA's network has not",
    **dict.fromkeys(
        ("audio_code", "fbank", "phone", "subsample", "wav2vec", "conformer", "speech"),
        "MMSpeech: it reads speech and phonemes, which OFA's network does not",
    ),
}
#: fairseq's names of tasks whose models are of another family.
_OTHER_TASKS = {"unify_speech_text_task": _OTHER_FAMILIES["speech"]}


def refuse_other_tasks(path: Path, task: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose stored task is another family's.

    Raises:
        CheckpointError: it is.
    """
    for key in ("_name", "task"):
        name = task.get(key)
        if isinstance(name, str) and name in _OTHER_TASKS:
            raise CheckpointError(f"{path} is a checkpoint of {_OTHER_TASKS[name]}; it cannot be converted")
    if "phone_dict_path" in task or "audio_code_dict_size" in task:
        raise CheckpointError(f"{path} is a checkpoint of {_OTHER_FAMILIES['speech']}; it cannot be converted")


def _refuse_other_families(path: Path, state: Mapping[str, Tensor]) -> None:
    for name in state:
        for segment in name.split(".")[:-1]:
            for mark, family in _OTHER_FAMILIES.items():
                if segment == mark or segment.startswith(f"{mark}_"):
                    raise CheckpointError(
                        f"{path} is a checkpoint of {family} (entry {shown(name)}); it cannot be converted"
                    )


# --- files -----------------------------------------------------------------------------------------------------------


def read_weights(path: Path) -> dict[str, Any]:
    """The content of a file of weights: a pickle of any kind, safetensors, or the index of files it was cut into.

    Raises:
        CheckpointError: it cannot be read.
        UnsafePickleError: it asks to execute something; nothing of it was.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return _indexed(path)
    return dict(read_safetensors(path)) if path.suffix == SAFETENSORS else read_checkpoint(path).content


def indexed_files(index: Path) -> tuple[Path, ...]:
    """The files that an index names, each once, in order.

    Raises:
        CheckpointError: the index is broken, or names a file outside its own directory or one that is missing.
    """
    return tuple(index.with_name(name) for name in dict.fromkeys(_weight_map(index).values()))


def _indexed(index: Path) -> dict[str, Any]:
    weight_map = _weight_map(index)
    state: dict[str, Any] = {}
    for part in indexed_files(index):
        state |= state_in(part, read_weights(part))
    missing = [name for name in weight_map if name not in state]
    if missing:
        raise CheckpointError(f"{index}: {len(missing)} entries are in none of its files: {list_names(missing)}")
    more = [name for name in state if name not in weight_map]
    if more:
        raise CheckpointError(f"{index}: its files hold {len(more)} entries that it does not name: {list_names(more)}")
    return state


def _weight_map(index: Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise CheckpointError(f"{index} should hold a weight_map from entries to names of files")
    for name in dict.fromkeys(weight_map.values()):
        if name in ("", ".", "..") or PurePosixPath(name).name != name or "\\" in name or name.endswith(INDEX_SUFFIX):
            raise CheckpointError(f"{index} names {shown(name)}, which is not a file of weights beside it")
        if not index.with_name(name).is_file():
            raise CheckpointError(f"{index.with_name(name)} is missing, which {index.name} names")
    return weight_map


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        CheckpointError: it holds none, or cannot be read.
    """
    try:
        content = parse_json(read_text_file(path))
    except OFAError as error:
        raise CheckpointError(str(error)) from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} should hold one JSON object")
    return content


def is_model_in_zip(name: PurePosixPath) -> bool:
    """Tell whether a zip's member is a file of weights of OFA; CLIP's, which ranks pictures, is not."""
    return name.suffix in _IN_ZIP and "clip" not in name.parts


@contextmanager
def taken_out_of_zip(path: Path, is_wanted: Callable[[PurePosixPath], bool] = is_model_in_zip) -> Iterator[Path]:
    """``path`` itself, or the one file of weights in it where it is a zip around one (torch's own files are zips too).

    What is taken out lies in a temporary directory until the block ends; on Linux and macOS a mapping outlives it.
    ``is_wanted`` tells the file by its name in the zip.

    Raises:
        CheckpointError: the zip holds several, or more than the disk has room for.
    """
    member = zip_member(path, is_wanted)
    if member is None:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        free = shutil.disk_usage(folder).free
        if member.file_size >= free:
            raise CheckpointError(
                f"{path}: {shown(member.filename)} in it has {member.file_size:,} bytes, {folder} has {free:,} free; "
                "unzip it elsewhere and convert what it holds"
            )
        target = Path(folder) / PurePosixPath(member.filename).name
        try:
            with zipfile.ZipFile(path) as archive, archive.open(member) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file, 1 << 20)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
            raise CheckpointError(f"{path}: {shown(member.filename)} cannot be taken out of it: {error}") from None
        except zlib.error as error:
            raise CheckpointError(f"{path}: {shown(member.filename)} in it is damaged: {error}") from None
        yield target


def zip_member(path: Path, is_wanted: Callable[[PurePosixPath], bool] = is_model_in_zip) -> zipfile.ZipInfo | None:
    """The one member of a zip that is wanted; None where there is none, or the file is torch's own or no zip.

    Raises:
        CheckpointError: there are several.
    """
    try:
        if not path.is_file() or not zipfile.is_zipfile(path):
            return None
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, OSError, ValueError, RuntimeError, NotImplementedError):
        return None  # what is wrong with it is told where it is read
    if any(PurePosixPath(info.filename).name == "data.pkl" for info in members):
        return None
    found = [info for info in members if is_wanted(PurePosixPath(info.filename))]
    if len(found) > 1:
        names = list_names([info.filename for info in found])
        raise CheckpointError(f"{path}: this zip holds several files of weights ({names}); unzip it and choose one")
    return found[0] if found else None
