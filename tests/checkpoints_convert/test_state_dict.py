from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from reference import OWN_GOLDEN, fairseq_state, golden, quick_config, random_state
from torch import Tensor

from checkpoints_convert import config_from_fairseq, from_fairseq, read_checkpoint, to_fairseq
from checkpoints_convert.names import DROPPED, FAIRSEQ, FROM_FAIRSEQ, TIED
from ofa_core import CheckpointError, OFAConfig
from ofa_core.config import ClassificationHeadConfig, PromptConfig

EMBEDDING = "encoder.embed_tokens.weight"
#: The reference models that differ in their entries.
KINDS = (
    "nano",
    "nano_plain",
    "nano_scale_resids",
    "nano_adapter",
    "nano_head",
    "nano_prefix_prompt",
    "nano_prefix_prompt_projected",
)
CONFIGS = {
    "released": quick_config(),
    "plain": quick_config(
        image_layernorm=False,
        code_layernorm=False,
        type_embedding=False,
        scale_attn=False,
        scale_fc=False,
        scale_heads=False,
    ),
    "everything": quick_config(
        scale_resids=True,
        adapter_dim=5,
        encoder_prompt=PromptConfig(length=3, projection_dim=6),
        decoder_prompt=PromptConfig(length=2),
        classification_heads={"cls": ClassificationHeadConfig(num_classes=3, inner_dim=4)},
    ),
}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def config() -> OFAConfig:
    return CONFIGS["everything"]


@pytest.fixture(scope="module")
def shared_state(config: OFAConfig) -> dict[str, Tensor]:
    return to_fairseq(random_state(config), config)


@pytest.fixture
def state(shared_state: dict[str, Tensor]) -> dict[str, Tensor]:
    """fairseq's entries, for each test to change."""
    return dict(shared_state)


def bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    """Everything of a tensor that a copy must have, NaN and the sign of zero included."""
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> list[str]:
    """The names at which two states differ."""
    names = sorted(first.keys() | second.keys())
    return [
        name for name in names if not (name in first and name in second and bits(first[name]) == bits(second[name]))
    ]


