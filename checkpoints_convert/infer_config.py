"""The configuration of a fairseq checkpoint: structure from the tensors' shapes, the rest from the stored arguments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from ofa_core.config import STEM_DEPTHS, ClassificationHeadConfig, OFAConfig, PromptConfig, TaskSettings
from ofa_core.errors import CheckpointError, first_problem, shown

Shapes = Mapping[str, tuple[int, ...]]

#: Arguments that shapes do not show -> (our field, how the value is turned).
_FROM_ARGUMENTS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "attn_scale_factor": ("attn_scale_factor", float),
    "code_image_size": ("code_image_size", int),
    "orig_patch_image_size": ("orig_patch_image_size", int),
    "interpolate_position": ("interpolate_position", bool),
    "entangle_position_embedding": ("entangle_encoder_positions", bool),
    "disable_entangle": ("entangle_decoder_positions", lambda disabled: not disabled),
    "dropout": ("dropout", float),
    "attention_dropout": ("attention_dropout", float),
    "activation_dropout": ("activation_dropout", float),
    "pooler_dropout": ("pooler_dropout", float),
    "encoder_drop_path_rate": ("encoder_drop_path", float),
    "decoder_drop_path_rate": ("decoder_drop_path", float),
    "resnet_drop_path_rate": ("stem_drop_path", float),
}

#: Arguments that repeat what shapes show: what each must be, given the configuration read off the shapes.
_CONFIRMED: dict[str, Callable[[OFAConfig], Any]] = {
    "encoder_embed_dim": lambda c: c.embed_dim,
    "decoder_embed_dim": lambda c: c.embed_dim,
    "encoder_ffn_embed_dim": lambda c: c.ffn_dim,
    "decoder_ffn_embed_dim": lambda c: c.ffn_dim,
    "encoder_layers": lambda c: c.encoder_layers,
    "decoder_layers": lambda c: c.decoder_layers,
    "encoder_attention_heads": lambda c: c.num_heads,
    "decoder_attention_heads": lambda c: c.num_heads,
    "token_bucket_size": lambda c: c.token_bucket_size,
    "image_bucket_size": lambda c: c.image_bucket_size,
    "patch_layernorm_embedding": lambda c: c.image_layernorm,
    "code_layernorm_embedding": lambda c: c.code_layernorm,
    "add_type_embedding": lambda c: c.type_embedding,
    "scale_attn": lambda c: c.scale_attn,
    "scale_fc": lambda c: c.scale_fc,
    "scale_heads": lambda c: c.scale_heads,
    "scale_resids": lambda c: c.scale_resids,
    "adapter": lambda c: c.adapter_dim is not None,
    "encoder_prompt": lambda c: c.encoder_prompt is not None,
    "decoder_prompt": lambda c: c.decoder_prompt is not None,
    "vocab_size": lambda c: c.vocab_size,
}

#: Arguments for which OFA's models know one value only.
_FIXED: dict[str, Any] = {
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "layernorm_embedding": True,
    "share_all_embeddings": True,
    "share_decoder_input_output_embed": True,
    "no_scale_embedding": True,
    "activation_fn": "gelu",
    "pooler_activation_fn": "tanh",
    "no_cross_attention": False,
    "cross_self_attention": False,
}

#: Settings that fairseq's model reads besides; OFA leaves all of them at these values.
UNUSED: dict[str, Any] = {
    "encoder_layerdrop": 0,
    "decoder_layerdrop": 0,
    "encoder_layers_to_keep": None,
    "decoder_layers_to_keep": None,
    "quant_noise_pq": 0,
    "quant_noise_pq_block_size": 8,
    "quant_noise_scalar": 0,
    "min_params_to_wrap": 100_000_000,
    "no_token_positional_embeddings": False,
    "encoder_embed_path": None,
    "decoder_embed_path": None,
    "encoder_learned_pos": True,
    "decoder_learned_pos": True,
    "relu_dropout": 0.0,
    "adaptive_softmax_cutoff": None,
    "adaptive_softmax_dropout": 0,
    "adaptive_input": False,
    "tie_adaptive_weights": False,
    "freeze_encoder_embedding": False,
    "freeze_decoder_embedding": False,
    "sync_bn": False,
    "bitfit": False,
    "checkpoint_activations": False,
    "offload_activations": False,
}

#: Settings of the task that only we have. Each is an argument of the model of its name, where a model has any.
OWN = ("prompts", "learned", "search", "calibration")

#: Stored task settings -> our field. A value of None means that the task leaves it at its default.
_TASK: dict[str, str] = {
    "_name": "name",
    "patch_image_size": "image_size",
    "max_image_size": "max_image_size",
    "num_bins": "num_bins",
    "code_dict_size": "code_dict_size",
    "prompt_type": "prompt_type",
    "add_object": "add_object",
    "max_object_length": "max_objects",
    "imagenet_default_mean_and_std": "imagenet_normalization",
    "max_src_length": "max_source_tokens",
    "max_tgt_length": "max_target_tokens",
}


def config_from_fairseq(
    state: Mapping[str, Tensor], args: Mapping[str, Any] | None = None, task: Mapping[str, Any] | None = None
) -> OFAConfig:
    """Infer the configuration that fits a fairseq state dict.

    Args:
        state: tensors by fairseq's names; only their shapes are read.
        args: the stored model arguments; without them, what shapes do not show is as in the released models.
        task: the stored task settings; without them ``args`` is searched, since older files keep both in one place.

    Returns:
        The configuration.

    Raises:
        CheckpointError: the tensors are not an OFA, or the arguments contradict them or ask for what OFA has not.
    """
    args = args or {}
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    try:
        fields = _structure(shapes)
        for argument, (field, turned) in _FROM_ARGUMENTS.items():
            if args.get(argument) is not None:
                try:
                    fields[field] = turned(args[argument])
                except (TypeError, ValueError, OverflowError):
                    raise CheckpointError(
                        f"the stored argument {argument}={shown(args[argument])} makes no sense"
                    ) from None
        settings = task_settings(args if task is None else task).model_dump()
        settings |= {name: value for name in OWN if (value := args.get(name))}
        config = OFAConfig(**fields, task=TaskSettings.model_validate(settings))
    except ValidationError as error:
        problem = first_problem(error, "sizes do not fit together", show_input=True)
        raise CheckpointError(f"the checkpoint's {problem}") from None
    _check_arguments(config, args)
    return config


def task_settings(stored: Mapping[str, Any]) -> TaskSettings:
    """The task settings in ``stored``; what is missing or None keeps its default."""
    fields = {ours: stored[theirs] for theirs, ours in _TASK.items() if stored.get(theirs) is not None}
    if isinstance(stored.get("task"), str):  # arguments and settings in one place, where _name is the model's
        fields["name"] = stored["task"]
    return TaskSettings(**fields)


def arguments_of(config: OFAConfig) -> dict[str, Any]:
    """The fairseq model arguments of ``config``: what :func:`config_from_fairseq` reads, in its own words."""
    values = config.model_dump()
    args = UNUSED | {name: of(config) for name, of in _CONFIRMED.items()} | _FIXED
    for argument, (field, turned) in _FROM_ARGUMENTS.items():
        args[argument] = turned(values[field])  # each of them turns its own result back
    depths = {depth: name for name, depth in STEM_DEPTHS.items()}
    for side, prompt in (("encoder", config.encoder_prompt), ("decoder", config.decoder_prompt)):
        args[f"{side}_prompt_type"] = "prefix"
        if prompt is not None:
            args[f"{side}_prompt_length"] = prompt.length
            args[f"{side}_prompt_projection"] = prompt.projection_dim is not None
            args[f"{side}_prompt_dim"] = prompt.projection_dim
    return (
        args
        | {
            "arch": "ofa_base",
            "decoder_input_dim": config.embed_dim,
            "decoder_output_dim": config.embed_dim,
            "resnet_type": depths.get(config.stem_depths),
            "adapter_dim": config.adapter_dim,
            "pooler_classifier": "mlp",
            "max_source_positions": config.max_source_positions,
            "max_target_positions": config.max_target_positions,
        }
        | {name: value for name in OWN if (value := config.task.model_dump(mode="json")[name])}
    )


def task_of(config: OFAConfig) -> dict[str, Any]:
    """The fairseq task settings of ``config``."""
    values = config.task.model_dump()
    return {theirs: values[ours] for theirs, ours in _TASK.items()}


def _check_arguments(config: OFAConfig, args: Mapping[str, Any]) -> None:
    """Raise where the stored arguments say something else than the tensors."""
    expected = {name: of(config) for name, of in _CONFIRMED.items()} | _FIXED
    depths = STEM_DEPTHS.get(str(args.get("resnet_type")))
    if depths is not None and depths != config.stem_depths:
        raise CheckpointError(
            f"the stored argument resnet_type={args['resnet_type']} means {depths} blocks, "
            f"the tensors hold {config.stem_depths}"
        )
    for name, value in expected.items():
        if args.get(name) is not None and args[name] != value:
            raise CheckpointError(
                f"the stored argument {name}={shown(args[name])} contradicts the tensors, which say {value!r}"
                if name in _CONFIRMED
                else f"the stored argument {name}={shown(args[name])} is not supported; OFA's models have {value!r}"
            )
    for side, prompt in (("encoder", config.encoder_prompt), ("decoder", config.decoder_prompt)):
        kind = args.get(f"{side}_prompt_type")
        if prompt is not None and kind not in (None, "prefix"):
            raise CheckpointError(f"{side} prompts of type {shown(kind)} are not supported; 'prefix' is")


def _structure(shapes: Shapes) -> dict[str, Any]:
    """Everything structural, read off the shapes."""
    vocab_size, embed_dim = _shape(shapes, "encoder.embed_tokens.weight", 2)
    relative = _shape(shapes, "encoder.token_rel_pos_table_list.0.weight", 2)
    image_positions = _shape(shapes, "encoder.embed_image_positions.weight", 2)[0]
    first = "encoder.layers.0."
    return {
        "embed_dim": embed_dim,
        "ffn_dim": _shape(shapes, first + "fc1.weight", 2)[0],
        "encoder_layers": _count(shapes, r"encoder\.layers\.(\d+)\."),
        "decoder_layers": _count(shapes, r"decoder\.layers\.(\d+)\."),
        "num_heads": relative[1],
        "stem_depths": tuple(_count(shapes, rf"encoder\.embed_images\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3)),
        "vocab_size": vocab_size,
        "max_source_positions": _shape(shapes, "encoder.embed_positions.weight", 2)[0] - 2,
        "max_target_positions": _shape(shapes, "decoder.embed_positions.weight", 2)[0] - 2,
        "token_bucket_size": (relative[0] + 1) // 2,
        "image_bucket_size": math.isqrt(max(image_positions - 1, 0)),
        "image_layernorm": "encoder.patch_layernorm_embedding.weight" in shapes,
        "code_layernorm": "decoder.code_layernorm_embedding.weight" in shapes,
        "type_embedding": "encoder.type_embedding.weight" in shapes,
        "scale_attn": first + "attn_ln.weight" in shapes,
        "scale_fc": first + "ffn_layernorm.weight" in shapes,
        "scale_heads": first + "self_attn.c_attn" in shapes,
        "scale_resids": first + "w_resid" in shapes,
        "adapter_dim": _rows(shapes, first + "adapter.down_proj.weight"),
        "encoder_prompt": _prompt(shapes, "encoder.encoder_prompt_encoder."),
        "decoder_prompt": _prompt(shapes, "decoder.decoder_prompt_encoder."),
        "classification_heads": _classification_heads(shapes),
    }


def _shape(shapes: Shapes, name: str, dims: int) -> tuple[int, ...]:
    if name not in shapes:
        raise CheckpointError(f"this is not a checkpoint of OFA: it has no entry {name}")
    if len(shapes[name]) != dims:
        raise CheckpointError(f"{name} has shape {list(shapes[name])}; it should have {dims} dimensions")
    return shapes[name]


def _rows(shapes: Shapes, name: str) -> int | None:
    """The height of an optional matrix, None where there is none."""
    return _shape(shapes, name, 2)[0] if name in shapes else None


def _count(shapes: Shapes, pattern: str) -> int:
    """Count the indices, from 0, that occur where ``pattern`` has its group."""
    found = {int(match[1]) for name in shapes if (match := re.match(pattern, name))}
    if found != set(range(len(found))) or not found:
        what = pattern.replace(r"(\d+)", "N").replace("\\", "")
        raise CheckpointError(f"entries {what} should be numbered from 0, found {sorted(found)}")
    return len(found)


def _prompt(shapes: Shapes, prefix: str) -> PromptConfig | None:
    length = _rows(shapes, prefix + "embedding.weight")
    hidden = _rows(shapes, prefix + "trans.0.weight")
    return None if length is None else PromptConfig(length=length, projection_dim=hidden)


def _classification_heads(shapes: Shapes) -> dict[str, ClassificationHeadConfig]:
    heads = {}
    for name in shapes:
        if match := re.fullmatch(r"classification_heads\.([^.]+)\.out_proj\.weight", name):
            inner_dim = _rows(shapes, f"classification_heads.{match[1]}.dense.weight")
            heads[match[1]] = ClassificationHeadConfig(num_classes=_shape(shapes, name, 2)[0], inner_dim=inner_dim)
    return heads
