from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from reference import OWN_GOLDEN, forward_cases, golden, quick_config, random_state
from torch import Tensor

from checkpoints_convert import config_from_fairseq, to_fairseq
from checkpoints_convert.infer_config import arguments_of, task_of, task_settings
from ofa_core import CheckpointError, OFAConfig, TaskSettings
from ofa_core.config import PRESETS, Calibration, ClassificationHeadConfig, PromptConfig

CASES = forward_cases(OWN_GOLDEN)
#: What no shape shows.
HIDDEN = {
    "attn_scale_factor",
    "code_image_size",
    "orig_patch_image_size",
    "interpolate_position",
    "entangle_encoder_positions",
    "entangle_decoder_positions",
    "dropout",
    "attention_dropout",
    "activation_dropout",
    "pooler_dropout",
    "encoder_drop_path",
    "decoder_drop_path",
    "stem_drop_path",
    "task",
}
#: The reference cases whose arguments differ from the released models' in what no shape shows.
UNUSUAL = {
    "forward_nano_plain": {"entangle_decoder_positions": True},
    "forward_nano_interpolate": {"interpolate_position": True, "orig_patch_image_size": 64},
}

Shapes = dict[str, tuple[int, ...]]


def laid_out(shapes: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}


def case_of(name: str) -> tuple[Shapes, dict[str, Any]]:
    case = golden(f"{name}.json")
    return case["shapes"], case["meta"]["args"]


def nano(name: str = "nano", **args: Any) -> OFAConfig:
    """The configuration of a reference case with some arguments changed."""
    shapes, stored = case_of(f"forward_{name}")
    return config_from_fairseq(laid_out(shapes), stored | args)


# --- structure from shapes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_shapes_alone_give_all_that_they_show(name: str) -> None:
    shapes, args = case_of(name)
    alone = config_from_fairseq(laid_out(shapes))
    told = config_from_fairseq(laid_out(shapes), args)
    assert told == alone.model_copy(update=UNUSUAL.get(name, {}))
    assert set(UNUSUAL.get(name, {})) <= HIDDEN


@pytest.mark.parametrize("name", CASES)
def test_shapes_alone_agree_with_the_stored_arguments(name: str) -> None:
    shapes, args = case_of(name)
    config = config_from_fairseq(laid_out(shapes))
    stems = {"resnet18": (2, 2, 2), "resnet50": (3, 4, 6), "resnet101": (3, 4, 23), "resnet152": (3, 8, 36)}
    assert config.embed_dim == args["encoder_embed_dim"]
    assert config.ffn_dim == args["encoder_ffn_embed_dim"]
    assert (config.encoder_layers, config.decoder_layers) == (args["encoder_layers"], args["decoder_layers"])
    assert config.num_heads == args["encoder_attention_heads"]
    assert config.stem_depths == stems[args["resnet_type"]]
    assert config.vocab_size == shapes["encoder.embed_tokens.weight"][0]
    assert config.max_source_positions == args["max_source_positions"]
    assert config.max_target_positions == args["max_target_positions"]
    assert config.token_bucket_size == args["token_bucket_size"]
    assert config.image_bucket_size == args["image_bucket_size"]
    assert config.image_layernorm == args["patch_layernorm_embedding"]
    assert config.code_layernorm == args["code_layernorm_embedding"]
    assert config.type_embedding == args["add_type_embedding"]
    for switch in ("scale_attn", "scale_fc", "scale_heads", "scale_resids"):
        assert getattr(config, switch) == args[switch], switch
    assert config.adapter_dim == args.get("adapter_dim")
    for side, prompt in (("encoder", config.encoder_prompt), ("decoder", config.decoder_prompt)):
        projection = args[f"{side}_prompt_dim"] if args[f"{side}_prompt_projection"] else None
        expected = PromptConfig(length=args[f"{side}_prompt_length"], projection_dim=projection)
        assert prompt == (expected if args[f"{side}_prompt"] else None), side


@pytest.mark.parametrize("size", PRESETS)
def test_the_released_sizes_are_the_presets(size: str) -> None:
    shapes, args = case_of(f"forward_{size}")
    assert config_from_fairseq(laid_out(shapes), args) == OFAConfig.preset(size)


def test_classification_heads_are_found_by_name() -> None:
    expected = {"cls": ClassificationHeadConfig(num_classes=7, inner_dim=16)}
    assert nano("nano_head").classification_heads == expected
    shapes, args = case_of("forward_nano")
    linear = shapes | {"classification_heads.x.out_proj.weight": (3, 32), "classification_heads.x.out_proj.bias": (3,)}
    config = config_from_fairseq(laid_out(linear), args)
    assert config.classification_heads == {"x": ClassificationHeadConfig(num_classes=3)}


