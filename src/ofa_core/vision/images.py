"""Pictures in any form that people have them in, opened as PIL images in RGB."""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import IO, Any, TypeAlias
from urllib.parse import unquote, unquote_to_bytes, urlsplit

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from ..errors import OFAError, shortened

#: A picture as people have it: a path (``~`` and ``file://`` too), an encoded file as bytes or opened for reading, a
#: data URI, ``{"bytes": ..., "path": ...}`` as the library datasets keeps it, a PIL image of any mode; an array
#: [h, w], [h, w, 1], [h, w, 3], [h, w, 4] or [3, h, w] or a tensor of the same layouts, of uint8, or of floats 0 to 1.
ImageLike: TypeAlias = "_Encoded | Image.Image | np.ndarray[Any, Any] | Tensor"
_Encoded: TypeAlias = "str | PathLike[str] | bytes | bytearray | memoryview | IO[bytes] | Mapping[str, Any]"

#: The formats that Pillow decodes by itself. Others would run a program (EPS: Ghostscript) or read what they name.
FORMATS = (
    *("AVIF", "BMP", "DIB", "GIF", "HEIF", "ICO", "JPEG", "JPEG2000", "JXL", "MPO", "PCX"),
    *("PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP"),
)
#: The most pixels that a picture may have. A file of half a megabyte can ask for gigabytes; the largest phone pictures
#: in use have 108 million. ``$OFA_MAX_PIXELS`` sets another limit.
MAX_PIXELS = 120_000_000


class TooManyPixelsError(OFAError):
    """A picture that is larger than what is opened."""


_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\s-]{256,}")


def open_image(image: ImageLike, *, like_original: bool = False, name: str = "") -> Image.Image:
    """Open a picture.

    Args:
        image: the picture, see :data:`ImageLike`.
        like_original: read it as the original does, which published scores and the boxes of datasets rest upon: lying
            as it is stored, whatever orientation its EXIF data note, and 16-bit grey cut off at 255. Otherwise it is
            turned upright, and 16 bits are scaled to 8.
        name: what it is called in errors, instead of its path.

    Returns:
        The picture in RGB at its own size, with no metadata. Transparency is dropped, as the original does.

    Raises:
        OFAError: it cannot be read, has more than :data:`MAX_PIXELS` or no pixels, or is an array of another layout.
    """
    with _opened(image, name) as (picture, called):
        try:
            picture.load()
            turned = 1 if like_original else _orientation(picture)
            rgb = (picture if like_original else _eight_bits(picture, called)).convert("RGB")
        except OFAError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever a damaged file leads them to
            raise OFAError(f"{called} cannot be read: {shortened(str(error))}") from None
    rgb.info = {}
    if turned != 1:
        rgb.getexif()[ExifTags.Base.Orientation] = turned
        ImageOps.exif_transpose(rgb, in_place=True)
        rgb.info = {}
    return rgb


def check_image(image: ImageLike) -> None:
    """Raise what :func:`open_image` would of a picture that is missing or is none, without decoding it.

    Raises:
        OFAError: as :func:`open_image`, but for damage behind a file's first bytes.
    """
    with _opened(image, ""):
        pass


def readable_again(image: ImageLike) -> ImageLike:
    """``image``, or the content of an open file, which may be closed or elsewhere the next time."""
    if isinstance(image, Mapping):
        return _of_mapping(image)
    return _content(image).getvalue() if callable(getattr(image, "read", None)) else image


def image_size(image: ImageLike, *, like_original: bool = False) -> tuple[int, int]:
    """Width and height in pixels of what :func:`open_image` would return."""
    with _opened(image, "") as (picture, called):
        try:
            width, height = picture.size
            turned = not like_original and picture.format != "TIFF" and _orientation(picture) >= _FIRST_ON_ITS_SIDE
        except Exception as error:
            raise OFAError(f"{called} cannot be read: {shortened(str(error))}") from None
    return (height, width) if turned else (width, height)


#: Orientations in EXIF from here on exchange width and height.
_FIRST_ON_ITS_SIDE = 5


def _orientation(picture: Image.Image) -> int:
    """The orientation noted in EXIF, 1 to 8; 1, upright, where none can be read."""
    try:
        turned = int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF data spoil no picture
        return 1
    return turned if 1 <= turned <= 8 else 1


