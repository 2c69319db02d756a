"""The model against the original's outputs, and what must hold of any model."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from typing import Any

import pytest
import torch
from reference import (
    OWN_GOLDEN,
    TOLERANCE,
    forward_cases,
    golden,
    golden_arrays,
    mapped_reference_model,
    reference_images,
    reference_model,
    small_config,
)
from torch import Tensor, nn

from ofa_core import DecoderCache, ImageFeatures, Memory, OFAConfig, OFAError, OFAModel
from ofa_core.checkpoint.model_dir import empty_model
from ofa_core.config import PRESETS, ClassificationHeadConfig
from ofa_core.inference import bias_cache
from ofa_core.inference.bias_cache import BiasCache
from ofa_core.inference.fast_model import optimized, refresh
from ofa_core.utils.mapped_memory import give_back

CASES = forward_cases()
LARGE = {"forward_large", "forward_huge"}
#: Width of the smallest released size; what is narrower is quick and small.
SMALLEST_WIDTH = 256
#: OFA.md, "Sizes".
PARAMETERS = {
    "tiny": 33_488_336,
    "medium": 92_892_000,
    "base": 182_238_536,
    "large": 472_977_152,
    "huge": 929_486_848,
}
PAD = 1


def close(found: Tensor, expected: Tensor, dtype: torch.dtype = torch.float32) -> None:
    torch.testing.assert_close(found.float(), expected.float(), atol=TOLERANCE[dtype], rtol=0)


# The original's outputs


@dataclass
class Run:
    """What the model made of a reference case, reduced to what the reference holds, so that the model can go."""

    expected: dict[str, Tensor]
    meta: dict[str, Any]
    config: OFAConfig
    parameters: int
    feature_map: Tensor | None  # [1, 1024, h, w] of the first picture
    memory: Memory
    logits: Tensor
    class_logits: Tensor | None


@contextmanager
def giving_back_layer_by_layer(model: OFAModel) -> Iterator[None]:
    """Keep of a mapped model no more in memory than a layer at a time, and of what is derived from it."""

    def give_back_all(module: nn.Module, *_: object) -> None:
        for parameter in module.parameters():
            give_back(parameter)
        refresh(model)

    layers = (*model.encoder.image_stem.stages, *model.encoder.layers, *model.decoder.layers)
    hooks = [layer.register_forward_hook(give_back_all) for layer in layers]
    yield
    for hook in hooks:
        hook.remove()


def stem_output(features: ImageFeatures) -> Tensor:
    """The stem's output [1, 1024, h, w] for the first picture."""
    return features.patches[:1].transpose(1, 2).unflatten(2, features.grid)


def made_run(name: str, model: OFAModel) -> Run:
    expected, meta = golden_arrays(f"{name}.npz"), golden(f"{name}.json")["meta"]
    tokens, prefix = expected["src_tokens"], expected["prev_output_tokens"]
    images = reference_images(meta["image"])
    image_mask = None if meta["patch_masks"] is None else torch.tensor(meta["patch_masks"])
    code_mask = None if meta["code_masks"] is None else torch.tensor(meta["code_masks"])
    with torch.no_grad():
        features = None if images is None else model.image_features(images)
        memory = model.encode(tokens, features, image_mask)
        return Run(
            expected=expected,
            meta=meta,
            config=model.config,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            feature_map=None if features is None else stem_output(features),
            memory=memory,
            logits=model.decode(memory, prefix, code_mask=code_mask),
            class_logits=model.classify(meta["head"]["name"], tokens, prefix, images) if meta["head"] else None,
        )


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in CASES],
)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """A case as the plain model computes it, and as the same model does when it was made faster."""
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    model = mapped_reference_model(golden(f"{request.param}.json"), path)
    small = giving_back_layer_by_layer(model) if model.config.embed_dim >= SMALLEST_WIDTH else nullcontext()
    with pytest.MonkeyPatch.context() as patched, small:
        patched.setattr(bias_cache, "BiasCache", partial(BiasCache, max_bytes=1 << 27))
        made = {"plain": made_run(request.param, model), "optimized": made_run(request.param, optimized(model))}
    path.unlink()
    return made


