from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synth
import torch
from PIL import Image
from reference import golden_arrays, golden_cases
from torch import Tensor

from ofa_core import ImageTransform, OFAError
from ofa_core.vision.transform import open_image

CASES = golden_cases("images.json")


def picture(height: int = 50, width: int = 70, seed: int = 5) -> np.ndarray[Any, Any]:
    return synth.synth_image(height, width, seed)


def in_mode(pixels: np.ndarray[Any, Any], mode: str) -> Image.Image:
    if mode == "I;16":
        gray = np.asarray(Image.fromarray(pixels).convert("L"))
        return Image.fromarray(gray.astype(np.uint16) * 257)
    return Image.fromarray(pixels).convert(mode)


def as_bytes(pixels: Tensor) -> Tensor:
    """Normalised pixels back to 0..255."""
    return ((pixels * 0.5 + 0.5) * 255).round().to(torch.uint8)


@pytest.mark.reference
@pytest.mark.parametrize(
    "index", range(len(CASES)), ids=[f"{c['mode']}-{c['height']}x{c['width']}-{c['size']}" for c in CASES]
)
def test_pixels_equal_the_reference(index: int) -> None:
    case = CASES[index]
    image = in_mode(synth.synth_image(case["height"], case["width"], case["seed"]), case["mode"])
    assert image.mode == case["mode"]
    pixels = ImageTransform(case["size"])(image)
    assert pixels.dtype == torch.float32
    assert torch.equal(as_bytes(pixels), golden_arrays("images.npz")[f"im{index}"])


def test_any_size_becomes_the_same_pixels_on_any_pillow() -> None:
    """The digest is that of what Pillow 10.1 makes with ``resize((side, side), BICUBIC)`` of these pictures."""
    digest, sizes = hashlib.sha256(), np.random.RandomState(0)
    for seed in range(80):
        height, width = (int(value) for value in sizes.randint(20, 400, 2))
        side = int(sizes.choice([48, 96, 128, 224]))
        pixels = as_bytes(ImageTransform(side)(picture(height, width, seed)))
        digest.update(pixels.permute(1, 2, 0).contiguous().numpy().tobytes())
    assert digest.hexdigest() == "d98f5215b213f8869609aef3a4f35f8bae41030196b739fb8a8336b1071f5a7e"


