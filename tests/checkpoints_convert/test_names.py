from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

import pytest
import torch
from reference import OWN_GOLDEN, forward_cases, golden
from torch import Tensor

from checkpoints_convert import config_from_fairseq
from checkpoints_convert.names import DROPPED, FAIRSEQ, FROM_FAIRSEQ, TIED, TO_FAIRSEQ, NameMap
from ofa_core import CheckpointError
from ofa_core.checkpoint.model_dir import empty_model

CASES = forward_cases(OWN_GOLDEN)
DIRECTIONS = pytest.mark.parametrize("table", [FROM_FAIRSEQ.table, TO_FAIRSEQ.table], ids=["from", "to"])


def laid_out(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def weights_among(names: Iterable[str]) -> list[str]:
    return [name for name in names if name not in TIED and name not in DROPPED]


def pattern_of(template: str) -> re.Pattern[str]:
    return re.compile(re.escape(template).replace(r"\{\}", r"[^.]+"))


def overlap(first: str, second: str) -> bool:
    """Whether some name fits both templates: segment by segment, since a placeholder never spans a dot."""
    pairs = list(zip(first.split("."), second.split("."), strict=False))
    return first.count(".") == second.count(".") and all(segments_overlap(*pair) for pair in pairs)


def segments_overlap(first: str, second: str) -> bool:
    if "{}" not in first:
        return bool(pattern_of(second).fullmatch(first))
    if "{}" not in second:
        return bool(pattern_of(first).fullmatch(second))
    (start, end), (other_start, other_end) = first.split("{}"), second.split("{}")
    starts = start.startswith(other_start) or other_start.startswith(start)
    return starts and (end.endswith(other_end) or other_end.endswith(end))


@pytest.fixture(scope="module")
def names() -> set[str]:
    """Every entry of every reference model."""
    return {name for case in CASES for name in golden(f"{case}.json")["shapes"]}


def test_every_entry_of_the_original_is_a_weight_a_tied_copy_or_dropped(names: set[str]) -> None:
    assert len(names) > 1900
    for name in names:
        places = [FROM_FAIRSEQ(name) is not None, name in TIED, name in DROPPED]
        assert places.count(True) == 1, name


@pytest.mark.parametrize("case", CASES)
def test_the_weights_of_the_original_are_those_of_our_model_in_their_shapes(case: str) -> None:
    reference = golden(f"{case}.json")
    shapes = reference["shapes"]
    config = config_from_fairseq(laid_out(shapes), reference["meta"]["args"])
    renamed = [(FROM_FAIRSEQ(name), tuple(shapes[name])) for name in weights_among(shapes)]
    ours = {name: tuple(tensor.shape) for name, tensor in empty_model(config).state_dict().items()}
    assert len(renamed) == len(ours)
    assert dict(renamed) == ours


def test_renaming_there_and_back_gives_the_same_name(names: set[str]) -> None:
    back = TO_FAIRSEQ.inverse()
    for name in weights_among(names):
        ours = FROM_FAIRSEQ(name)
        assert ours is not None
        assert TO_FAIRSEQ(ours) == name
        assert back(name) == ours


def test_the_cases_use_every_template(names: set[str]) -> None:
    unused = [template for template in FAIRSEQ if not any(pattern_of(template).fullmatch(name) for name in names)]
    assert unused == []


@DIRECTIONS
def test_no_name_fits_two_templates(table: dict[str, str]) -> None:
    twice = [pair for pair in itertools.combinations(table, 2) if overlap(*pair)]
    assert twice == []


def test_the_overlap_check_finds_overlaps() -> None:
    assert overlap("a.{}.b", "a.{}_proj.b")
    assert overlap("a.{}", "a.weight")
    assert not overlap("a.{}", "a.{}.b")
    assert not overlap("a.{}_proj", "a.{}_norm")


@DIRECTIONS
def test_both_sides_of_a_template_have_the_same_placeholders(table: dict[str, str]) -> None:
    assert [source for source, target in table.items() if source.count("{}") != target.count("{}")] == []
    assert len(set(table.values())) == len(table)


def test_tied_and_dropped_entries_are_apart_and_have_reasons() -> None:
    assert not set(TIED) & set(DROPPED)
    assert all(FROM_FAIRSEQ(name) is None for name in (*TIED, *DROPPED))
    assert all(DROPPED.values())


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layers.0.moe.weight",
        "encoder.layers.0.attn_ln",
        "encoder.layers.0.attn_ln.weight.extra",
        "encoder.layers..attn_ln.weight",
        "encoder.layers.0.encoder_attn.k_proj.weight",
        "model.encoder.embed_tokens.weight",
        "encoder.embed_images.layer4.0.conv1.weight",
        "encoder.embed_positions.bias",
        "",
    ],
)
def test_an_unknown_name_fits_nothing_and_is_named_in_the_error(name: str) -> None:
    assert FROM_FAIRSEQ(name) is None
    with pytest.raises(CheckpointError, match=rf"the file: 1 .* not part of OFA: {re.escape(name)}$"):
        FROM_FAIRSEQ.all(["encoder.layer_norm.weight", name], "the file")


def test_many_unknown_names_are_counted_and_a_few_named() -> None:
    names = [f"encoder.extra{index}.weight" for index in range(7)]
    with pytest.raises(CheckpointError, match=r"7 entries .*encoder\.extra0\.weight, .* and 4 more"):
        FROM_FAIRSEQ.all(names, "the file")


def test_two_names_for_one_weight_are_refused_and_both_named() -> None:
    names = NameMap({"new.{}": "norm.{}", "old.{}": "norm.{}"})
    assert names.all(["new.weight", "old.bias"], "the file") == {"new.weight": "norm.weight", "old.bias": "norm.bias"}
    with pytest.raises(CheckpointError, match=r"several entries .* same weight: new\.weight, old\.weight"):
        names.all(["new.weight", "old.weight", "old.bias"], "the file")
