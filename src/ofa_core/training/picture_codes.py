"""Image codes of the pictures that are learned from, where rows hold none: made once, and kept on the disk.

A picture's codes are found by what they were made of: its pixels and the weights of the network of image codes. They
are written beside their place and renamed; what is damaged is made again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ..checkpoint.cache import cache_directory
from ..checkpoint.digests import weights_digest
from ..checkpoint.image_codes import load_vqgan
from ..config import OFAConfig
from ..data.records import Format
from ..errors import OFAError
from ..heads.image_codes import Codes, encode_pixels, middle_square
from ..heads.pipeline import Pipeline
from ..model.position_bias import CODE_SIZE
from ..utils.atomic_write import atomic_path
from ..vision.vqgan import VQGAN
from .lessons import Lesson, Row

if TYPE_CHECKING:
    from ..data.examples import Example

#: The lessons whose targets are image codes, and the format of rows that have pictures in their place.
FORMATS: Mapping[str, Format] = {"image_gen": "caption", "pretrain_image": "caption"}
#: The type that codes are kept in.
KEPT = np.uint16


@dataclass(frozen=True)
class PictureCodes:
    """The codes of pictures, from a directory of those that are known or from the network."""

    #: The model directory that holds the network, or the network's file.
    model: Path
    #: The directory in which codes are kept.
    directory: Path

    @cached_property
    def vqgan(self) -> VQGAN:
        """The network.

        Raises:
            OFAError: there is none, it has no encoder, or a code is of another size than the models of OFA take.
        """
        vqgan = load_vqgan(self.model)
        if not vqgan.config.encoder:
            raise OFAError(f"{self.model}: its network of image codes has no encoder, so it makes no codes of pictures")
        if vqgan.config.code_size != CODE_SIZE:
            raise OFAError(f"{self.model}: a code is {vqgan.config.code_size} pixels wide; it should be {CODE_SIZE}")
        return vqgan

    @cached_property
    def _weights(self) -> bytes:
        """A digest of the network's weights."""
        return weights_digest(self.vqgan.state_dict())

    def of(self, pixels: np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]) -> Codes:
        """The codes [rows, columns] of a picture's bytes [h, w, 3], without noise."""
        digest = hashlib.sha256(self._weights)
        digest.update(f"{pixels.shape}".encode())
        digest.update(pixels.tobytes())
        key = digest.hexdigest()
        path = self.directory / key[:2] / f"{key[2:]}.codes"
        rows, columns = pixels.shape[0] // CODE_SIZE, pixels.shape[1] // CODE_SIZE
        known = self._read(path, rows * columns)
        if known is None:
            known = encode_pixels(self.vqgan, pixels[None])[0].astype(KEPT).reshape(-1)
            self._write(path, known)
        return known.astype(np.int64).reshape(rows, columns)

    def _read(self, path: Path, count: int) -> np.ndarray[tuple[int], np.dtype[np.uint16]] | None:
        """The codes of a file, behind which their digest stands; None where there are none, or others."""
        try:
            content = path.read_bytes()
        except OSError:
            return None
        body, digest = content[:-32], content[-32:]
        if hashlib.sha256(body).digest() != digest or len(body) != count * np.dtype(KEPT).itemsize:
            return None
        return np.frombuffer(body, KEPT)

    def _write(self, path: Path, codes: np.ndarray[tuple[int], np.dtype[np.uint16]]) -> None:
        body = codes.tobytes()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(path) as temporary:
                temporary.write_bytes(body + hashlib.sha256(body).digest())
        except OSError as error:
            raise OFAError(f"codes cannot be kept in {self.directory}: {error.strerror}") from None


def coded_lesson(name: str, lesson: Lesson, model: Path, directory: Path | None) -> Lesson:
    """A lesson of image codes that makes them of its rows' pictures.

    Args:
        name: the lesson's name.
        lesson: the lesson of rows that hold codes.
        model: a model directory with a network of image codes, or the network's file.
        directory: where codes are kept; None: in the cache.

    Returns:
        The lesson of rows that hold pictures, with captions.

    Raises:
        OFAError: the lesson's targets are no image codes.
    """
    if name not in FORMATS:
        raise OFAError(f"the training task {name!r} has no image codes; codes_from is for {' and '.join(FORMATS)}")
    codes = PictureCodes(model, directory or cache_directory() / "image_codes")

    def teach(pipeline: Pipeline, row: Row) -> list[Example]:
        pixels = np.asarray(_coded_part(name, row.image, pipeline.model.config))
        record = replace(row.record, codes=tuple(codes.of(pixels).reshape(-1).tolist()))
        return lesson.teach(pipeline, replace(row, record=record))

    return replace(lesson, format=FORMATS[name], teach=teach)


def _coded_part(name: str, image: Image.Image, config: OFAConfig) -> Image.Image:
    """The part of a picture that is said in codes: its middle square, or the middle that infilling hides."""
    side = config.code_image_size
    if name == "image_gen":
        return middle_square(image.convert("RGB"), side)
    whole = image.convert("RGB").resize((2 * side, 2 * side), Image.Resampling.BICUBIC)
    return whole.crop((side // 2, side // 2, side // 2 + side, side // 2 + side))