# --- there and back ------------------------------------------------------------------------------------------------

SWITCHED: dict[str, dict[str, Any]] = {
    "released": {},
    "image_layernorm": {"image_layernorm": False},
    "code_layernorm": {"code_layernorm": False},
    "type_embedding": {"type_embedding": False},
    "scale_attn": {"scale_attn": False},
    "scale_fc": {"scale_fc": False},
    "scale_heads": {"scale_heads": False},
    "scale_resids": {"scale_resids": True},
    "adapter": {"adapter_dim": 5},
    "entangled encoder": {"entangle_encoder_positions": True},
    "entangled decoder": {"entangle_decoder_positions": True},
    "interpolated": {"interpolate_position": True, "orig_patch_image_size": 64},
    "scale factor and codes": {"attn_scale_factor": 3.5, "code_image_size": 256},
    "encoder prompt": {"encoder_prompt": PromptConfig(length=3)},
    "decoder prompt": {"decoder_prompt": PromptConfig(length=4, projection_dim=6)},
    "heads": {
        "classification_heads": {
            "deep": ClassificationHeadConfig(num_classes=3, inner_dim=4),
            "flat": ClassificationHeadConfig(num_classes=2),
        }
    },
    "sizes": {
        "embed_dim": 48,
        "ffn_dim": 40,
        "num_heads": 6,
        "encoder_layers": 3,
        "decoder_layers": 1,
        "stem_depths": (2, 1, 3),
        "max_source_positions": 60,
        "max_target_positions": 50,
        "token_bucket_size": 7,
        "image_bucket_size": 5,
        "vocab_size": 77,
    },
    "named stem": {"stem_depths": (2, 2, 2)},
    "dropout": {
        "dropout": 0.1,
        "attention_dropout": 0.2,
        "activation_dropout": 0.3,
        "pooler_dropout": 0.4,
        "encoder_drop_path": 0.5,
        "decoder_drop_path": 0.6,
        "stem_drop_path": 0.7,
    },
    "task": {
        "task": TaskSettings(
            name="vqa_gen",
            image_size=480,
            max_image_size=500,
            num_bins=100,
            code_dict_size=10,
            prompt_type="prev_output",
            add_object=True,
            max_objects=7,
            imagenet_normalization=True,
            max_source_tokens=80,
            max_target_tokens=20,
            prompts={"caption": " what is it?"},
            learned=("caption", "guesswhat_oracle"),
            calibration=Calibration(overlap=((0.1, 0.2), (0.8, 0.9)), least_present=0.3),
            search={"num_beams": 3, "normalize_scores": False},
        )
    },
}


def test_the_switched_configurations_change_every_field() -> None:
    changed = {field for changes in SWITCHED.values() for field in changes}
    assert changed == set(OFAConfig.model_fields)
    # Names of tokens are no argument of fairseq's; they come from --extra-tokens.
    assert task_fields_changed() == set(TaskSettings.model_fields) - {"extra_tokens"}


def task_fields_changed() -> set[str]:
    default, changed = TaskSettings(), SWITCHED["task"]["task"]
    return {name for name in TaskSettings.model_fields if getattr(default, name) != getattr(changed, name)}


@pytest.mark.parametrize("name", SWITCHED)
def test_a_configuration_survives_as_fairseqs_tensors_arguments_and_task(name: str) -> None:
    config = quick_config(**SWITCHED[name])
    state = to_fairseq(random_state(config), config)
    assert config_from_fairseq(state, arguments_of(config), task_of(config)) == config


# --- contradictions ------------------------------------------------------------------------------------------------

