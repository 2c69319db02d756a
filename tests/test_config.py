from __future__ import annotations

import json
import time
from typing import Any

import pytest
from pydantic import ValidationError

from ofa_core import OFAConfig, OFAError, TaskSettings
from ofa_core.checkpoint.model_dir import empty_model
from ofa_core.config import (
    LIMITS,
    MAX_PARAMETERS,
    PRESETS,
    STEM_DEPTHS,
    ClassificationHeadConfig,
    PromptConfig,
    merged,
)

#: OFA.md, "Sizes": width, feed-forward, encoder and decoder layers, heads, blocks of the image stem.
PUBLISHED = {
    "tiny": (256, 1024, 4, 4, 4, (3, 4, 6)),
    "medium": (512, 2048, 4, 4, 8, (3, 4, 23)),
    "base": (768, 3072, 6, 6, 12, (3, 4, 23)),
    "large": (1024, 4096, 12, 12, 16, (3, 8, 36)),
    "huge": (1280, 5120, 24, 12, 16, (3, 8, 36)),
}
STEMS = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}
SMALL: dict[str, Any] = {
    "embed_dim": 32,
    "ffn_dim": 64,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "num_heads": 4,
    "stem_depths": (1, 2, 3),
}


@pytest.mark.parametrize("size", PUBLISHED)
def test_a_preset_has_the_published_dimensions(size: str) -> None:
    config = OFAConfig.preset(size)
    dimensions = (config.embed_dim, config.ffn_dim, config.encoder_layers, config.decoder_layers, config.num_heads)
    assert (*dimensions, config.stem_depths) == PUBLISHED[size]
    assert config.size == size
    assert (config.vocab_size, config.max_source_positions, config.max_target_positions) == (59457, 1024, 1024)
    assert (config.token_bucket_size, config.image_bucket_size, config.attn_scale_factor) == (256, 42, 2)


def test_a_model_of_other_dimensions_is_of_no_released_size() -> None:
    assert OFAConfig(**SMALL).size is None
    assert OFAConfig.preset("base", encoder_layers=2).size is None  # as wide as base, and not as deep
    assert OFAConfig.preset("base", vocab_size=60000, adapter_dim=8).size == "base"


def test_the_tables_hold_the_published_sizes_and_stems_and_no_others() -> None:
    assert set(PRESETS) == set(PUBLISHED)
    assert STEM_DEPTHS == STEMS


def test_a_preset_takes_changes_and_keeps_the_rest() -> None:
    changed = OFAConfig.preset("base", vocab_size=60000, encoder_layers=2)
    assert (changed.vocab_size, changed.encoder_layers) == (60000, 2)
    assert changed == OFAConfig.preset("base").model_copy(update={"vocab_size": 60000, "encoder_layers": 2})
    assert OFAConfig.preset("base").encoder_layers == 6  # the table itself is untouched


def test_an_unknown_preset_is_refused_with_the_known_names() -> None:
    with pytest.raises(OFAError, match="there is no preset 'giant'; the presets are tiny, medium, base, large, huge"):
        OFAConfig.preset("giant")


@pytest.mark.parametrize(("factor", "expected"), [(2.0, 16**-0.5), (1.0, 8**-0.5), (8.0, 0.125)])
def test_attention_scale_counts_the_factor_in(factor: float, expected: float) -> None:
    config = OFAConfig(**SMALL, attn_scale_factor=factor)
    assert config.head_dim == 8
    assert config.attention_scale == pytest.approx(expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 5}, "embed_dim 32 is not a multiple of num_heads 5"),
        ({"embed_dimension": 32}, "(?s)embed_dimension.*Extra inputs are not permitted"),
        ({"embed_dim": 0}, "(?s)embed_dim.*greater than 0"),
        ({"encoder_layers": -1}, "(?s)encoder_layers.*greater than 0"),
        ({"stem_depths": (1, 2)}, "(?s)stem_depths.*Field required"),
        ({"vocab_size": 4}, "(?s)vocab_size.*greater than 4"),
        ({"dropout": 1.0}, "(?s)dropout.*less than 1"),
        ({"encoder_drop_path": -0.1}, "(?s)encoder_drop_path.*greater than or equal to 0"),
        ({"attn_scale_factor": 0}, "(?s)attn_scale_factor.*greater than 0"),
        ({"encoder_prompt": {"length": 0}}, r"(?s)encoder_prompt\.length.*greater than 0"),
        ({"classification_heads": {"a": {"num_classes": 0}}}, "(?s)num_classes.*greater than 0"),
        ({"task": {"prompt_type": "before"}}, r"(?s)task\.prompt_type.*'none', 'src' or 'prev_output'"),
        ({"task": {"img_size": 480}}, r"(?s)task\.img_size.*Extra inputs are not permitted"),
    ],
)
def test_a_field_that_makes_no_sense_is_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        OFAConfig(**SMALL | changes)


@pytest.mark.parametrize("field", SMALL)
def test_dimensions_have_no_default(field: str) -> None:
    with pytest.raises(ValidationError, match=rf"(?s){field}.*Field required"):
        OFAConfig(**{name: value for name, value in SMALL.items() if name != field})


def test_a_configuration_cannot_be_changed() -> None:
    config = OFAConfig(**SMALL)
    with pytest.raises(ValidationError, match="frozen"):
        config.embed_dim = 64  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        config.task.image_size = 480  # type: ignore[misc]


