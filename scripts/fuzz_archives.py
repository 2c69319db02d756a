"""Mutations of archives of pictures: zip by every method, tar in every format, tar.gz."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from fuzzing import CHANGES, observe
from PIL import Image

from ofa_core import OFAError
from ofa_core.data.images import Images
from ofa_core.data.records import Record

#: Names that lead elsewhere, or nowhere.
NAMES = (
    "../x.png",
    "/etc/x.png",
    "a/../../x.png",
    "x" * 99,
    "\u202e.png",
    "a/",
    "./x.png",
    "..",
    " ",
    "x\n.png",
)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
TAR_FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
#: Sizes as headers of a tar spell them: huge, negative, in base 256, nothing, no number.
TAR_SIZES = (b"77777777777\0", b"-0000000001\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"00000000000\0", b"x" * 12)
KINDS = ("png", "jpeg", "gif", "bmp", "webp", "tiff")


def pictures() -> dict[str, bytes]:
    """Small pictures of several kinds by name."""
    image = Image.linear_gradient("L").resize((60, 50)).convert("RGB")
    files = {}
    for number, kind in enumerate(KINDS):
        buffer = io.BytesIO()
        image.save(buffer, kind.upper())
        files[f"sub{number % 2}/{number}.{kind}"] = buffer.getvalue()
    return files


def write_zip(files: Mapping[str, bytes], method: int) -> bytes:
    """A zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def write_tar(files: Mapping[str, bytes], format: int, rng: random.Random | None = None) -> bytes:
    """A tar of files; with ``rng``, of links and things that are no files as well."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if rng is not None and rng.random() < 0.3:
                member.type = rng.choice([tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
                member.linkname = rng.choice([*files, *NAMES])
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def prepare(directory: Path) -> Mapping[str, bytes]:
    """Whole archives by name."""
    directory.mkdir(parents=True)
    files = pictures()
    archives = {f"method{method}.zip": write_zip(files, method) for method in METHODS}
    tars = {f"format{format}.tar": write_tar(files, format) for format in TAR_FORMATS}
    return archives | tars | {f"{name}.gz": gzip.compress(data) for name, data in tars.items()}


def damaged_archive(name: str, data: bytes, rng: random.Random) -> bytes:
    """An archive with its bytes changed; a compressed one half the time before it was compressed."""
    if name.endswith(".gz") and rng.random() < 0.5:
        return gzip.compress(rng.choice(CHANGES)(gzip.decompress(data), rng), 1)
    return rng.choice(CHANGES)(data, rng)


def damaged_numbers(name: str, data: bytes, rng: random.Random) -> bytes:
    """Sizes, offsets and times in headers replaced, with their checksums put right in a tar."""
    packed = name.endswith(".gz")
    changed = bytearray(gzip.decompress(data) if packed else data)
    if ".tar" in name:
        at = 512 * rng.randrange(len(changed) // 512)
        size = rng.choice(
            [b"77777777777\0", b"-0000000001\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"00000000000\0", b"x" * 12]
        )
        changed[at + 124 : at + 136] = size
        if rng.random() < 0.5:
            changed[at + 156] = rng.choice(b"0123456789LKxgSDVN")
        changed[at + 148 : at + 156] = b" " * 8
        changed[at + 148 : at + 156] = b"%06o\0 " % sum(changed[at : at + 512])
    else:
        spots = [
            at for at in range(len(changed) - 46) if bytes(changed[at : at + 4]) in (b"PK\1\2", b"PK\3\4", b"PK\5\6")
        ]
        at = rng.choice(spots) + rng.choice(range(4, 44, 2))
        changed[at : at + 4] = struct.pack(
            "<I", rng.choice([0, 1, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, rng.randrange(2**32)])
        )
    return gzip.compress(bytes(changed), 1) if packed else bytes(changed)


def other_names(name: str, data: bytes, rng: random.Random) -> bytes:
    """An archive of names that lead elsewhere, of links in circles, and of names that come twice."""
    files = {rng.choice([key, *NAMES]): content for key, content in pictures().items()}
    if ".zip" in name:
        return write_zip(files, rng.choice(METHODS))
    tar = write_tar(files, rng.choice(TAR_FORMATS), rng)
    return gzip.compress(tar, 1) if name.endswith(".gz") else tar


def damaged_pictures(name: str, data: bytes, rng: random.Random) -> bytes:
    """A whole archive of pictures that were damaged."""
    files = {key: rng.choice(CHANGES)(content, rng) for key, content in pictures().items()}
    if ".zip" in name:
        return write_zip(files, rng.choice(METHODS))
    tar = write_tar(files, rng.choice(TAR_FORMATS))
    return gzip.compress(tar, 1) if name.endswith(".gz") else tar


MUTATIONS = (damaged_archive, damaged_archive, damaged_numbers, damaged_numbers, other_names, damaged_pictures)


def use(path: Path) -> None:
    """Open an archive and every picture in it, and some that are not."""
    wrong: list[OFAError] = []
    with Images.open(path) as images:
        for name in (*pictures(), *NAMES, "elsewhere/0.png", "sub0"):
            try:
                images.load(Record(id="1", image=name, box=(1.0, 2.0, 30.0, 40.0), place="rows:1"))
            except OFAError as error:
                wrong.append(error)
    if wrong:
        raise max(wrong, key=lambda error: len(str(error)))


def findings(whole: Mapping[str, bytes], number: int, directory: Path) -> list[str]:
    """Findings of mutation ``number`` of an archive, usually none."""
    rng = random.Random(number)
    name = sorted(whole)[number % len(whole)]
    mutation = rng.choice(MUTATIONS)
    path = directory / name
    path.write_bytes(mutation(name, whole[name], rng))
    return [f"{mutation.__name__} of {name} {number}: {what}" for what in observe(lambda: use(path))]