#: Case, argument, a value that its tensors contradict.
CONTRADICTIONS = [
    ("nano", "encoder_embed_dim", 64),
    ("nano", "decoder_embed_dim", 64),
    ("nano", "encoder_ffn_embed_dim", 65),
    ("nano", "decoder_ffn_embed_dim", 65),
    ("nano", "encoder_layers", 3),
    ("nano", "decoder_layers", 1),
    ("nano", "encoder_attention_heads", 8),
    ("nano", "decoder_attention_heads", 8),
    ("nano", "token_bucket_size", 128),
    ("nano", "image_bucket_size", 41),
    ("nano", "resnet_type", "resnet101"),
    ("nano", "patch_layernorm_embedding", False),
    ("nano", "code_layernorm_embedding", False),
    ("nano", "add_type_embedding", False),
    ("nano", "scale_attn", False),
    ("nano", "scale_fc", False),
    ("nano", "scale_heads", False),
    ("nano", "scale_resids", True),
    ("nano", "adapter", True),
    ("nano", "encoder_prompt", True),
    ("nano", "decoder_prompt", True),
    ("nano_plain", "patch_layernorm_embedding", True),
    ("nano_plain", "code_layernorm_embedding", True),
    ("nano_plain", "add_type_embedding", True),
    ("nano_plain", "scale_attn", True),
    ("nano_plain", "scale_fc", True),
    ("nano_plain", "scale_heads", True),
    ("nano_scale_resids", "scale_resids", False),
    ("nano_adapter", "adapter", False),
    ("nano_prefix_prompt", "encoder_prompt", False),
    ("nano_prefix_prompt", "decoder_prompt", False),
]


@pytest.mark.parametrize(("case", "argument", "wrong"), CONTRADICTIONS)
def test_an_argument_that_contradicts_the_tensors_is_named(case: str, argument: str, wrong: object) -> None:
    with pytest.raises(CheckpointError, match=rf"argument {argument}={wrong!r} .*the tensors|{argument}={wrong} means"):
        nano(case, **{argument: wrong})


#: Arguments for which the original knows more values than OFA's models have.
UNSUPPORTED = [
    ("activation_fn", "relu"),
    ("pooler_activation_fn", "relu"),
    ("no_scale_embedding", False),
    ("encoder_normalize_before", False),
    ("decoder_normalize_before", False),
    ("layernorm_embedding", False),
    ("share_all_embeddings", False),
    ("share_decoder_input_output_embed", False),
    ("no_cross_attention", True),
    ("cross_self_attention", True),
]


@pytest.mark.parametrize(("argument", "value"), UNSUPPORTED)
def test_an_argument_that_ofa_has_no_code_for_is_refused(argument: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=f"argument {argument}={value!r} is not supported"):
        nano(**{argument: value})


@pytest.mark.parametrize("side", ["encoder", "decoder"])
def test_a_prompt_that_is_no_prefix_is_refused(side: str) -> None:
    with pytest.raises(CheckpointError, match=f"{side} prompts of type 'prompt' are not supported; 'prefix' is"):
        nano("nano_prefix_prompt", **{f"{side}_prompt_type": "prompt"})


def test_the_type_of_a_prompt_that_is_not_there_does_not_matter() -> None:
    assert nano(encoder_prompt_type="prompt", decoder_prompt_type="prompt") == nano()


def test_arguments_of_none_are_as_if_they_were_missing() -> None:
    _, args = case_of("forward_nano")
    assert nano(**dict.fromkeys(args)) == nano()


def test_unknown_arguments_do_not_matter() -> None:
    assert nano(resnet_type="resnet1000", lr=[1e-4], some_future_switch=True) == nano()


@pytest.mark.parametrize(
    ("argument", "value"), [("dropout", "much"), ("dropout", 1.5), ("code_image_size", [1]), ("attn_scale_factor", 0)]
)
def test_an_argument_of_a_senseless_value_is_named(argument: str, value: object) -> None:
    with pytest.raises(CheckpointError, match=argument):
        nano(**{argument: value})


# --- task settings -------------------------------------------------------------------------------------------------


def test_task_settings_come_from_the_stored_task_where_there_is_one() -> None:
    shapes, args = case_of("forward_nano")
    args |= {"patch_image_size": 480, "num_bins": 500, "task": "vqa_gen", "prompt_type": "src"}
    from_args = config_from_fairseq(laid_out(shapes), args).task
    assert from_args == TaskSettings(name="vqa_gen", image_size=480, num_bins=500, prompt_type="src")
    from_task = config_from_fairseq(laid_out(shapes), args, {"_name": "refcoco", "patch_image_size": 384}).task
    assert from_task == TaskSettings(name="refcoco", image_size=384)


def test_task_settings_of_none_keep_their_defaults() -> None:
    stored = {"_name": "caption", "prompt_type": None, "max_image_size": None, "add_object": None, "data": "train.tsv"}
    assert task_settings(stored) == TaskSettings(name="caption")
    assert task_settings({}) == TaskSettings()


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        ({"prompt_type": "before"}, "prompt_type is 'before'"),
        ({"patch_image_size": 0}, "image_size is 0"),
        ({"num_bins": "many"}, "num_bins is 'many'"),
    ],
)
def test_senseless_task_settings_are_named(stored: dict[str, Any], message: str) -> None:
    shapes, args = case_of("forward_nano")
    with pytest.raises(CheckpointError, match=message):
        config_from_fairseq(laid_out(shapes), args, stored)