@pytest.fixture(params=["plain", "optimized"])
def run(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    return runs[request.param]


def test_every_size_has_a_reference_case() -> None:
    own = set(forward_cases(OWN_GOLDEN))
    assert {f"forward_{size}" for size in PRESETS} <= own
    assert len(own) > len(PRESETS) + 10  # and every optional part has one, on a small model


@pytest.mark.reference
def test_parameters_are_as_many_as_the_originals(run: Run) -> None:
    assert run.parameters == run.meta["parameters"]


@pytest.mark.reference
def test_the_image_stem_equals_the_original(run: Run) -> None:
    assert (run.feature_map is None) == ("feature_map_shape" not in run.expected) == (run.meta["image"] is None)
    if run.feature_map is not None:
        assert list(run.feature_map.shape) == run.expected["feature_map_shape"].tolist()
        close(run.feature_map[0, :16, :4, :4], run.expected["feature_map_corner"])
        close(run.feature_map.mean((0, 2, 3)), run.expected["feature_map_mean"])


@pytest.mark.reference
def test_the_encoder_equals_the_original(run: Run) -> None:
    padding = run.expected["encoder_padding_mask"].bool()
    assert torch.equal(torch.zeros_like(padding) if run.memory.padding is None else run.memory.padding, padding)
    assert run.memory.states.shape[:2] == padding.shape
    close(run.memory.states[:, run.expected["encoder_rows"]], run.expected["encoder_out"])
    close(run.memory.states.norm(dim=-1), run.expected["encoder_out_norm"])


@pytest.mark.reference
def test_the_decoder_equals_the_original(run: Run) -> None:
    logits = run.logits[:, run.expected["logit_positions"]]
    close(logits[..., run.expected["logit_columns"]], run.expected["logits"])
    close(logits.logsumexp(-1), run.expected["logsumexp"])
    top = logits.topk(run.expected["top_ids"].shape[-1])
    close(top.values, run.expected["top_logits"])
    assert torch.equal(top.indices, run.expected["top_ids"])


@pytest.mark.reference
def test_the_classification_head_equals_the_original(run: Run) -> None:
    assert (run.class_logits is None) == ("class_logits" not in run.expected)
    if run.class_logits is not None:
        close(run.class_logits, run.expected["class_logits"])


@pytest.mark.parametrize("size", PRESETS)
def test_a_preset_has_the_published_number_of_parameters(size: str) -> None:
    model = empty_model(OFAConfig.preset(size))
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[size]


# What must hold of any model. The nano one with the reference's weights, three samples of different lengths, each with
# a picture of 2 × 3 patches or without.


@lru_cache(maxsize=2)
def nano(name: str = "nano") -> OFAModel:
    return reference_model(golden(f"forward_{name}.json"))


@cache
def sources() -> Tensor:
    return golden_arrays("forward_nano.npz")["src_tokens"]


@cache
def pictures() -> Tensor:
    images = reference_images({"height": 32, "width": 48, "seeds": [0, 1, 2]})
    assert images is not None
    return images


PATCHES = 6
TWO = torch.tensor([[0, 5, 2], [0, 6, 2]])
SOME = torch.tensor([True, False, True])


@lru_cache(maxsize=2)
def memory_of(model: OFAModel) -> Memory:
    """Everything at once: text padding, patches, and a sample without a picture."""
    return model.encode(sources(), pictures(), SOME)


def targets(rows: int, length: int, seed: int = 0) -> Tensor:
    tokens = torch.randint(4, 59457, (rows, length), generator=torch.Generator().manual_seed(seed))
    tokens[:, 0] = 0
    return tokens


def changed(model: OFAModel, change: Callable[[OFAModel], object]) -> OFAModel:
    other = copy.deepcopy(model)
    change(other)
    return other


@pytest.mark.parametrize("with_picture", [True, False])
@pytest.mark.parametrize("sample", [0, 1, 2])
def test_a_sample_alone_equals_itself_in_a_padded_batch(sample: int, with_picture: bool) -> None:
    model, prefix = nano(), targets(3, 5)
    mask = torch.tensor([True, True, True])
    mask[sample] = with_picture
    batch = model.encode(sources(), pictures(), mask)
    tokens = sources()[sample : sample + 1]
    tokens = tokens[:, : int(tokens.ne(PAD).sum())]
    alone = model.encode(tokens, pictures()[sample : sample + 1] if with_picture else None)
    assert not alone.padding.any()
    first = 0 if with_picture else PATCHES
    last = PATCHES + tokens.shape[1]
    close(batch.states[sample, first:last], alone.states[0])
    close(model.decode(batch, prefix)[sample], model.decode(alone, prefix[sample : sample + 1])[0])


def test_a_batch_of_texts_equals_its_texts_beside_pictures() -> None:
    model, prefix = nano(), targets(3, 5)
    texts = model.encode(sources())
    beside = model.encode(sources(), pictures(), torch.zeros(3, dtype=torch.bool))
    close(model.decode(beside, prefix), model.decode(texts, prefix))


@pytest.mark.parametrize("garbage", [1e4, -1e4, 0.0, torch.nan])
def test_pixels_of_a_sample_without_a_picture_do_not_matter(garbage: float) -> None:
    model, prefix = nano(), targets(3, 5)
    images = pictures().clone()
    images[1] = garbage
    found = model.encode(sources(), images, SOME)
    assert torch.equal(found.states, memory_of(model).states)
    assert torch.equal(model.decode(found, prefix), model.decode(memory_of(model), prefix))
    if not math.isnan(garbage):  # where there is a picture they do
        assert not torch.equal(model.encode(sources(), images).states, model.encode(sources(), pictures()).states)


def test_without_a_mask_every_sample_has_its_picture() -> None:
    model = nano()
    everywhere = model.encode(sources(), pictures(), torch.ones(3, dtype=torch.bool))
    assert torch.equal(model.encode(sources(), pictures()).states, everywhere.states)


def test_the_embedding_of_padding_does_not_matter() -> None:
    def spoil(model: OFAModel) -> None:
        model.token_embedding.weight[PAD] = 100 * torch.randn(model.config.embed_dim)

    model, spoiled = nano(), changed(nano(), spoil)
    prefix = targets(3, 7)
    prefix[0, 5:] = PAD  # at the end, as in training
    prefix[1, 1:3] = PAD  # and between
    real = prefix.ne(PAD)
    others = torch.arange(model.config.vocab_size).ne(PAD)  # its own logit is all that changes
    found = spoiled(sources(), prefix, pictures(), SOME)
    expected = model(sources(), prefix, pictures(), SOME)
    close(found[real][:, others], expected[real][:, others])
    assert not torch.equal(found[real][:, PAD], expected[real][:, PAD])


def test_a_target_sees_no_later_token() -> None:
    model, prefix = nano(), targets(3, 6)
    other = prefix.clone()
    other[:, 4:] = targets(3, 2, seed=9)
    found, expected = (model.decode(memory_of(model), tokens) for tokens in (other, prefix))
    close(found[:, :4], expected[:, :4])
    assert (found[:, 4:] - expected[:, 4:]).abs().max() > 0.1


def test_forward_is_encode_and_decode() -> None:
    model, prefix, codes = nano(), targets(3, 5), torch.tensor([True, False, True])
    expected = model.decode(memory_of(model), prefix, code_mask=codes)
    assert torch.equal(model(sources(), prefix, images=pictures(), image_mask=SOME, code_mask=codes), expected)


# The cache

#: Positions computed by each call. Distances beyond 128 share buckets; a row of the code window has 16 positions.
SCHEDULES = {"one by one": [1] * 20, "in chunks": [130, 1, 11, 2], "first many, then one by one": [17, 1, 1, 1]}
#: Model, image-code mask.
KINDS: dict[str, tuple[str, list[bool] | None]] = {
    "text": ("nano", None),
    "codes": ("nano", [True, True, True]),
    "mixed": ("nano", [True, False, True]),
    "prefix prompts": ("nano_prefix_prompt", None),
    "projected prefix prompts": ("nano_prefix_prompt_projected", None),
    "prefix prompts and codes": ("nano_prefix_prompt", [False, True, False]),
    "no optional part": ("nano_plain", [False, True, False]),
}


def stepwise(
    model: OFAModel, memory: Memory, prefix: Tensor, steps: list[int], code_mask: Tensor | None = None
) -> Tensor:
    """States of all positions, computed with one cache, ``steps`` positions at a time."""
    cache, parts, end = DecoderCache(), [], 0
    for count in steps:
        end += count
        parts.append(model.decode_states(memory, prefix[:, :end], cache, code_mask))
        assert (parts[-1].shape[1], cache.length) == (count, end)
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("kind", KINDS)
def test_cached_decoding_equals_uncached(kind: str, schedule: str) -> None:
    name, codes = KINDS[kind]
    model, steps = nano(name), SCHEDULES[schedule]
    code_mask = None if codes is None else torch.tensor(codes)
    memory, prefix = memory_of(model), targets(3, sum(steps))
    expected = model.decode_states(memory, prefix, code_mask=code_mask)
    close(stepwise(model, memory, prefix, steps, code_mask), expected)


def test_cached_logits_are_those_of_the_new_positions() -> None:
    model, prefix, cache = nano(), targets(3, 6), DecoderCache()
    memory = memory_of(model)
    expected = model.decode(memory, prefix)
    close(model.decode(memory, prefix[:, :4], cache), expected[:, :4])
    close(model.decode(memory, prefix, cache), expected[:, 4:])


def test_cached_decoding_equals_uncached_with_padding_in_the_target() -> None:
    model, prefix = nano(), targets(3, 8)
    prefix[1, 2:4] = PAD
    memory = memory_of(model)
    found, expected = stepwise(model, memory, prefix, [5, 1, 1, 1]), model.decode_states(memory, prefix)
    close(found[prefix.ne(PAD)], expected[prefix.ne(PAD)])


@pytest.mark.parametrize("table", ["text_relative", "image_relative"])
def test_a_cached_step_has_the_relative_bias_of_every_key(table: str) -> None:
    """With a table of zeros a cached step must move as far as the full pass does: the bias is there, for all keys."""

    def without_table(model: OFAModel) -> None:
        for parameter in getattr(model.decoder, table).parameters():
            parameter.zero_()

    code_mask = torch.full((3,), table == "image_relative")
    prefix, steps = targets(3, 20), [16, 1, 1, 1, 1]
    with_bias, without, memory = nano(), changed(nano(), without_table), memory_of(nano())
    moved = {}
    for name, decode in (
        ("full", lambda model: model.decode_states(memory, prefix, code_mask=code_mask)),
        ("cached", lambda model: stepwise(model, memory, prefix, steps, code_mask)),
    ):
        moved[name] = decode(with_bias) - decode(without)
    assert moved["full"][:, -1].abs().max() > 0.1
    close(moved["cached"], moved["full"])


# Beams

BEAMS = 4


@pytest.mark.parametrize("steps", [[6], [1] * 6, [3, 2, 1]])
@pytest.mark.parametrize("kind", ["text", "mixed", "prefix prompts"])
def test_beams_of_a_sample_equal_separate_decodes(kind: str, steps: list[int]) -> None:
    name, codes = KINDS[kind]
    model = nano(name)
    code_mask = None if codes is None else torch.tensor(codes)
    memory, prefix = memory_of(model), targets(3 * BEAMS, 6)
    found = stepwise(model, memory, prefix, steps, code_mask).unflatten(0, (3, BEAMS))
    for beam in range(BEAMS):
        close(found[:, beam], model.decode_states(memory, prefix[beam::BEAMS], code_mask=code_mask))


def test_nothing_of_the_source_is_copied_for_beams() -> None:
    model, memory, cache, prefix = nano(), memory_of(nano()), DecoderCache(), targets(3 * BEAMS, 4)
    size, width = memory.states.shape[1:]
    heads = model.config.num_heads
    seen: list[tuple[Tensor, ...]] = []
    hooks = [
        layer.cross_attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
        for layer in model.decoder.layers
    ]
    model.decode_states(memory, prefix[:, :3], cache)
    kept = [layer.cross for layer in cache.layers]
    seen.clear()
    model.decode_states(memory, prefix, cache)
    for hook in hooks:
        hook.remove()

    assert [layer.cross for layer in cache.layers] == kept  # the very same tensors
    for layer, (query, keys, values, bias) in zip(cache.layers, seen, strict=True):
        assert layer.cross is not None
        assert layer.own is not None
        assert (layer.cross[0].shape, layer.own[0].shape[:3]) == ((3, heads, size, width // heads), (12, heads, 4))
        assert query.shape == (3, BEAMS, width)
        assert (keys is layer.cross[0], values is layer.cross[1]) == (True, True)
        assert bias.untyped_storage().nbytes() <= 3 * heads * size * bias.element_size()  # one step, no beams
    assert cache.cross_position_keys is not None
    assert cache.cross_position_keys.shape == (heads, size, width // heads)
    assert (memory.states.shape, memory.positions.shape) == ((3, size, width), (size, width))


# Image features in place of pixels


def test_image_features_give_the_identical_result() -> None:
    model, prefix = nano(), targets(3, 5)
    features = model.image_features(pictures())
    assert features.patches.shape == (3, PATCHES, 1024)
    assert features.grid == (2, 3)
    for mask in (None, SOME):
        expected = model(sources(), prefix, pictures(), mask)
        assert torch.equal(model(sources(), prefix, features, mask), expected)


def test_image_features_are_selected_by_sample() -> None:
    model = nano()
    chosen = model.image_features(pictures()).select(torch.tensor([2, 0, 2]))
    assert isinstance(chosen, ImageFeatures)
    close(model.encode(sources(), chosen).states, model.encode(sources(), pictures()[[2, 0, 2]]).states)


def test_patches_run_row_by_row() -> None:
    model = nano()
    features, grid = model.image_features(pictures()), model.encoder.image_stem(pictures())
    for row in range(2):
        for column in range(3):
            close(features.patches[:, row * 3 + column], grid[:, :, row, column])


# Memory


@pytest.mark.parametrize("with_pictures", [True, False])
def test_memory_has_patches_first_then_text(with_pictures: bool) -> None:
    model = nano()
    memory = model.encode(sources(), pictures() if with_pictures else None, SOME if with_pictures else None)
    patches = PATCHES if with_pictures else 0
    assert memory.states.shape == (3, patches + 11, 32)
    assert memory.positions.shape == (patches + 11, 32)
    assert memory.padding is not None
    assert torch.equal(memory.padding[:, patches:], sources().eq(PAD))
    assert torch.equal(memory.padding[:, :patches], ~SOME[:, None].expand(-1, patches))


def test_selected_samples_of_a_memory_decode_as_before() -> None:
    model, prefix = nano(), targets(3, 5)
    memory, chosen = memory_of(model), torch.tensor([2, 0])
    selected = memory.select(chosen)
    close(model.decode(selected, prefix[chosen]), model.decode(memory, prefix)[chosen])
    assert replace(memory, padding=None).select(chosen).padding is None


def resized(grid: Tensor, rows: int, columns: int) -> Tensor:
    """``grid`` [r, c, D] at the size rows × columns: bilinear, corners not aligned, one vector at a time."""

    def neighbours(at: int, size: int, old: int) -> tuple[int, int, float]:
        place = min(max((at + 0.5) * old / size - 0.5, 0), old - 1)
        return int(place), min(int(place) + 1, old - 1), place - int(place)

    out = torch.zeros(rows, columns, grid.shape[-1])
    for row in range(rows):
        above, below, down = neighbours(row, rows, grid.shape[0])
        for column in range(columns):
            left, right, across = neighbours(column, columns, grid.shape[1])
            upper = grid[above, left] * (1 - across) + grid[above, right] * across
            lower = grid[below, left] * (1 - across) + grid[below, right] * across
            out[row, column] = upper * (1 - down) + lower * down
    return out


@pytest.mark.parametrize("interpolate", [True, False])
@pytest.mark.parametrize("grid", [(2, 2), (3, 1), (4, 1), (1, 5), (5, 1), (2, 3), (4, 3)])
def test_position_vectors_are_resized_where_patches_outnumber_the_original_grid(
    grid: tuple[int, int], interpolate: bool
) -> None:
    torch.manual_seed(0)
    model = OFAModel(small_config(interpolate_position=interpolate, orig_patch_image_size=32))  # a grid of 2 × 2
    encoder = model.eval().requires_grad_(False).encoder
    rows, columns = grid
    table = encoder.image_positions.weight[1:].unflatten(0, (42, 42))
    vectors = table[:rows, :columns]
    if interpolate and rows * columns > 4:
        vectors = resized(table[:2, :2], rows, columns)
    memory = model.encode(TWO[:1], ImageFeatures(torch.zeros(1, rows * columns, 1024), grid))
    close(memory.positions[: rows * columns], encoder.image_position_norm(vectors.flatten(0, 1)))


# Dtypes


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codes", [None, [True, False, True]])
def test_half_precision_is_finite_and_near_float32(dtype: torch.dtype, codes: list[bool] | None) -> None:
    model, prefix = nano(), targets(3, 12)
    code_mask = None if codes is None else torch.tensor(codes)
    half = copy.deepcopy(model).to(dtype)
    assert half.dtype == dtype
    if dtype == torch.float16:
        half.encoder.image_stem.float()  # as ofa_core.load leaves it on a CPU
    expected = model(sources(), prefix, pictures(), SOME, code_mask)
    found = half(sources(), prefix, pictures(), SOME, code_mask)
    assert found.dtype == dtype
    assert found.isfinite().all()
    close(found, expected, dtype)
    states = stepwise(half, memory_of(half), prefix, [1] * 12, code_mask)
    close(states, model.decode_states(memory_of(model), prefix, code_mask=code_mask), dtype)


# Errors, and the last inputs that are accepted


def test_the_longest_source_and_target_are_accepted() -> None:
    model = nano()
    memory = model.encode(torch.full((1, 1024), 7))
    assert memory.states.isfinite().all()
    cache = DecoderCache()
    model.decode_states(memory, torch.full((1, 1023), 7), cache)
    assert model.decode_states(memory, torch.full((1, 1024), 7), cache).isfinite().all()
    with pytest.raises(OFAError, match="a target of 1025 tokens is too long: this model holds 1024"):
        model.decode_states(memory, torch.full((1, 1025), 7), cache)


def test_the_largest_picture_is_accepted() -> None:
    assert nano().image_features(torch.zeros(1, 3, 672, 16)).grid == (42, 1)
    assert nano().image_features(torch.zeros(1, 3, 5, 672)).grid == (1, 42)


def encode(tokens: Any, images: Any = None, image_mask: Any = None) -> Callable[[OFAModel], object]:
    return lambda model: model.encode(tokens, images, image_mask)


def decode(prefix: Any, code_mask: Any = None) -> Callable[[OFAModel], object]:
    """From a memory of two samples."""
    return lambda model: model.decode(model.encode(torch.tensor([[0, 5, 2]] * 2)), prefix, code_mask=code_mask)


REFUSED: dict[str, tuple[Callable[[OFAModel], object], str]] = {
    "source of 1025": (encode(torch.full((1, 1025), 7)), "a source of 1025 tokens is too long: this model holds 1024"),
    "target of 1025": (decode(torch.full((2, 1025), 7)), "a target of 1025 tokens is too long: this model holds 1024"),
    "673 pixels high": (encode(TWO, torch.zeros(2, 3, 673, 32)), "images may be up to 672 pixels a side, not 673 × 32"),
    "1000 pixels wide": (
        encode(TWO, torch.zeros(2, 3, 32, 1000)),
        "images may be up to 672 pixels a side, not 32 × 1000",
    ),
    "a picture more": (encode(TWO, torch.zeros(3, 3, 32, 32)), "images holds 3 samples, the source tokens 2"),
    "a picture less": (encode(TWO, torch.zeros(1, 3, 32, 32)), "images holds 1 samples, the source tokens 2"),
    "image mask": (
        encode(TWO, torch.zeros(2, 3, 32, 32), torch.tensor([True])),
        "image_mask holds 1 samples, .* tokens 2",
    ),
    "image features": (
        encode(TWO, ImageFeatures(torch.zeros(3, 4, 1024), (2, 2))),
        "images holds 3 samples, the source tokens 2",
    ),
    "a prefix more": (decode(torch.zeros(3, 2, dtype=torch.long)), "3 prefixes cannot be shared out over 2 samples"),
    "a prefix less": (decode(torch.zeros(1, 2, dtype=torch.long)), "1 prefixes cannot be shared out over 2 samples"),
    "code mask": (decode(TWO, torch.tensor([True, False, True])), "code_mask holds 3 samples, the memory 2"),
    "source without tokens": (
        encode(torch.zeros(2, 0, dtype=torch.long)),
        r"source tokens must be .* not empty, not \[2, 0\]",
    ),
    "no sources": (encode(torch.zeros(0, 2, dtype=torch.long)), r"source tokens must be .* not empty, not \[0, 2\]"),
    "source without batch": (
        encode(torch.zeros(2, dtype=torch.long)),
        r"source tokens must be \[batch, length\] .*, not \[2\]",
    ),
    "target without tokens": (
        decode(torch.zeros(2, 0, dtype=torch.long)),
        r"target prefix must be .* not empty, not \[2, 0\]",
    ),
    "picture without batch": (
        encode(TWO, torch.zeros(3, 32, 32)),
        r"images must be \[batch, 3, height, width\], not \[3, 32, 32\]",
    ),
    "channels last": (
        encode(TWO, torch.zeros(2, 32, 32, 3)),
        r"images must be \[batch, 3, height, width\], not \[2, 32, 32, 3\]",
    ),
    "picture without rows": (encode(TWO, torch.zeros(2, 3, 0, 32)), r"images must .*, not \[2, 3, 0, 32\]"),
    "head": (lambda model: model.classify("cls", TWO, TWO), "no classification head 'cls'; it has none"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_input_that_does_not_fit_is_refused_with_the_limit(case: str) -> None:
    call, message = REFUSED[case]
    with pytest.raises(OFAError, match=message):
        call(nano())


def test_decoding_nothing_new_is_refused() -> None:
    model, prefix, cache = nano(), targets(3, 4), DecoderCache()
    memory = memory_of(model)
    model.decode(memory, prefix, cache)
    for length in (4, 2):
        with pytest.raises(OFAError, match=f"the cache holds 4 positions: a prefix of {length} has nothing new"):
            model.decode(memory, prefix[:, :length], cache)
    assert cache.length == 4


def test_an_unknown_classification_head_is_refused_with_the_known_ones() -> None:
    heads = {"snli": ClassificationHeadConfig(num_classes=3), "sst": ClassificationHeadConfig(num_classes=2)}
    model = OFAModel(small_config(classification_heads=heads))
    with pytest.raises(OFAError, match="this model has no classification head 'cls'; it has snli, sst"):
        model.classify("cls", TWO, TWO)


@pytest.mark.parametrize("inner_dim", [None, 7])
def test_a_classification_head_reads_the_last_position_that_is_not_padding(inner_dim: int | None) -> None:
    torch.manual_seed(0)
    heads = {"cls": ClassificationHeadConfig(num_classes=3, inner_dim=inner_dim)}
    model = OFAModel(small_config(classification_heads=heads)).eval().requires_grad_(False)
    prefix = torch.tensor([[0, 9, 8, 7], [0, 9, PAD, PAD], [0, PAD, PAD, PAD]])
    source = TWO[[0, 1, 1]]
    states = model.decode_states(model.encode(source), prefix)
    x = torch.stack([states[0, 3], states[1, 1], states[2, 0]])
    head = model.classification_heads["cls"]
    if inner_dim:
        x = torch.tanh(x @ head.dense.weight.T + head.dense.bias)
    close(model.classify("cls", source, prefix), x @ head.out_proj.weight.T + head.out_proj.bias)
    assert head.out_proj.weight.shape == (3, inner_dim or 32)
