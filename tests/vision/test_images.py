from __future__ import annotations

import base64
import contextlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
import synth
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ofa_core import ImageTransform, OFAError, open_image
from ofa_core.vision import images
from ofa_core.vision.images import check_image, image_size


def picture(height: int = 50, width: int = 70, seed: int = 5) -> np.ndarray[Any, Any]:
    return synth.synth_image(height, width, seed)


def in_mode(pixels: np.ndarray[Any, Any], mode: str) -> Image.Image:
    if mode == "I;16":
        gray = np.asarray(Image.fromarray(pixels).convert("L"))
        return Image.fromarray(gray.astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def at_its_end(data: bytes) -> io.BytesIO:
    file = io.BytesIO()
    file.write(data)
    return file


def tensor_of(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


KINDS: dict[str, Callable[[np.ndarray[Any, Any], Path], Any]] = {
    "string path": lambda pixels, png: str(png),
    "file URL": lambda pixels, png: png.as_uri(),
    "path in the home directory": lambda pixels, png: "~/" + png.name,
    "Path in the home directory": lambda pixels, png: Path("~") / png.name,
    "bytes": lambda pixels, png: png.read_bytes(),
    "bytearray": lambda pixels, png: bytearray(png.read_bytes()),
    "memoryview": lambda pixels, png: memoryview(png.read_bytes()),
    "BytesIO": lambda pixels, png: io.BytesIO(png.read_bytes()),
    "BytesIO at its end": lambda pixels, png: at_its_end(png.read_bytes()),
    "data URI": lambda pixels, png: "data:image/png;base64," + base64.b64encode(png.read_bytes()).decode(),
    "data URI without base64": lambda pixels, png: "data:image/png," + quote_from_bytes(png.read_bytes()),
    "datasets' bytes": lambda pixels, png: {"bytes": png.read_bytes(), "path": None},
    "datasets' bytes and name": lambda pixels, png: {"bytes": png.read_bytes(), "path": "elsewhere.png"},
    "datasets' path": lambda pixels, png: {"bytes": None, "path": str(png)},
    "Path": lambda pixels, png: png,
    "PIL RGB": lambda pixels, png: Image.fromarray(pixels),
    "PIL RGBA": lambda pixels, png: Image.fromarray(pixels).convert("RGBA"),
    "opened file": lambda pixels, png: Image.open(png),
    "array": lambda pixels, png: pixels,
    "RGBA array": lambda pixels, png: np.dstack([pixels, pixels[..., 0]]),
    "array of channels first": lambda pixels, png: pixels.transpose(2, 0, 1),
    "float32 array": lambda pixels, png: pixels.astype(np.float32) / 255,
    "float64 array": lambda pixels, png: pixels / 255,
    "uint16 array": lambda pixels, png: pixels.astype(np.uint16) * 257,
    "array in Fortran order": lambda pixels, png: np.asfortranarray(pixels),
    "read-only view": lambda pixels, png: np.asarray(Image.fromarray(pixels)),
    "mirrored view": lambda pixels, png: pixels[:, ::-1].copy()[:, ::-1],
    "uint8 tensor": lambda pixels, png: tensor_of(pixels),
    "contiguous tensor": lambda pixels, png: tensor_of(pixels).contiguous(),
    "float32 tensor": lambda pixels, png: tensor_of(pixels).float() / 255,
    "tensor of channels last": lambda pixels, png: torch.from_numpy(pixels.copy()),
    "float64 tensor": lambda pixels, png: tensor_of(pixels).double() / 255,
    "float16 tensor": lambda pixels, png: tensor_of(pixels).half() / 255,
    "tensor with gradient": lambda pixels, png: (tensor_of(pixels).float() / 255).requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_gives_the_same_pixels(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pixels = picture()
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    image = KINDS[kind](pixels, path)
    assert np.array_equal(np.asarray(open_image(image)), pixels)
    assert torch.equal(ImageTransform(32)(image), ImageTransform(32)(pixels))


GRAY = np.arange(256, dtype=np.uint8).reshape(16, 16)
PALETTE = [(channel * 37 + 11 * step) % 256 for step in range(256) for channel in range(3)]


def palette_image(transparency: int | bytes | None = None) -> Image.Image:
    image = Image.fromarray(GRAY).convert("P")
    image.putpalette(PALETTE)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def cmyk(values: tuple[int, int, int, int]) -> Image.Image:
    return Image.new("CMYK", (4, 4), values)


OF_PALETTE = np.array(PALETTE, dtype=np.uint8).reshape(256, 3)[GRAY]
OF_GRAY = np.repeat(GRAY[..., None], 3, axis=2)


def flat(*color: int) -> np.ndarray[Any, Any]:
    return np.broadcast_to(np.array(color, dtype=np.uint8), (4, 4, 3))


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.fromarray(GRAY), OF_GRAY, id="gray"),
        pytest.param(
            Image.merge("LA", [Image.fromarray(GRAY), Image.fromarray(255 - GRAY)]), OF_GRAY, id="gray with alpha"
        ),
        pytest.param(palette_image(), OF_PALETTE, id="palette"),
        pytest.param(palette_image(3), OF_PALETTE, id="palette with a transparent colour"),
        pytest.param(palette_image(bytes(range(256))), OF_PALETTE, id="palette with alpha"),
        pytest.param(Image.new("RGBA", (4, 4), (10, 20, 30, 0)), flat(10, 20, 30), id="fully transparent"),
        pytest.param(Image.new("1", (4, 4), 1), flat(255, 255, 255), id="black and white"),
        pytest.param(cmyk((0, 0, 0, 0)), flat(255, 255, 255), id="CMYK paper"),
        pytest.param(cmyk((255, 0, 0, 0)), flat(0, 255, 255), id="CMYK cyan"),
        pytest.param(cmyk((0, 0, 0, 255)), flat(0, 0, 0), id="CMYK black"),
        pytest.param(cmyk((0, 51, 102, 51)), flat(204, 163, 122), id="CMYK mixed"),
    ],
)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_other_modes_keep_their_colours_and_lose_their_alpha(
    image: Image.Image, expected: np.ndarray[Any, Any]
) -> None:
    converted = open_image(image)
    assert converted.mode == "RGB"
    assert np.array_equal(np.asarray(converted), expected)


@pytest.mark.parametrize(("mode", "suffix"), [("LA", "png"), ("P", "png"), ("I;16", "png"), ("CMYK", "tif")])
def test_a_file_of_another_mode_equals_the_picture_it_was_saved_from(mode: str, suffix: str, tmp_path: Path) -> None:
    image = in_mode(picture(), mode)
    path = tmp_path / f"picture.{suffix}"
    image.save(path)
    assert torch.equal(ImageTransform(32)(path), ImageTransform(32)(image))


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_byte_order_of_16_bit_gray_does_not_matter(order: str) -> None:
    gray = np.arange(0, 65536, 257, dtype=np.uint16).reshape(16, 16)
    mode = {"<": "I;16", ">": "I;16B"}[order]
    image = Image.frombytes(mode, (16, 16), gray.astype(f"{order}u2").tobytes())
    assert np.array_equal(np.asarray(open_image(image)), np.asarray(open_image(Image.fromarray(gray))))


def missing(folder: Path) -> Path:
    return folder / "nothing.jpg"


def text_file(folder: Path) -> Path:
    (folder / "text.jpg").write_text("not a picture")
    return folder / "text.jpg"


def empty_file(folder: Path) -> Path:
    (folder / "empty.png").touch()
    return folder / "empty.png"


def truncated(folder: Path) -> Path:
    path = folder / "cut.jpg"
    Image.fromarray(picture(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:3000])
    return path


def truncated_png(folder: Path) -> Path:
    path = folder / "cut.png"
    Image.fromarray(picture(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[:500])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (missing, r"image .*nothing\.jpg does not exist"),
        (lambda folder: folder, r"image .* is a directory"),
        (text_file, r"image .*text\.jpg cannot be read: it is not a picture in a known format"),
        (empty_file, r"image .*empty\.png cannot be read: it is not a picture in a known format"),
        (truncated, r"image .*cut\.jpg cannot be read: .*truncated"),
        (truncated_png, r"image .*cut\.png cannot be read: "),
    ],
)
@pytest.mark.parametrize("kind", [Path, str])
def test_a_path_without_a_readable_picture_is_refused_by_name(
    make: Callable[[Path], Path], message: str, kind: type, tmp_path: Path
) -> None:
    with pytest.raises(OFAError, match=message):
        ImageTransform(32)(kind(make(tmp_path)))


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture()).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(OFAError, match=r"image .*bomb\.png cannot be read: .*exceeds limit"):
        open_image(tmp_path / "bomb.png")


