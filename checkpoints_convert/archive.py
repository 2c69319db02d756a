"""The file formats of torch checkpoints: telling them apart, finding the records, mapping the storages.

Nothing here interprets a pickle. The file is mapped copy-on-write, so a storage costs no memory until a tensor on it is
used, and writing to such a tensor never reaches the file.
"""

from __future__ import annotations

import mmap
import re
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import torch

from ofa_core.errors import CheckpointError

Format = Literal["zip", "legacy"]

#: No real checkpoint has more than a few megabytes of pickle: the tensors lie outside it.
MAX_PICKLE_BYTES = 512 * 1024**2

#: Bytes of a record that are compared with its checksum at once; a multiple of every system's page.
_PIECE = 8 * 1024**2

_ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
#: First bytes of files that people pass by mistake, and what to do about each.
_MISTAKEN: tuple[tuple[re.Pattern[bytes], str], ...] = tuple(
    (re.compile(pattern, re.DOTALL | re.IGNORECASE), message)
    for pattern, message in (
        (rb"\x1f\x8b", "this is a gzip file: gunzip it first"),
        (rb"BZh\d1AY", "this is a bzip2 file: bunzip2 it first"),
        (rb"\xfd7zXZ\x00", "this is an xz file: unxz it first"),
        (rb"\x28\xb5\x2f\xfd", "this is a zstd file: unzstd it first"),
        (rb"version https://git-lfs", "this is a git-lfs pointer, not the file itself: fetch it with `git lfs pull`"),
        (rb"\s*<(!doctype|html|\?xml)", "this is a web page, not a checkpoint: download the file itself"),
        (rb".{8}\{\s*\"", "this is a safetensors file: a torch checkpoint (.pt) is expected here"),
        (rb".{257}ustar", "this is a tar archive: unpack it, or save it again with torch.save if torch wrote it"),
    )
)


class Span(NamedTuple):
    """A range of bytes of the file."""

    offset: int
    size: int
    #: The checksum that the file keeps of them, None where it keeps none.
    crc32: int | None = None


@dataclass(frozen=True, slots=True)
class ZipRecords:
    """The records of a zip checkpoint that matter: the pickle, and the bytes of every storage by its key."""

    pickle: Span
    storages: Mapping[str, Span]


class Window:
    """Reads a mapped file between two offsets; what :func:`pickletools.genops` asks of a file."""

    def __init__(self, data: mmap.mmap, start: int, end: int) -> None:
        self.data, self.position, self.end = data, start, min(end, len(data))

    def read(self, count: int) -> bytes:
        """At most `count` bytes; a negative count is refused, since it would mean everything."""
        if count < 0:
            raise CheckpointError("the pickle asks for a negative number of bytes: the file is damaged")
        start = self.position
        self.position = min(start + count, self.end)
        return self.data[start : self.position]

    def readline(self) -> bytes:
        """Up to and including the next newline, or to the end."""
        start = self.position
        newline = self.data.find(b"\n", start, self.end)
        self.position = self.end if newline < 0 else newline + 1
        return self.data[start : self.position]

    def tell(self) -> int:
        """The offset in the file of the next byte."""
        return self.position


def map_file(path: Path) -> tuple[mmap.mmap, Format]:
    """Map the file copy-on-write and tell its format from its first bytes."""
    if not path.exists():
        raise CheckpointError("no such file")
    if path.is_dir():
        raise CheckpointError("this is a directory: a checkpoint file (.pt) is expected here")
    if not path.is_file():
        raise CheckpointError("this is not a regular file: a checkpoint file (.pt) is expected here")
    if path.stat().st_size == 0:
        raise CheckpointError("the file is empty: the download or copy did not finish")
    with path.open("rb") as file:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    return data, _sniff(data[:512])


def _sniff(head: bytes) -> Format:
    if head.startswith(_ZIP_MAGIC):
        return "zip"
    for pattern, message in _MISTAKEN:
        if pattern.match(head):
            raise CheckpointError(message)
    # Pickle protocol 2 and later begin with 0x80; protocols 0 and 1 spell the magic number of torch as a long.
    if head.startswith((b"\x80", b"L")):
        return "legacy"
    raise CheckpointError("this is not a torch checkpoint: neither a zip nor a pickle written by torch.save")


def storage_on(data: mmap.mmap, span: Span) -> torch.UntypedStorage:
    """The bytes of `span` as a torch storage on the mapping, which lives as long as the storage does.

    In a legacy file the bytes need not be aligned to their element size; every platform torch runs on reads them.
    """
    if span.size == 0:
        return torch.empty(0, dtype=torch.uint8).untyped_storage()
    return torch.frombuffer(data, dtype=torch.uint8, count=span.size, offset=span.offset).untyped_storage()


def check_crc32(data: mmap.mmap, span: Span, name: str) -> None:
    """Compare the bytes of a record with its checksum.

    They are read a piece at a time, and each is given back to the system: a record of gigabytes needs no memory.
    """
    if span.crc32 is None:
        return
    end, crc32 = span.offset + span.size, 0
    for page in range(span.offset - span.offset % mmap.PAGESIZE, end, _PIECE):
        with memoryview(data) as view, view[max(page, span.offset) : min(page + _PIECE, end)] as piece:
            crc32 = zlib.crc32(piece, crc32)
        if hasattr(mmap, "MADV_DONTNEED"):
            data.madvise(mmap.MADV_DONTNEED, page, min(_PIECE, len(data) - page))
    if crc32 != span.crc32:
        raise CheckpointError(
            f"the zip record {name!r} is damaged: its bytes do not have the checksum (CRC-32) that was stored with "
            "them; copy or download the file again"
        )