def test_json_brings_everything_back() -> None:
    config = OFAConfig(
        **SMALL,
        interpolate_position=True,
        adapter_dim=8,
        scale_resids=True,
        encoder_prompt=PromptConfig(length=3, projection_dim=5),
        decoder_prompt=PromptConfig(length=2),
        classification_heads={"cls": ClassificationHeadConfig(num_classes=7, inner_dim=16)},
        task=TaskSettings(name="vqa_gen", image_size=480, extra_tokens=("<a>", "é"), prompt_type="prev_output"),
    )
    assert OFAConfig.from_json(config.model_dump_json()) == config
    assert OFAConfig.from_json(config.model_dump_json()) != OFAConfig(**SMALL)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "config.json is not an OFA configuration: Invalid JSON"),
        ("[]", "config.json is not an OFA configuration: Input should be an object"),
        ("{}", "config.json is not an OFA configuration: embed_dim: Field required"),
        (
            OFAConfig(**SMALL).model_dump_json().replace('"num_heads":4', '"num_heads":5'),
            "config.json is not an OFA configuration: embed_dim 32 is not a multiple of num_heads 5",
        ),
        (
            OFAConfig(**SMALL).model_dump_json().replace('"image_size":512', '"image_size":"big"', 1),
            r"task\.image_size: Input should be a valid integer",
        ),
    ],
)
def test_json_that_is_no_configuration_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(OFAError, match=message) as caught:
        OFAConfig.from_json(text, "config.json")
    assert "\n" not in str(caught.value)


def test_settings_are_merged_at_every_level() -> None:
    fields = {"a": 1, "task": {"b": 2, "c": {"d": 3, "e": 4}}, "f": None}
    assert merged(fields, {"task": {"c": {"d": 5}}, "f": {"g": 6}}) == {
        "a": 1,
        "task": {"b": 2, "c": {"d": 5, "e": 4}},
        "f": {"g": 6},
    }
    assert merged(fields, {"task": None})["task"] is None
    assert fields["task"] == {"b": 2, "c": {"d": 3, "e": 4}}


#: Changes to a configuration that cannot be meant, and what is named.
ABSURD: list[tuple[dict[str, Any], str]] = [
    ({"task": {"num_bins": 10**9}}, "task.num_bins: 1000000000 is more than 65,536, the most"),
    ({"task": {"code_dict_size": 10**9}}, "task.code_dict_size: 1000000000 is more than 1,048,576, the most"),
    ({"task": {"image_size": 10**6}}, "task.image_size: 1000000 is more than 2,048, the most"),
    ({"task": {"image_size": 20_000}}, "task.image_size: 20000 is more than 2,048, the most"),
    ({"task": {"max_image_size": 10**6}}, "task.max_image_size: 1000000 is more than 16,384, the most"),
    ({"encoder_layers": 10**6}, "encoder_layers: 1000000 is more than 64, the most"),
    ({"stem_depths": (10**6, 2, 2)}, "stem_depths: 1000000 is more than 64, the most"),
    ({"image_bucket_size": 10**5}, "image_bucket_size: 100000 is more than 128, the most"),
    ({"max_target_positions": 10**9}, "max_target_positions: 1000000000 is more than 8,192, the most"),
    ({"decoder_prompt": {"length": 10**9}}, "decoder_prompt.length: 1000000000 is more than 8,192, the most"),
    ({"embed_dim": 10**400}, r"embed_dim: 10+\.\.\. \(.* characters more\) \.\.\.0+ is more than 16,384, the most"),
    (
        {"classification_heads": {str(i): {"num_classes": 2} for i in range(1000)}},
        "classification_heads: 1000 is more than 256, the most",
    ),
    (
        {"embed_dim": 16_384, "ffn_dim": 65_536, "encoder_layers": 64},
        "the sizes together make too many parameters: [0-9]+ is more than 20,000,000,000, the most",
    ),
]


@pytest.mark.parametrize(("changes", "message"), ABSURD, ids=[message.split()[0] for _, message in ABSURD])
def test_a_number_that_cannot_be_meant_is_refused_with_the_reason(changes: dict[str, Any], message: str) -> None:
    fields = {**OFAConfig(**SMALL).model_dump(), **changes}
    start = time.perf_counter()
    with pytest.raises(OFAError, match=f"{message} that is accepted: [a-z]") as caught:
        OFAConfig.from_json(json.dumps(fields))
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("size", PUBLISHED)
def test_released_sizes_are_far_below_every_limit(size: str) -> None:
    config = OFAConfig.preset(size)
    for part in (config, config.task):
        for name, value in part:
            if name in LIMITS and isinstance(value, int):
                assert 2 * value <= LIMITS[name].most
    assert 20 * config._parameters() < MAX_PARAMETERS.most
    model = empty_model(config)
    exact = sum(p.numel() for name, p in model.named_parameters() if "image_stem" not in name)
    assert config._parameters() == pytest.approx(exact, rel=0.05)


def test_every_limit_is_of_a_field() -> None:
    models = (OFAConfig, TaskSettings, PromptConfig, ClassificationHeadConfig)
    assert set(LIMITS) <= {name for model in models for name in model.model_fields}


@pytest.mark.parametrize("value", ["Infinity", "NaN"])
def test_numbers_are_finite(value: str) -> None:
    text = OFAConfig(**SMALL).model_dump_json().replace('"attn_scale_factor":2.0', f'"attn_scale_factor":{value}')
    with pytest.raises(OFAError, match="attn_scale_factor: Input should be a finite number"):
        OFAConfig.from_json(text)