LAYOUTS = (
    r"an image array or tensor is \[height, width\], \[height, width, channels\] or \[channels, height, width\] "
    "with 1, 3 or 4 channels"
)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros(5, np.uint8), rf"{LAYOUTS}, not \[5\]"),
        (np.zeros((5, 5, 2), np.uint8), r"not \[5, 5, 2\]"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"not \[1, 4, 5, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"not \[0, 5, 3\]"),
        (np.zeros((4, 5, 3), np.int64), "an image array or tensor must be uint8 or float, not int64"),
        (np.full((4, 5, 3), 255.0), r"an image of floats must lie in 0\.\.1, not 255\.\.255"),
        (np.full((4, 5, 3), "x"), "must be uint8 or float, not <U1"),
        (torch.zeros(1, 3, 4, 5), r"not \[1, 3, 4, 5\]"),
        (torch.zeros(3, 0, 5), r"not \[3, 0, 5\]"),
        (torch.full((3, 4, 5), 1.01), r"an image of floats must lie in 0\.\.1, not 1\.01\.\.1\.01"),
        (torch.linspace(-1, 1, 60).reshape(3, 4, 5), r"must lie in 0\.\.1, not -1\.\.1"),
        (torch.full((3, 4, 5), torch.nan), r"must lie in 0\.\.1, not nan"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "an image array or tensor must be uint8 or float, not int64"),
        (None, "an image is a path, a PIL image, an array or a tensor, not NoneType"),
        (b"bytes", "the image cannot be read: it is not a picture in a known format"),
        (io.StringIO("text"), "is opened as text; open it with mode 'rb'"),
        (
            "https://a.org/b.jpg",
            r"^URLs are not opened: download https://a\.org/b\.jpg first and pass its path or bytes$",
        ),
        ("s3://bucket/b.jpg", "URLs are not opened"),
        ("file://host/b.jpg", "is on another machine; it should be file:///path"),
        ("data:image/png;base64,%%%", "holds no base64"),
        ("data:image/png", "has no comma before its data"),
        ("A" * 700_000, r"^this looks like base64 text, 700000 characters: pass base64\.b64decode\(text\) instead$"),
        ("a b." * 100_000, r"^image a b\..{0,500}(too long|does not exist)$"),
        ("a\0b", "image a.b cannot be read|image a.b does not exist"),
        ({"image": 1}, r"has 'bytes' or 'path', not \['image'\]"),
        ({"bytes": None, "path": None}, "and here neither"),
        pytest.param(Image.new("RGB", (0, 5)), "0 × 5", id="PIL image without pixels"),
    ],
)
def test_another_layout_is_refused_with_what_it_is(image: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ImageTransform(8)(image)


# Orientation


def turned_file(path: Path, orientation: int) -> np.ndarray[Any, Any]:
    """Write a picture that is upright once it was turned as EXIF says; returns it upright."""
    upright = picture(40, 60)
    exif = Image.Exif()
    exif[0x0112] = orientation
    back = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}[orientation]
    stored = Image.fromarray(upright)
    stored.getexif()[0x0112] = back
    stored = ImageOps.exif_transpose(stored)
    stored.save(path, exif=exif, **({"lossless": True} if path.suffix == ".webp" else {}))
    return upright


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_a_phone_s_picture_is_turned_upright(suffix: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / f"phone.{suffix}"
    upright = turned_file(path, orientation)
    for image in (path, path.read_bytes(), Image.open(path)):
        opened = open_image(image)
        assert np.array_equal(np.asarray(opened), upright)
        assert image_size(image) == opened.size == (60, 40)
        assert np.array_equal(np.asarray(open_image(opened)), upright)  # not turned twice


@pytest.mark.parametrize("orientation", range(1, 9))
def test_like_the_original_it_lies_as_it_is_stored(orientation: int, tmp_path: Path) -> None:
    path = tmp_path / "phone.png"
    turned_file(path, orientation)
    with Image.open(path) as stored:
        opened = open_image(path, like_original=True)
        assert np.array_equal(np.asarray(opened), np.asarray(stored))
        assert image_size(path, like_original=True) == opened.size == stored.size
    assert np.array_equal(np.asarray(open_image(opened)), np.asarray(opened))  # nor turned later


@pytest.mark.filterwarnings("ignore")
def test_damaged_exif_data_spoil_no_picture(tmp_path: Path) -> None:
    path = tmp_path / "phone.jpg"
    Image.fromarray(picture()).save(path, exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff")
    assert open_image(path).size == image_size(path) == (70, 50)


# Grey of 16 bits


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_to_8(suffix: str, tmp_path: Path) -> None:
    deep = np.arange(0, 65536, 16, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(deep).save(path)
    expected = np.round(deep / 257).astype(np.uint8)
    for image in (path, Image.open(path), deep):
        assert np.array_equal(np.asarray(open_image(image))[..., 1], expected)
    assert np.array_equal(np.asarray(open_image(path, like_original=True))[..., 1], np.minimum(deep, 255))


def test_a_dark_16_bit_file_stays_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 200, np.uint16)).save(tmp_path / "dark.png")
    assert np.asarray(open_image(tmp_path / "dark.png")).max() == 1


@pytest.mark.parametrize(
    ("image", "value"),
    [
        (Image.new("I", (2, 2), 200), 200),
        (Image.new("I", (2, 2), 25700), 100),
        (Image.new("F", (2, 2), 0.2), 51),
        (Image.new("F", (2, 2), 51.0), 51),
        (np.full((4, 5), 7, np.uint8), 7),
        (np.full((4, 5, 1), 7, np.uint8), 7),
        (torch.full((1, 4, 5), 0.2), 51),
        (torch.full((4, 5), 0.2), 51),
        (np.full((4, 5), True), 255),
    ],
)
def test_grey_of_other_depths(image: Any, value: int) -> None:
    assert (np.asarray(open_image(image)) == value).all()


@pytest.mark.parametrize(("mode", "value"), [("I", 70000), ("I", -1), ("F", 300.0), ("F", -0.5), ("F", float("nan"))])
def test_grey_beyond_any_depth_is_refused(mode: str, value: float) -> None:
    with pytest.raises(OFAError, match=r"^the image has grey values .*; they should lie in 0\.\."):
        open_image(Image.new(mode, (2, 2), value))


# Hostile files


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (13_000, 13_000)).save(path)
    assert path.stat().st_size < 1_000_000
    for image in (path, path.read_bytes(), Image.open(path)):
        with pytest.raises(OFAError, match=r"is 13000 × 13000, more than 120,000,000 pixels; set OFA_MAX_PIXELS"):
            open_image(image)
    monkeypatch.setenv("OFA_MAX_PIXELS", "100")
    with pytest.raises(OFAError, match="more than 100 pixels"):
        open_image(picture_file(tmp_path / "a.png"))
    monkeypatch.setenv("OFA_MAX_PIXELS", "3500")
    assert open_image(tmp_path / "a.png").size == (70, 50)
    monkeypatch.setenv("OFA_MAX_PIXELS", "many")
    with pytest.raises(OFAError, match="OFA_MAX_PIXELS is 'many'; it should be a whole number"):
        open_image(tmp_path / "a.png")