def zip_records(data: mmap.mmap, path: Path) -> ZipRecords:
    """Find the records of a zip checkpoint and check that each lies, uncompressed and alone, inside the file.

    Of the bytes, only those of the pickle are compared with their checksum; :func:`check_crc32` is for the storages.
    """
    try:
        with path.open("rb") as file:
            entries, end = _directory(file)
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"the zip is damaged or cut short ({error}): copy or download it again") from error
    root = _record_root([entry.filename for entry in entries])
    spans = _spans(data, entries, end)
    if f"{root}byteorder" in spans:
        offset, size, _ = spans[f"{root}byteorder"]
        if size > 16 or data[offset : offset + size].strip() != b"little":
            raise CheckpointError("the tensors are not little-endian: save it again on a little-endian machine")
    pickle = spans[f"{root}data.pkl"]
    if pickle.size > MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"data.pkl has {pickle.size} bytes, more than the {MAX_PICKLE_BYTES} a checkpoint can need"
        )
    check_crc32(data, pickle, f"{root}data.pkl")
    prefix = f"{root}data/"
    return ZipRecords(pickle, {name[len(prefix) :]: span for name, span in spans.items() if name.startswith(prefix)})


def _directory(file: BinaryIO) -> tuple[list[zipfile.ZipInfo], int]:
    """The entries of a zip and the offset where its central directory begins."""
    with zipfile.ZipFile(file) as archive:
        return archive.infolist(), archive.start_dir


def _record_root(names: list[str]) -> str:
    """The directory of the records with its slash ("archive/"); torch names it after the file."""
    roots = [name[: -len("data.pkl")] for name in names if re.fullmatch(r"([^/]+/)?data\.pkl", name)]
    if not roots:
        raise CheckpointError("this is a zip without data.pkl, so not a torch checkpoint")
    if len(set(roots)) > 1:
        raise CheckpointError("this zip holds more than one data.pkl: it is not what torch.save writes")
    root = roots[0]
    if f"{root}constants.pkl" in names or any(name.startswith(f"{root}code/") for name in names):
        raise CheckpointError("this is a TorchScript archive: a checkpoint of tensors saved by torch.save is expected")
    return root


def _spans(data: mmap.mmap, entries: list[zipfile.ZipInfo], end: int) -> dict[str, Span]:
    twice = [name for name, count in Counter(entry.filename for entry in entries).items() if count > 1]
    if twice:
        raise CheckpointError(f"the zip holds the record {twice[0]!r} twice: it is damaged or was tampered with")
    # torch stores zeros where it was asked to compute no checksums (torch.serialization.set_crc32_options)
    computed = any(entry.CRC for entry in entries)
    spans: dict[str, Span] = {}
    free = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        if entry.header_offset < free:
            raise CheckpointError(f"the zip record {entry.filename!r} overlaps another: damaged or tampered with")
        spans[entry.filename] = span = _span(data, entry, computed)
        free = span.offset + span.size
        if free > end:
            raise CheckpointError(f"the zip record {entry.filename!r} reaches outside the file: it is damaged")
    return spans


def _span(data: mmap.mmap, entry: zipfile.ZipInfo, computed: bool) -> Span:
    """The bytes of one entry: behind its local header, whose length only that header tells."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size or entry.flag_bits & 1:
        raise CheckpointError(
            f"the zip record {entry.filename!r} is compressed or encrypted: save the checkpoint again with torch.save"
        )
    if data[entry.header_offset : entry.header_offset + 4] != _ZIP_MAGIC[0]:
        raise CheckpointError(
            f"the zip record {entry.filename!r} has no header where the directory says: it is damaged"
        )
    name_size, extra_size = struct.unpack_from("<HH", data, entry.header_offset + 26)
    start = entry.header_offset + 30 + name_size + extra_size
    return Span(start, entry.file_size, entry.CRC if computed else None)


def legacy_spans(data: mmap.mmap, offset: int, keys: object, item_sizes: Mapping[str, int]) -> dict[str, Span]:
    """The storages behind the pickles of a legacy file: each an int64 count of elements, then the elements.

    `item_sizes` gives the bytes an element of each storage has, as the pickle told.
    """
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError("the list of storages is damaged")
    spans: dict[str, Span] = {}
    for key in keys:
        if key not in item_sizes or key in spans:
            raise CheckpointError(f"storage {key!r} is listed twice or belongs to no tensor: the file is damaged")
        if offset + 8 > len(data):
            raise CheckpointError(f"the file ends before storage {key!r}: it is cut short")
        (count,) = struct.unpack_from("<q", data, offset)
        span = Span(offset + 8, count * item_sizes[key])
        if count < 0 or span.offset + span.size > len(data):
            raise CheckpointError(f"storage {key!r} reaches outside the file: it is cut short or damaged")
        spans[key] = span
        offset = span.offset + span.size
    return spans
