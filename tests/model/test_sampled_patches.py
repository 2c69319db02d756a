"""Some patches of a picture alone are what the whole picture is to a model that sees no others of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference import small_config
from torch import Tensor, nn

from ofa_core import GenerationOptions, ImageFeatures, OFAError, OFAModel, generate, optimized
from ofa_core.model import encoder as module
from ofa_core.model.encoder import Memory
from ofa_core.text.vocabulary import PAD

#: The largest difference of states of a size of about 1.
TOLERANCE = 1e-5
#: What positions enter by: biases alone, the states too, and tables that are resized to the picture.
MODELS: dict[str, dict[str, Any]] = {
    "plain": {},
    "entangled": {"entangle_encoder_positions": True},
    "interpolated": {"interpolate_position": True, "orig_patch_image_size": 32},
}


def made(**changes: Any) -> OFAModel:
    torch.manual_seed(0)
    model = OFAModel(small_config(dropout=0.0, **changes)).eval()
    for table in (*model.encoder.text_relative.parameters(), *model.encoder.image_relative.parameters()):
        nn.init.normal_(table, std=0.5)  # which begin as zeros, and would hide what is picked wrongly
    for table in (model.encoder.image_positions, model.encoder.text_positions):
        nn.init.normal_(table.weight, std=1.0)
    return model


def inputs(model: OFAModel) -> tuple[Tensor, ImageFeatures]:
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randint(4, 200, (3, 7), generator=generator)
    tokens[1, 4:] = PAD
    return tokens, model.image_features(torch.randn(3, 3, 64, 80, generator=generator))


def with_others_hidden(
    model: OFAModel, tokens: Tensor, whole: ImageFeatures, places: Tensor, monkeypatch: pytest.MonkeyPatch
) -> Memory:
    """The memory of whole pictures, of which all patches but those at ``places`` are padding."""
    hidden = torch.ones(whole.patches.shape[:2], dtype=torch.bool).scatter(1, places, False)
    with monkeypatch.context() as patch:
        patch.setattr(module, "_source_padding", lambda *_: torch.cat([hidden, tokens.eq(PAD)], dim=1))
        return model.encode(tokens, whole)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "optimized"])
@pytest.mark.parametrize("changes", MODELS.values(), ids=MODELS)
def test_states_and_logits_are_those_of_whole_pictures_without_the_others(
    changes: dict[str, Any], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = optimized(made(**changes)) if fast else made(**changes)
    tokens, whole = inputs(model)
    some = whole.sample_patches(9)
    assert some.places is not None
    assert some.patches.shape[:2] == some.places.shape == (3, 9)
    assert len({tuple(row) for row in some.places.sort(1).values.tolist()}) == 3  # each sample has its own
    prefix = torch.randint(4, 200, (3, 5), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        memory = model.encode(tokens, some)
        expected = with_others_hidden(model, tokens, whole, some.places, monkeypatch)
        patches = whole.patches.shape[1]
        of_whole = torch.cat([some.places, torch.arange(patches, patches + 7).expand(3, -1)], dim=1)
        real = torch.cat([torch.ones(3, 9, dtype=torch.bool), tokens.ne(PAD)], dim=1)
        states = expected.states.take_along_dim(of_whole[..., None], 1)
        assert float(states[real].abs().mean()) > 0.1
        torch.testing.assert_close(memory.states[real], states[real], atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(
            model.decode(memory, prefix), model.decode(expected, prefix), atol=TOLERANCE, rtol=TOLERANCE
        )


def test_it_matters_which_patches_they_are() -> None:
    model = made()
    tokens, whole = inputs(model)
    some = whole.sample_patches(9)
    assert some.places is not None
    moved = ImageFeatures(some.patches, some.grid, some.places.roll(1, 0))
    with torch.no_grad():
        difference = model.encode(tokens, moved).states - model.encode(tokens, some).states
    assert float(difference.abs().max()) > 0.01


def test_all_patches_in_another_order_are_the_picture() -> None:
    model = made()
    tokens, whole = inputs(model)
    shuffled = whole.sample_patches(whole.patches.shape[1])
    assert shuffled.places is not None
    states = model.encode(tokens, whole).states
    found = model.encode(tokens, shuffled).states
    torch.testing.assert_close(found[:, -7:][tokens.ne(PAD)], states[:, -7:][tokens.ne(PAD)], atol=TOLERANCE, rtol=0)


def test_some_of_some_patches_are_patches_of_the_picture() -> None:
    whole = inputs(made())[1]
    fewer = whole.sample_patches(9).sample_patches(4)
    assert fewer.places is not None
    torch.testing.assert_close(fewer.patches, whole.patches.take_along_dim(fewer.places[..., None], 1))


def test_each_place_is_drawn_as_often_as_any_other() -> None:
    torch.manual_seed(0)
    features = ImageFeatures(torch.zeros(2000, 12, 1), (3, 4))
    places = features.sample_patches(5).places
    assert places is not None
    assert all(len(set(row)) == 5 for row in places.tolist())
    shares = torch.bincount(places.flatten(), minlength=12) / 2000
    assert float((shares - 5 / 12).abs().max()) < 0.05


@pytest.mark.parametrize("count", [0, 21])
def test_more_patches_than_there_are_cannot_be_drawn(count: int) -> None:
    with pytest.raises(OFAError, match=f"{count} patches cannot be drawn of pictures that have 20"):
        ImageFeatures(torch.zeros(1, 20, 1), (4, 5)).sample_patches(count)


def test_a_selection_of_samples_keeps_their_places() -> None:
    model = made()
    tokens, whole = inputs(model)
    some = whole.sample_patches(9)
    order = torch.tensor([2, 0])
    memory = model.encode(tokens, some).select(order)
    expected = model.encode(tokens[order], some.select(order))
    torch.testing.assert_close(memory.positions, expected.positions)
    real = torch.cat([torch.ones(2, 9, dtype=torch.bool), tokens[order].ne(PAD)], dim=1)
    torch.testing.assert_close(memory.states[real], expected.states[real], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "optimized"])
def test_a_search_over_them_is_that_of_each_sample_by_itself(fast: bool) -> None:
    model = optimized(made()) if fast else made()
    tokens, whole = inputs(model)
    some = whole.sample_patches(9)
    options = GenerationOptions(num_beams=3, max_new_tokens=6, min_new_tokens=3)
    together = generate(model, tokens, some, options)
    for row in range(3):
        one = torch.tensor([row])
        own = tokens[row : row + 1, : int(tokens[row].ne(PAD).sum())]
        (alone,) = generate(model, own, some.select(one), options)
        assert [h.tokens for h in together[row]] == [h.tokens for h in alone]
        assert [h.score for h in together[row]] == pytest.approx([h.score for h in alone], abs=1e-4)