def picture_file(path: Path) -> Path:
    Image.fromarray(picture()).save(path)
    return path


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.eps"
    Image.fromarray(picture()).save(path)
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was run"))
    for image in (path, path.read_bytes()):
        with pytest.raises(OFAError, match="cannot be read: it is not a picture in a known format"):
            open_image(image)


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with pytest.raises(OFAError, match=r"image .*pipe\.jpg is not a regular file"):
        open_image(tmp_path / "pipe.jpg")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "gif", "bmp", "tif", "ppm", "tga", "jp2", "ico"])
def test_damaged_files_are_pictures_or_refused(suffix: str, tmp_path: Path) -> None:
    path = picture_file(tmp_path / f"a.{suffix}")
    whole, numbers = path.read_bytes(), np.random.RandomState(0)
    for _ in range(60):
        data = bytearray(whole)
        for place in numbers.randint(0, min(len(data), 400), numbers.randint(1, 8)):
            data[place] = numbers.randint(256)
        data = data[: numbers.randint(1, len(data) + 1)] if numbers.rand() < 0.3 else data
        with contextlib.suppress(OFAError):
            assert open_image(bytes(data)).mode == "RGB"


def test_checking_does_not_decode(tmp_path: Path) -> None:
    check_image(truncated(tmp_path))
    with pytest.raises(OFAError, match="does not exist"):
        check_image(tmp_path / "nothing.png")


def test_formats_are_those_that_pillow_knows_by_these_names() -> None:
    Image.init()
    assert set(images.FORMATS) - set(Image.OPEN) <= {"AVIF", "HEIF", "JXL", "MPO", "QOI"}