def _eight_bits(picture: Image.Image, name: str) -> Image.Image:
    """``picture`` with 16-bit grey and floats scaled to 0..255, where Pillow would cut them off there."""
    if not picture.mode.startswith(("I", "F")):
        return picture
    values = np.asarray(picture).astype(np.float64)
    low, high = float(values.min()), float(values.max())
    if picture.mode.startswith("I"):
        whole = 65535 if picture.mode != "I" or picture.format or high > 255 else 255
    else:
        whole = 1 if high <= 1 else 255
    if not (low >= 0 and high <= whole):
        raise OFAError(f"{name} has grey values {low:g}..{high:g}; they should lie in 0..{whole}")
    return Image.fromarray((values * (255 / whole)).round().astype(np.uint8))


# Where a picture comes from


@contextmanager
def _opened(image: ImageLike, name: str) -> Iterator[tuple[Image.Image, str]]:
    """The picture as PIL has it, not decoded yet if it is a file, and what it is called."""
    if isinstance(image, Mapping):
        image = _of_mapping(image)
    if isinstance(image, str):
        image = _of_text(image)
    if isinstance(image, Image.Image):
        if 0 in image.size:
            raise OFAError(f"{name or 'the image'} has no pixels: it is {image.width} × {image.height}")
        yield _within_limit(image, name or "the image"), name or "the image"
    elif isinstance(image, np.ndarray):
        yield _from_array(image), name or "the image"
    elif isinstance(image, Tensor):
        yield _from_tensor(image), name or "the image"
    else:
        file, called = _file(image)
        with _decoder(file, name or called) as picture:
            yield picture, name or called


def _of_mapping(image: Mapping[str, Any]) -> Any:
    if not {"bytes", "path"} & set(image):
        raise OFAError(f"an image of this form has 'bytes' or 'path', not {shortened(repr(sorted(map(str, image))))}")
    found = image.get("bytes")
    found = image.get("path") if found is None else found
    if not isinstance(found, str | bytes | bytearray | memoryview | PathLike):
        raise OFAError("an image of this form has its encoded 'bytes' or the 'path' of a file, and here neither")
    return found


def _of_text(text: str) -> Path | bytes:
    """A path, or the content of a data URI."""
    scheme = text[:8].lower()
    if scheme.startswith("data:"):
        return _of_data_uri(text)
    if scheme.startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise OFAError(f"image {shortened(text)} is on another machine; it should be file:///path")
        return Path(unquote(parts.path))
    if _SCHEME.match(text):
        raise OFAError(f"URLs are not opened: download {shortened(text)} first and pass its path or bytes")
    if _BASE64.fullmatch(text) and not _exists(text):
        raise OFAError(f"this looks like base64 text, {len(text)} characters: pass base64.b64decode(text) instead")
    return Path(text)


def _exists(text: str) -> bool:
    try:
        return os.path.exists(text)
    except (OSError, ValueError):
        return False


def _of_data_uri(text: str) -> bytes:
    head, comma, content = text.partition(",")
    if not comma:
        raise OFAError(f"{shortened(text)} is not a data URI: it has no comma before its data")
    if not head.endswith(";base64"):
        return unquote_to_bytes(content)
    try:
        return base64.b64decode(content, validate=True)
    except binascii.Error as error:
        raise OFAError(f"the data URI {shortened(text)} holds no base64: {error}") from None


def _file(image: Any) -> tuple[Path | IO[bytes], str]:
    """A path that is a file, or something to read from; and what it is called."""
    if isinstance(image, PathLike):
        path = Path(image).expanduser()
        called = f"image {shortened(str(path))}"
        try:
            path.stat()
            problem = "is a directory" if path.is_dir() else "is not a regular file" if not path.is_file() else ""
        except FileNotFoundError:
            problem = "does not exist"
        except (OSError, ValueError) as error:
            problem = f"cannot be read: {getattr(error, 'strerror', None) or error}"
        if problem:
            raise OFAError(f"{called} {problem}")
        return path, called
    if isinstance(image, bytes | bytearray | memoryview):
        return io.BytesIO(image), "the image"
    if callable(getattr(image, "read", None)):
        named = getattr(image, "name", None)
        return _content(image), f"image {shortened(named)}" if isinstance(named, str) else "the image"
    raise OFAError(f"an image is a path, a PIL image, an array or a tensor, not {type(image).__name__}")


