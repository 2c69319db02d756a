from __future__ import annotations

import hashlib
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
    pixels = ImageTransform(case["size"], like_original=True)(image)
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


def test_a_batch_of_no_pictures_is_refused() -> None:
    with pytest.raises(OFAError, match="there are no images: at least one is needed"):
        ImageTransform(8).batch([])


def test_photos_of_any_size_become_one_batch(photos: list[Path]) -> None:
    batch = ImageTransform(64).batch(photos)
    assert batch.shape == (len(photos), 3, 64, 64)
    assert batch.abs().max() <= 1
    assert (batch.flatten(1).std(1) > 0.1).all()


def test_the_one_switch_reads_files_like_the_original(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.fromarray(picture(40, 60)).save(path, exif=exif)
    transform = ImageTransform(32)
    upright = transform(path)
    transform.like_original = True
    with Image.open(path) as stored:
        stored.load()
        assert torch.equal(transform(path), transform(np.asarray(stored)))
        assert torch.equal(upright, transform(np.rot90(np.asarray(stored), -1)))