def in_dtype(state: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


# --- every entry in, every weight out ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_is_the_sources_own_and_every_entry_is_used_tied_or_dropped(kind: str) -> None:
    case = golden(f"forward_{kind}.json")
    state = fairseq_state(case["shapes"] | {EMBEDDING: [50, 32]} | {name: [50, 32] for name in TIED}, kind)
    buffers = {name: torch.zeros(3) for name in DROPPED}
    config = config_from_fairseq(state | buffers, case["meta"]["args"])
    converted = from_fairseq(state | buffers, config)
    sources = {FROM_FAIRSEQ(name): name for name in state if name not in TIED}
    assert converted.keys() == sources.keys()
    for ours, theirs in sources.items():
        assert ours is not None
        assert converted[ours].data_ptr() == state[theirs].data_ptr(), theirs
        assert torch.equal(converted[ours], state[theirs]), theirs


def test_converting_draws_nothing_at_random(state: dict[str, Tensor], config: OFAConfig) -> None:
    before = torch.get_rng_state()
    to_fairseq(from_fairseq(state, config), config)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_source_is_left_as_it_was(state: dict[str, Tensor], config: OFAConfig) -> None:
    copies = {name: tensor.clone() for name, tensor in state.items()}
    from_fairseq(state, config)
    assert same(state, copies) == []


# --- there and back ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_survives_fairseqs_format_bit_for_bit(name: str, dtype: torch.dtype) -> None:
    ours = in_dtype(random_state(CONFIGS[name]), dtype)
    ours["encoder.final_norm.bias"] = torch.full_like(ours["encoder.final_norm.bias"], -0.0)
    assert same(from_fairseq(to_fairseq(ours, CONFIGS[name]), CONFIGS[name]), ours) == []


@pytest.mark.parametrize("name", ["refcoco_cfg", "vqa_namespace"])
def test_a_genuine_checkpoint_survives_our_format_bit_for_bit(genuine_checkpoints: dict[str, Path], name: str) -> None:
    content = read_checkpoint(genuine_checkpoints[name]).content
    state = content["model"]
    config = config_from_fairseq(state, content["cfg"]["model"] if content["cfg"] else content["args"])
    back = to_fairseq(from_fairseq(state, config), config)
    # Training in half precision stored fairseq's format number in it too.
    versions = {entry: back[entry].half() for entry in ("encoder.version", "decoder.version")}
    assert same(back | versions, state) == []


def test_the_tied_copies_and_computed_entries_are_written_as_the_original_has_them() -> None:
    config = quick_config(
        image_bucket_size=42, max_source_positions=1024, max_target_positions=1024, token_bucket_size=256
    )
    shapes = golden("forward_nano.json")["shapes"]
    written = to_fairseq(random_state(config), config)
    assert all(name in shapes for name in (*TIED, *DROPPED))
    assert {name: list(written[name].shape) for name in DROPPED} == {name: shapes[name] for name in DROPPED}
    assert all(torch.equal(written[name], written[EMBEDDING]) for name in TIED)
    # OFA.md: distances up to 128 have a bucket each; 255 is none at all.
    buckets = written["decoder.token_rp_bucket"]
    assert buckets[0, :4].tolist() == [255, 254, 253, 252]
    assert buckets[1023, 0] == 510
    assert written["encoder.image_rp_bucket"][0, :2].tolist() == [6891, 6889]
    # 128 / 8 = 16 codes a row on a grid 42 wide; everything behind the window is 1024.
    codes = written["decoder.image_position_idx"].tolist()
    assert codes[:18] == [0, *range(1, 17), 43]
    assert codes[256:258] == [15 * 42 + 16, 1024]


# --- what is refused -----------------------------------------------------------------------------------------------


def one_of_each_template() -> Iterator[Any]:
    """For each template, the first entry of a reference model that fits it, with the model."""
    entries = [(kind, name) for kind in KINDS for name in golden(f"forward_{kind}.json")["shapes"]]
    for template in FAIRSEQ:
        pattern = re.escape(template).replace(r"\{\}", r"[^.]+")
        for kind, name in entries:
            if re.fullmatch(pattern, name):
                yield pytest.param(kind, name, id=name)
                break


@pytest.mark.parametrize(("kind", "name"), list(one_of_each_template()))
def test_no_entry_can_be_missing_unnoticed(kind: str, name: str) -> None:
    case = golden(f"forward_{kind}.json")
    shapes = case["shapes"] | {key: [50, 32] for key in (EMBEDDING, *TIED)}
    state = {entry: torch.zeros(()).expand(tuple(shape)) for entry, shape in shapes.items() if entry != name}
    with pytest.raises(CheckpointError, match=r"missing|no entry|not part of|contradicts|wrong shape|numbered from 0"):
        from_fairseq(state, config_from_fairseq(state, case["meta"]["args"]))


@pytest.mark.parametrize(
    "name",
    [
        EMBEDDING,
        "encoder.embed_images.layer2.0.bn1.running_var",
        "encoder.embed_images.bn1.num_batches_tracked",
        "encoder.layers.1.self_attn.c_attn",
        "decoder.layers.0.encoder_attn.k_proj.bias",
        "decoder.image_rel_pos_table_list.1.weight",
        "decoder.decoder_prompt_encoder.embedding.weight",
        "encoder.layers.1.w_resid",
        "classification_heads.cls.out_proj.bias",
    ],
)
def test_a_missing_entry_is_named_by_our_name(state: dict[str, Tensor], config: OFAConfig, name: str) -> None:
    for copy in TIED:
        del state[copy]
    del state[name]
    with pytest.raises(CheckpointError, match=rf"^1 entry is missing: {re.escape(str(FROM_FAIRSEQ(name)))}$"):
        from_fairseq(state, config)


def test_many_missing_entries_are_counted(state: dict[str, Tensor], config: OFAConfig) -> None:
    left = {name: tensor for name, tensor in state.items() if not name.startswith("decoder.layers.1.")}
    count = len(state) - len(left)
    with pytest.raises(CheckpointError, match=rf"^{count} entries are missing: (\S+, ){{2}}\S+ and {count - 3} more$"):
        from_fairseq(left, config)


@pytest.mark.parametrize(
    "name", ["encoder.layers.0.moe.weight", "decoder.ema.weight", "encoder.embed_tokens.bias", "lm_head.weight"]
)
def test_an_entry_ofa_does_not_know_is_refused(state: dict[str, Tensor], config: OFAConfig, name: str) -> None:
    state[name] = torch.zeros(2)
    known = FROM_FAIRSEQ(name)
    with pytest.raises(CheckpointError, match=rf"not part of .*{re.escape(known or name)}"):
        from_fairseq(state, config)


@pytest.mark.parametrize(
    "name", ["encoder.layers.2.fc1.weight", "decoder.layers.7.w_resid", "classification_heads.other.out_proj.weight"]
)
def test_an_entry_this_model_has_no_place_for_is_refused(
    state: dict[str, Tensor], config: OFAConfig, name: str
) -> None:
    state[name] = torch.zeros(2)
    with pytest.raises(CheckpointError, match=r"^1 entry is not part of this model: .*"):
        from_fairseq(state, config)


@pytest.mark.parametrize("name", ["encoder.layers.0.fc1.weight", "decoder.layer_norm.bias", "encoder.image_proj.bias"])
def test_an_entry_of_the_wrong_shape_is_shown_with_both_shapes(
    state: dict[str, Tensor], config: OFAConfig, name: str
) -> None:
    right = list(state[name].shape)
    state[name] = torch.zeros(1, *right)
    expected = rf"{re.escape(str(FROM_FAIRSEQ(name)))} {re.escape(str([1, *right]))} instead of {re.escape(str(right))}"
    with pytest.raises(CheckpointError, match=rf"^1 entry is of the wrong shape: {expected}$"):
        from_fairseq(state, config)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["encoder.layers.0.fc1.weight", "encoder.embed_images.bn1.running_var"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_weight_that_is_not_finite_is_named(
    state: dict[str, Tensor], config: OFAConfig, name: str, value: float, dtype: torch.dtype
) -> None:
    state[name] = state[name].to(dtype, copy=True)
    state[name].view(-1)[-1] = value
    with pytest.raises(CheckpointError, match=rf"1 entries hold NaN or infinity: {FROM_FAIRSEQ(name)}"):
        from_fairseq(state, config)
    ours = {FROM_FAIRSEQ(key): tensor for key, tensor in state.items() if key not in TIED and key not in DROPPED}
    with pytest.raises(CheckpointError, match=r"1 entries hold NaN or infinity"):
        to_fairseq({str(key): tensor for key, tensor in ours.items()}, config)


def test_a_computed_entry_may_hold_anything(state: dict[str, Tensor], config: OFAConfig) -> None:
    expected = from_fairseq(state, config)
    odd = state | {name: torch.full((2,), torch.nan) for name in DROPPED}
    assert same(from_fairseq(odd, config), expected) == []
    without = {name: tensor for name, tensor in state.items() if name not in DROPPED}
    assert same(from_fairseq(without, config), expected) == []


@pytest.mark.parametrize("name", TIED)
def test_a_tied_copy_that_differs_is_refused(state: dict[str, Tensor], config: OFAConfig, name: str) -> None:
    state[name] = state[name].clone()
    state[name][-1, -1] += 1
    with pytest.raises(CheckpointError, match=f"^{re.escape(name)} differs from {re.escape(EMBEDDING)}"):
        from_fairseq(state, config)
    state[name] = state[EMBEDDING][:-1]
    with pytest.raises(CheckpointError, match=f"^{re.escape(name)} differs from"):
        from_fairseq(state, config)


@pytest.mark.parametrize("name", TIED)
def test_a_tied_copy_may_be_left_out(state: dict[str, Tensor], config: OFAConfig, name: str) -> None:
    expected = from_fairseq(state, config)
    del state[name]
    assert same(from_fairseq(state, config), expected) == []


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.float8_e4m3fn])
def test_weights_no_model_computes_with_are_refused(
    state: dict[str, Tensor], config: OFAConfig, dtype: torch.dtype
) -> None:
    state["encoder.pos_ln.weight"] = state["encoder.pos_ln.weight"].to(dtype)
    with pytest.raises(CheckpointError, match=r"encoder\.text_position_norm\.weight|encoder\.pos_ln\.weight"):
        from_fairseq(state, config)


@pytest.mark.parametrize("change", ["missing", "unknown", "wrong shape"])
def test_our_own_state_is_checked_before_it_is_written(config: OFAConfig, change: str) -> None:
    ours = random_state(config)
    name = "encoder.final_norm.weight"
    if change == "missing":
        del ours[name]
    elif change == "unknown":
        ours["encoder.other.weight"] = torch.zeros(1)
    else:
        ours[name] = torch.zeros(1)
    expected = {"missing": "1 entry is missing", "unknown": "1 entry is not part", "wrong shape": r"\[1\] instead of"}
    with pytest.raises(CheckpointError, match=expected[change]):
        to_fairseq(ours, config)


def test_the_kinds_cover_all_reference_models() -> None:
    def names(stem: str) -> frozenset[str]:
        return frozenset(golden(f"{stem}.json")["shapes"])

    covered = {names(f"forward_{kind}") for kind in KINDS}
    small = [path.stem for path in OWN_GOLDEN.glob("forward_nano*.json")]
    assert {names(stem) for stem in small} == covered
