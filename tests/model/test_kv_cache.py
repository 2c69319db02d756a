from __future__ import annotations

from functools import cache

import pytest
import torch
from reference import TOLERANCE, golden, golden_arrays, reference_images, reference_model
from torch import Tensor

from ofa_core import DecoderCache, Memory, OFAModel
from ofa_core.model.kv_cache import LayerCache

BEAMS, STEPS = 3, 5


@cache
def model() -> OFAModel:
    return reference_model(golden("forward_nano.json"))


@cache
def memory() -> Memory:
    """Three samples: sources of several lengths, the second without its picture."""
    images = reference_images({"height": 32, "width": 48, "seeds": [0, 1, 2]})
    mask = torch.tensor([True, False, True])
    return model().encode(golden_arrays("forward_nano.npz")["src_tokens"], images, mask)


def prefixes(rows: int, length: int = STEPS, seed: int = 0) -> Tensor:
    tokens = torch.randint(4, 50000, (rows, length), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0] = 0
    return tokens


def filled(tokens: Tensor) -> DecoderCache:
    """A cache that holds ``tokens``, as a search fills it: step by step."""
    cache = DecoderCache()
    for end in range(1, tokens.shape[1] + 1):
        model().decode(memory(), tokens[:, :end], cache)
    return cache


def extended(tokens: Tensor, seed: int = 1) -> Tensor:
    """``tokens`` and one more, another in every row."""
    return torch.cat([tokens, prefixes(len(tokens), 2, seed)[:, 1:]], dim=1)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=TOLERANCE[torch.float32], rtol=0)


def test_append_puts_new_positions_behind_the_old_ones() -> None:
    layer = LayerCache()
    first, second = (
        (torch.randn(2, 4, 3, 8), torch.randn(2, 4, 3, 8)),
        (torch.randn(2, 4, 1, 8), torch.randn(2, 4, 1, 8)),
    )
    assert layer.append(*first) == first
    keys, values = layer.append(*second)
    assert torch.equal(keys, torch.cat([first[0], second[0]], dim=2))
    assert torch.equal(values, torch.cat([first[1], second[1]], dim=2))
    assert layer.own == (keys, values)


def test_length_counts_target_positions() -> None:
    cache = DecoderCache()
    assert cache.length == 0
    for end in (1, 2, 5):
        model().decode(memory(), prefixes(3)[:, :end], cache)
        assert cache.length == end
        assert cache.positions is not None
        assert cache.positions.tolist() == list(range(end))
    assert len(cache.layers) == model().config.decoder_layers


@pytest.mark.parametrize(
    "rows",
    [
        [2, 0, 0, 5, 5, 3, 6, 7, 8],  # beams repeated, swapped and dropped
        [0, 3, 6],  # fewer beams
        [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 8, 8, 8, 8, 8, 8],  # more of them
    ],
)
def test_after_reorder_decoding_goes_on_as_if_from_the_chosen_prefixes(rows: list[int]) -> None:
    tokens = prefixes(3 * BEAMS)
    cache = filled(tokens)
    cache.reorder(torch.tensor(rows))
    longer = extended(tokens[rows])
    found = model().decode(memory(), longer, cache)
    close(found, model().decode(memory(), longer)[:, -1:])


def test_reorder_leaves_what_beams_share() -> None:
    cache = filled(prefixes(3 * BEAMS))
    shared = [layer.cross for layer in cache.layers]
    positions = cache.cross_position_keys
    cache.reorder(torch.tensor([1, 0, 0, 3, 3, 3, 8, 7, 6]))
    assert all(layer.cross is before for layer, before in zip(cache.layers, shared, strict=True))
    assert cache.cross_position_keys is positions


@pytest.mark.parametrize("kept", [[1], [2, 0], [0, 1, 2]])
def test_after_select_samples_decoding_goes_on_with_those_left(kept: list[int]) -> None:
    tokens = prefixes(3 * BEAMS)
    cache = filled(tokens)
    rows = [sample * BEAMS + beam for sample in kept for beam in range(BEAMS)]
    cache.select_samples(torch.tensor(kept))
    cache.reorder(torch.tensor(rows))
    longer = extended(tokens[rows])
    found = model().decode(memory().select(torch.tensor(kept)), longer, cache)
    complete = extended(tokens)
    complete[rows] = longer
    close(found, model().decode(memory(), complete)[rows, -1:])


def test_an_empty_cache_can_be_reordered_selected_and_branched() -> None:
    cache = DecoderCache()
    cache.reorder(torch.tensor([1, 0]))
    cache.select_samples(torch.tensor([0]))
    branch = cache.branch()
    model().decode(memory(), prefixes(3), branch)
    assert (cache.length, cache.layers, branch.length) == (0, [], STEPS)


def test_a_branch_and_its_origin_grow_apart() -> None:
    tokens = prefixes(3)
    cache = filled(tokens)
    branch = cache.branch()
    left, right = extended(extended(tokens, 1), 2), extended(tokens, 3)
    found_left = model().decode(memory(), left, branch)
    assert (cache.length, branch.length) == (STEPS, STEPS + 2)
    found_right = model().decode(memory(), right, cache)
    assert (cache.length, branch.length) == (STEPS + 1, STEPS + 2)
    close(found_left, model().decode(memory(), left)[:, -2:])
    close(found_right, model().decode(memory(), right)[:, -1:])


def test_changes_to_a_branch_do_not_reach_its_origin() -> None:
    tokens = prefixes(3)
    cache = filled(tokens)
    branch = cache.branch()
    branch.select_samples(torch.tensor([2]))
    branch.reorder(torch.tensor([2, 2]))
    longer = extended(tokens)
    close(model().decode(memory(), longer, cache), model().decode(memory(), longer)[:, -1:])
    only = extended(tokens[[2, 2]])
    found = model().decode(memory().select(torch.tensor([2])), only, branch)
    close(found, model().decode(memory().select(torch.tensor([2])), only)[:, -1:])


def test_a_branch_shares_memory_with_its_origin() -> None:
    cache = filled(prefixes(3))
    for layer, copy in zip(cache.layers, cache.branch().layers, strict=True):
        assert copy is not layer
        assert copy.own is layer.own
        assert copy.cross is layer.cross
