"""Image codes drawn one by one: what is kept between steps gives what the plain model gives without it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ofa_core import AllowedRange, GenerationOptions, OFAError, OFAModel, generate
from ofa_core.generation import draw
from ofa_core.inference.fast_model import optimized, plain
from ofa_core.inference.growing_cache import FIRST_ROOM, GrowingCache
from ofa_core.model.kv_cache import DecoderCache
from tests.reference import tiny_model

VOCABULARY, SOURCE = 60, torch.tensor([[0, 9, 8, 7, 2]])
CODES = AllowedRange(20, 50)
SIDE = 7  # more codes than there is room for at first


@pytest.fixture
def model() -> OFAModel:
    return tiny_model(VOCABULARY, code_image_size=SIDE * 8)


def options(count: int = SIDE**2) -> GenerationOptions:
    return GenerationOptions(do_sample=True, image_codes=True, min_new_tokens=count, max_new_tokens=count)


def drawn(model: OFAModel, seeds: tuple[int, ...]) -> list[list[int]]:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    found = draw(model, SOURCE, None, options(), generators=generators, constraints=[CODES])
    return [hypothesis.tokens for hypothesis in found]


def test_a_draw_is_what_the_whole_target_gives(model: OFAModel) -> None:
    """The scores of codes drawn with a cache and tables are those of the plain model over the whole target."""
    generator = torch.Generator().manual_seed(1)
    ((found,),) = generate(optimized(model), SOURCE, None, options(), constraints=[CODES], generator=generator)
    assert len(found.tokens) == SIDE**2 + 1
    prefix = torch.tensor([[0, *found.tokens[:-1]]])
    with torch.inference_mode():
        memory = plain(model).encode(SOURCE)
        logits = model.decode(memory, prefix, code_mask=torch.tensor([True]))[0]
    logits = logits.clone()
    logits[:, 4:20] = -torch.inf  # the special tokens have their share, and are never drawn
    logits[:, 50:] = -torch.inf
    scores = logits.log_softmax(-1)[range(SIDE**2), found.tokens[:-1]]
    torch.testing.assert_close(scores, torch.tensor(found.token_scores[:-1]), rtol=0, atol=1e-4)


def test_plain_and_faster_models_draw_the_same(model: OFAModel) -> None:
    assert drawn(plain(model), (1, 2)) == drawn(optimized(model), (1, 2))


def test_draws_do_not_depend_on_each_other(model: OFAModel) -> None:
    together = drawn(model, (3, 4, 5))
    assert together == [tokens for seed in (3, 4, 5) for tokens in drawn(model, (seed,))]
    assert len({tuple(tokens) for tokens in together}) == 3


def test_a_changed_weight_counts_at_the_next_draw(model: OFAModel) -> None:
    before = drawn(optimized(model), (1,))
    model.decoder.image_positions.weight.mul_(-3)
    after = drawn(model, (1,))
    assert after != before
    assert after == drawn(plain(model), (1,))


def grown(cache: DecoderCache, steps: int, reorder_at: int | None = None) -> list[tuple[Tensor, Tensor]]:
    """What a cache gives for steps of one position each, behind a first of three."""
    generator = torch.Generator().manual_seed(0)
    given = []
    for step in range(steps):
        new = torch.randn(2, 3, 2, 3 if step == 0 else 1, 4, generator=generator)
        keys, values = cache.layer(1).append(new[0], new[1])
        given.append((keys.clone(), values.clone()))
        if step == reorder_at:
            cache.reorder(torch.tensor([2, 0, 0]))
    return given


@pytest.mark.parametrize("reorder_at", [None, 5, FIRST_ROOM + 1])
def test_a_growing_cache_is_a_cache(reorder_at: int | None) -> None:
    steps = 3 * FIRST_ROOM
    pairs = zip(grown(GrowingCache(), steps, reorder_at), grown(DecoderCache(), steps, reorder_at), strict=True)
    for found, due in pairs:
        assert all(map(torch.equal, found, due))


def test_a_step_of_a_growing_cache_copies_nothing_else() -> None:
    cache = GrowingCache()
    grown(cache, 4)
    layer = cache.layer(1)
    place = layer.own[0].data_ptr()  # type: ignore[index]
    grown(cache, 1)
    assert layer.own[0].data_ptr() == place  # type: ignore[index]


def test_branches_of_a_growing_cache_go_their_own_ways() -> None:
    cache = GrowingCache()
    grown(cache, 2)
    branch = cache.branch()
    ones, twos = torch.ones(3, 2, 1, 4), torch.full((3, 2, 1, 4), 2.0)
    cache.layer(1).append(ones, ones)
    branch.layer(1).append(twos, twos)
    assert float(cache.layer(1).own[0][0, 0, -1, 0]) == 1  # type: ignore[index]
    assert float(branch.layer(1).own[0][0, 0, -1, 0]) == 2  # type: ignore[index]


def test_a_whole_picture_of_codes_fits_behind_the_first_token() -> None:
    """The original's image positions are 1,025: one more than text has, so that ``</s>`` can follow 1,024 codes."""
    model = tiny_model(VOCABULARY, code_image_size=32 * 8, max_target_positions=1024)
    memory, codes = model.encode(SOURCE), torch.tensor([True])
    prefix = torch.full((1, 1025), 30)
    assert model.decode_states(memory, prefix, code_mask=codes).isfinite().all()
    with pytest.raises(OFAError, match="a target of 1026 tokens is too long: this model holds 1025"):
        model.decode_states(memory, torch.full((1, 1026), 30), code_mask=codes)
    with pytest.raises(OFAError, match="a target of 1025 tokens is too long: this model holds 1024"):
        model.decode_states(memory, prefix)