# --- tensors that are no OFA ---------------------------------------------------------------------------------------

ANCHORS = [
    "encoder.embed_tokens.weight",
    "encoder.embed_positions.weight",
    "decoder.embed_positions.weight",
    "encoder.embed_image_positions.weight",
    "encoder.token_rel_pos_table_list.0.weight",
    "encoder.layers.0.fc1.weight",
]


@pytest.mark.parametrize("anchor", ANCHORS)
def test_without_an_entry_every_ofa_has_it_is_not_a_checkpoint_of_ofa(anchor: str) -> None:
    shapes, args = case_of("forward_nano")
    del shapes[anchor]
    with pytest.raises(CheckpointError, match=f"not a checkpoint of OFA: it has no entry {re.escape(anchor)}"):
        config_from_fairseq(laid_out(shapes), args)


@pytest.mark.parametrize("anchor", ANCHORS)
@pytest.mark.parametrize("shape", [(), (32,), (32, 4, 1)])
def test_an_entry_of_the_wrong_dimensions_is_named(anchor: str, shape: tuple[int, ...]) -> None:
    shapes, args = case_of("forward_nano")
    expected = rf"{re.escape(anchor)} has shape {re.escape(str(list(shape)))}; it should have 2 dimensions"
    with pytest.raises(CheckpointError, match=expected):
        config_from_fairseq(laid_out(shapes | {anchor: shape}), args)


def without(start: str) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {name: shape for name, shape in shapes.items() if not name.startswith(start)}


def renamed(old: str, new: str) -> Callable[[Shapes], Shapes]:
    return lambda shapes: {name.replace(old, new): shape for name, shape in shapes.items()}


NUMBERING: dict[str, tuple[Callable[[Shapes], Shapes], str]] = {
    "a gap": (renamed("encoder.layers.1.", "encoder.layers.2."), r"encoder\.layers\..*found \[0, 2\]"),
    "from one": (
        lambda shapes: renamed("decoder.layers.0.", "decoder.layers.2.")(shapes),
        r"decoder\.layers\..*found \[1, 2\]",
    ),
    "no decoder": (without("decoder.layers."), r"decoder\.layers\..*found \[\]"),
    "a stage of the stem": (without("encoder.embed_images.layer2."), r"encoder\.embed_images\.layer2\..*found \[\]"),
    "a block of the stem": (without("encoder.embed_images.layer3.0."), r"embed_images\.layer3\..*found \[1\]"),
}


@pytest.mark.parametrize("name", NUMBERING)
def test_odd_numbers_of_layers_are_shown(name: str) -> None:
    change, message = NUMBERING[name]
    shapes, args = case_of("forward_nano")
    with pytest.raises(CheckpointError, match=message) as caught:
        config_from_fairseq(laid_out(change(shapes)), args)
    assert "(d+)" not in str(caught.value)  # a reader should see a name, not the rest of a regular expression


@pytest.mark.parametrize(
    ("entry", "shape"),
    [
        ("encoder.embed_image_positions.weight", (0, 32)),
        ("encoder.embed_positions.weight", (1, 32)),
        ("encoder.token_rel_pos_table_list.0.weight", (511, 0)),
        ("encoder.layers.0.adapter.down_proj.weight", ()),
        ("encoder.encoder_prompt_encoder.embedding.weight", (0, 32)),
        ("encoder.encoder_prompt_encoder.embedding.weight", ()),
        ("classification_heads.cls.out_proj.weight", (0, 32)),
        ("classification_heads.cls.out_proj.weight", ()),
    ],
)
def test_shapes_that_no_model_can_have_are_an_error_about_the_checkpoint(entry: str, shape: tuple[int, ...]) -> None:
    shapes, _ = case_of("forward_nano")
    with pytest.raises(CheckpointError) as caught:
        config_from_fairseq(laid_out(shapes | {entry: shape}))
    assert "\n" not in str(caught.value)


def test_heads_that_do_not_divide_the_width_are_told_in_one_short_line() -> None:
    shapes, _ = case_of("forward_nano")
    with pytest.raises(CheckpointError, match="embed_dim 32 is not a multiple of num_heads 5") as caught:
        config_from_fairseq(laid_out(shapes | {"encoder.token_rel_pos_table_list.0.weight": (511, 5)}))
    assert len(str(caught.value)) < 200