@pytest.mark.parametrize(
    ("imagenet", "mean", "std"),
    [(False, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), (True, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))],
)
def test_normalisation_is_exact(imagenet: bool, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    pixels = picture(24, 24)
    found = ImageTransform(24, imagenet_normalization=imagenet)(pixels)
    expected = (pixels.astype(np.float64) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found.permute(1, 2, 0).numpy(), expected, atol=1e-6)


def tensor_of(pixels: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


KINDS: dict[str, Callable[[np.ndarray[Any, Any], Path], Any]] = {
    "string path": lambda pixels, png: str(png),
    "Path": lambda pixels, png: png,
    "PIL RGB": lambda pixels, png: Image.fromarray(pixels),
    "PIL RGBA": lambda pixels, png: Image.fromarray(pixels).convert("RGBA"),
    "opened file": lambda pixels, png: Image.open(png),
    "array": lambda pixels, png: pixels,
    "array in Fortran order": lambda pixels, png: np.asfortranarray(pixels),
    "read-only view": lambda pixels, png: np.asarray(Image.fromarray(pixels)),
    "mirrored view": lambda pixels, png: pixels[:, ::-1].copy()[:, ::-1],
    "uint8 tensor": lambda pixels, png: tensor_of(pixels),
    "contiguous tensor": lambda pixels, png: tensor_of(pixels).contiguous(),
    "float32 tensor": lambda pixels, png: tensor_of(pixels).float() / 255,
    "float64 tensor": lambda pixels, png: tensor_of(pixels).double() / 255,
    "float16 tensor": lambda pixels, png: tensor_of(pixels).half() / 255,
    "tensor with gradient": lambda pixels, png: (tensor_of(pixels).float() / 255).requires_grad_(),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_gives_the_same_pixels(kind: str, tmp_path: Path) -> None:
    pixels = picture()
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    image = KINDS[kind](pixels, path)
    assert np.array_equal(np.asarray(open_image(image)), pixels)
    assert torch.equal(ImageTransform(32)(image), ImageTransform(32)(pixels))


def test_a_batch_is_its_pictures_one_by_one() -> None:
    transform = ImageTransform(32)
    images = [picture(20, 90), Image.fromarray(picture(64, 8)), picture(32, 32)]
    batch = transform.batch(images)
    assert batch.shape == (3, 3, 32, 32)
    for row, image in zip(batch, images, strict=True):
        assert torch.equal(row, transform(image))


def test_the_picture_is_stretched_to_the_square_with_bicubic() -> None:
    resized = Image.fromarray(picture(40, 120)).resize((48, 48), Image.Resampling.BICUBIC)
    found = as_bytes(ImageTransform(48)(picture(40, 120)))
    assert np.array_equal(found.permute(1, 2, 0).numpy(), np.asarray(resized))


def test_orientation_in_exif_is_ignored(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    turned, plain = tmp_path / "turned.jpg", tmp_path / "plain.jpg"
    Image.fromarray(picture()).save(turned, exif=exif)
    Image.fromarray(picture()).save(plain)
    assert Image.open(turned).getexif()[0x0112] == 6
    assert open_image(turned).size == (70, 50)
    assert torch.equal(ImageTransform(32)(turned), ImageTransform(32)(plain))


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


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((4, 5), np.uint8), r"an image array must be uint8 \[height, width, 3\], not uint8 \[4, 5\]"),
        (np.zeros((3, 4, 5), np.uint8), r"an image array must be .*, not uint8 \[3, 4, 5\]"),
        (np.zeros((4, 5, 4), np.uint8), r"not uint8 \[4, 5, 4\]"),
        (np.zeros((1, 4, 5, 3), np.uint8), r"not uint8 \[1, 4, 5, 3\]"),
        (np.zeros((0, 5, 3), np.uint8), r"not uint8 \[0, 5, 3\]"),
        (np.zeros((4, 5, 3), np.float32), r"not float32 \[4, 5, 3\]"),
        (np.zeros((4, 5, 3), np.int64), r"not int64 \[4, 5, 3\]"),
        (torch.zeros(4, 5, 3), r"an image tensor must be \[3, height, width\], not \[4, 5, 3\]"),
        (torch.zeros(4, 5), r"an image tensor must be \[3, height, width\], not \[4, 5\]"),
        (torch.zeros(1, 3, 4, 5), r"not \[1, 3, 4, 5\]"),
        (torch.zeros(3, 0, 5), r"not \[3, 0, 5\]"),
        (torch.full((3, 4, 5), 1.01), r"an image tensor of floats must lie in 0\.\.1, not 1\.01\.\.1\.01"),
        (torch.linspace(-1, 1, 60).reshape(3, 4, 5), r"must lie in 0\.\.1, not -1\.\.1"),
        (torch.full((3, 4, 5), 255.0), r"must lie in 0\.\.1, not 255\.\.255"),
        (torch.full((3, 4, 5), torch.nan), r"must lie in 0\.\.1, not nan"),
        (torch.zeros(3, 4, 5, dtype=torch.int64), "an image tensor must be uint8 or float, not torch.int64"),
        (None, "an image is a path, a PIL image, an array or a tensor, not NoneType"),
        (b"bytes", "an image is a path, a PIL image, an array or a tensor, not bytes"),
        pytest.param(Image.new("RGB", (0, 5)), "0 × 5", id="PIL image without pixels"),
    ],
)
def test_another_layout_is_refused_with_what_it_is(image: Any, message: str) -> None:
    with pytest.raises(OFAError, match=message):
        ImageTransform(8)(image)


def test_a_batch_of_no_pictures_is_refused() -> None:
    with pytest.raises(OFAError, match="there are no images: at least one is needed"):
        ImageTransform(8).batch([])


def test_photos_of_any_size_become_one_batch(photos: list[Path]) -> None:
    batch = ImageTransform(64).batch(photos)
    assert batch.shape == (len(photos), 3, 64, 64)
    assert batch.abs().max() <= 1
    assert (batch.flatten(1).std(1) > 0.1).all()
