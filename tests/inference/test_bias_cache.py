"""Biases of patches that are added by their offsets: bit for bit those that are looked up one by one."""

from __future__ import annotations

import pytest
import torch
from inference.models import faster, plain_model
from torch import Tensor

from ofa_core import OFAModel


@pytest.fixture(scope="module")
def model() -> OFAModel:
    return plain_model()


@torch.inference_mode()
def with_patches(model: OFAModel, grid: tuple[int, int]) -> Tensor:
    """A bias of patches and seven tokens, to whose patches that of the last layer is added."""
    torch.manual_seed(0)
    patches = grid[0] * grid[1]
    bias = torch.randn(1, model.config.num_heads, patches + 7, patches + 7)
    buckets = model.encoder.patch_buckets(grid, None)
    assert buckets is not None
    model.encoder.add_patch_bias(bias[..., :patches, :patches], model.config.encoder_layers - 1, buckets, grid)
    return bias


@pytest.mark.parametrize("grid", [(1, 1), (1, 6), (3, 2), (8, 8), (5, 41), (42, 3), (2, 43)], ids=str)
def test_they_are_equal(model: OFAModel, grid: tuple[int, int]) -> None:
    """On a grid that is wider than the table's, where rows go on in the next ones, too."""
    fast = faster(model)
    seen: list[object] = []
    bucket_lookup = fast.encoder.image_relative.tables[-1]
    assert torch.equal(with_patches(fast, grid), with_patches(model, grid))
    bucket_lookup.register_forward_hook(lambda *_: seen.append(None))
    assert torch.equal(with_patches(fast, grid), with_patches(model, grid))
    assert len(seen) == 1  # a hook sees every look


def test_patches_that_are_drawn_are_looked_up(model: OFAModel) -> None:
    grid, places = (4, 5), torch.stack([torch.randperm(20), torch.randperm(20)])
    results = []
    for one in (model, faster(model)):
        with torch.inference_mode():
            positions = torch.randn(2, 23, one.config.embed_dim, generator=torch.Generator().manual_seed(1))
            results.append(one.encoder.layer_biases(positions, 3, grid, places)(0))
    assert torch.equal(*results)