def _content(file: Any) -> io.BytesIO:
    """The content of an open file, from its beginning if it can be gone back to."""
    try:
        if file.seekable():
            file.seek(0)
        data = file.read()
    except (OSError, ValueError, AttributeError) as error:
        raise OFAError(f"the open file of the image cannot be read: {error}") from None
    if not isinstance(data, bytes):
        raise OFAError("the file of the image is opened as text; open it with mode 'rb'")
    return io.BytesIO(data)


@contextmanager
def _decoder(file: Path | IO[bytes], name: str) -> Iterator[Image.Image]:
    """The picture in a file, of a format that Pillow decodes by itself and within the limit of pixels."""
    try:
        picture = _identified(file)
    except UnidentifiedImageError:
        raise OFAError(f"{name} cannot be read: it is not a picture in a known format") from None
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError(f"{name} cannot be read: {error}; see PIL.Image.MAX_IMAGE_PIXELS") from None
    except Exception as error:
        raise OFAError(f"{name} cannot be read: {shortened(str(error))}") from None
    with picture:
        yield _within_limit(picture, name)


def _identified(file: Path | IO[bytes]) -> Image.Image:
    """The picture in a file; decoders of other formats than the usual ones are imported where those do not know it."""
    Image.preinit()
    usual = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(file, formats=usual)
    except UnidentifiedImageError:
        Image.init()
        others = [name for name in FORMATS if name in Image.OPEN and name not in usual]
        if not others:
            raise
        if not isinstance(file, Path):
            file.seek(0)
        return Image.open(file, formats=others)


def _within_limit(picture: Image.Image, name: str) -> Image.Image:
    limit = os.environ.get("OFA_MAX_PIXELS", "").strip() or MAX_PIXELS
    try:
        most = int(limit)
    except ValueError:
        raise OFAError(f"OFA_MAX_PIXELS is {limit!r}; it should be a whole number of pixels") from None
    if picture.width * picture.height > most:
        raise TooManyPixelsError(
            f"{name} is {picture.width} × {picture.height}, more than {most:,} pixels; "
            "set OFA_MAX_PIXELS to open it nevertheless"
        )
    return picture


# Arrays and tensors


def _from_array(pixels: np.ndarray[Any, Any]) -> Image.Image:
    return Image.fromarray(_bytes_of(_channels_last(pixels)))


def _from_tensor(image: Tensor) -> Image.Image:
    image = image.detach()
    return _from_array((image.float() if image.dtype == torch.bfloat16 else image).cpu().numpy())


def _channels_last(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``pixels`` as [h, w] or [h, w, 3 or 4]; where the first and the last axis could be the channels, the last is."""
    shape = pixels.shape
    if 0 not in shape:
        if pixels.ndim == 2:
            return pixels
        if pixels.ndim == 3 and shape[2] in _CHANNELS:
            return pixels[..., 0] if shape[2] == 1 else pixels
        if pixels.ndim == 3 and shape[0] in _CHANNELS:
            return pixels[0] if shape[0] == 1 else pixels.transpose(1, 2, 0)
    raise OFAError(
        f"an image array or tensor is [height, width], [height, width, channels] or [channels, height, width] with 1, "
        f"3 or 4 channels, not {list(shape)}"
    )


#: Grey, RGB, and RGB with transparency.
_CHANNELS = (1, 3, 4)


def _bytes_of(pixels: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """``pixels`` as uint8: floats are 0..1, bool is black and white, uint16 is the whole of 16 bits."""
    if pixels.dtype == np.uint8:
        return np.ascontiguousarray(pixels)
    if pixels.dtype.kind == "f":
        low, high = float(pixels.min()), float(pixels.max())
        if not (low >= 0 and high <= 1):
            raise OFAError(f"an image of floats must lie in 0..1, not {low:.3g}..{high:.3g}")
    scale = _SCALES.get(pixels.dtype.kind + str(pixels.dtype.itemsize), _SCALES.get(pixels.dtype.kind))
    if scale is None:
        raise OFAError(f"an image array or tensor must be uint8 or float, not {pixels.dtype}")
    return np.ascontiguousarray((pixels.astype(np.float32) * np.float32(scale)).round().astype(np.uint8))


#: Factors to 0..255 by numpy's kind of number, and its bytes where they count.
_SCALES: dict[str, float] = {"f": 255.0, "b": 255.0, "u2": 255 / 65535}


def is_picture_name(name: str) -> bool:
    """Tell whether a file's name ends as those of pictures do that :func:`open_image` reads."""
    return Image.registered_extensions().get(Path(name).suffix.lower(), "") in FORMATS
