"""Tables of names: fairseq's state-dict entries and ours, and what is dropped with the reason.

In a template ``{}`` stands for one segment between dots, an index or a leaf such as ``weight``, kept as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cached_property

from ofa_core.checkpoint.model_dir import list_names
from ofa_core.errors import CheckpointError

#: One layer of either stack, below ``encoder.layers.{}`` and ``decoder.layers.{}``.
_LAYER = {
    "self_attn.c_attn": "self_attn.head_scale",
    "self_attn.{}_proj.{}": "self_attn.{}_proj.{}",
    "self_attn_layer_norm.{}": "self_attn_norm.{}",
    "fc1.{}": "ffn.fc1.{}",
    "ffn_layernorm.{}": "ffn.norm.{}",
    "fc2.{}": "ffn.fc2.{}",
    "final_layer_norm.{}": "ffn_norm.{}",
    "w_resid": "residual_scale",
    "adapter.down_proj.{}": "ffn.adapter.down.{}",
    "adapter.up_proj.{}": "ffn.adapter.up.{}",
}
_ENCODER_LAYER = _LAYER | {"attn_ln.{}": "self_attn_out_norm.{}"}
_DECODER_LAYER = _LAYER | {
    "self_attn_ln.{}": "self_attn_out_norm.{}",
    "encoder_attn.c_attn": "cross_attn.head_scale",
    "encoder_attn.{}_proj.{}": "cross_attn.{}_proj.{}",
    "encoder_attn_layer_norm.{}": "cross_attn_norm.{}",
    "cross_attn_ln.{}": "cross_attn_out_norm.{}",
}
#: Entries of both stacks, below ``encoder`` and ``decoder``.
_STACK = {
    "layernorm_embedding.{}": "text_norm.{}",
    "embed_positions.weight": "text_positions.weight",
    "embed_image_positions.weight": "image_positions.weight",
    "pos_ln.{}": "text_position_norm.{}",
    "image_pos_ln.{}": "image_position_norm.{}",
    "token_rel_pos_table_list.{}.weight": "text_relative.tables.{}.weight",
    "image_rel_pos_table_list.{}.weight": "image_relative.tables.{}.weight",
    "layer_norm.{}": "final_norm.{}",
}
_ENCODER = _STACK | {
    "type_embedding.weight": "type_embedding.weight",
    "image_proj.{}": "image_proj.{}",
    "patch_layernorm_embedding.{}": "image_norm.{}",
    "pos_q_linear.{}": "position_bias.query.{}",
    "pos_k_linear.{}": "position_bias.key.{}",
    "encoder_prompt_encoder.embedding.weight": "prompt.embedding.weight",
    "encoder_prompt_encoder.trans.{}.{}": "prompt.projection.{}.{}",
    "embed_images.conv1.weight": "image_stem.conv1.weight",
    "embed_images.bn1.{}": "image_stem.bn1.{}",
    **{f"embed_images.layer{n}.{{}}.{{}}.{{}}": f"image_stem.stages.{n - 1}.{{}}.{{}}.{{}}" for n in (1, 2, 3)},
    **{
        f"embed_images.layer{n}.{{}}.downsample.{{}}.{{}}": f"image_stem.stages.{n - 1}.{{}}.downsample.{{}}.{{}}"
        for n in (1, 2, 3)
    },
}
_DECODER = _STACK | {
    "code_layernorm_embedding.{}": "code_norm.{}",
    "self_pos_q_linear.{}": "self_position_bias.query.{}",
    "self_pos_k_linear.{}": "self_position_bias.key.{}",
    "cross_pos_q_linear.{}": "cross_position_bias.query.{}",
    "cross_pos_k_linear.{}": "cross_position_bias.key.{}",
    "decoder_prompt_encoder.embedding.weight": "prompt.embedding.weight",
    "decoder_prompt_encoder.trans.{}.{}": "prompt.projection.{}.{}",
}

#: fairseq's template -> ours, for every entry that carries weights.
FAIRSEQ: dict[str, str] = {
    "encoder.embed_tokens.weight": "token_embedding.weight",
    "classification_heads.{}.dense.{}": "classification_heads.{}.dense.{}",
    "classification_heads.{}.out_proj.{}": "classification_heads.{}.out_proj.{}",
}
for _stack, _table, _layer in (("encoder", _ENCODER, _ENCODER_LAYER), ("decoder", _DECODER, _DECODER_LAYER)):
    FAIRSEQ |= {f"{_stack}.{theirs}": f"{_stack}.{ours}" for theirs, ours in _table.items()}
    FAIRSEQ |= {f"{_stack}.layers.{{}}.{theirs}": f"{_stack}.layers.{{}}.{ours}" for theirs, ours in _layer.items()}

#: Copies of the token embedding: they must be equal to it, and are stored once.
TIED = ("decoder.embed_tokens.weight", "decoder.output_projection.weight")

#: Entries that are dropped, with the reason.
DROPPED: dict[str, str] = {
    "encoder.version": "a format number of fairseq's",
    "decoder.version": "a format number of fairseq's",
    "encoder.token_rp_bucket": "computed from the bucket size",
    "decoder.token_rp_bucket": "computed from the bucket size",
    "encoder.image_rp_bucket": "computed from the bucket size",
    "decoder.image_rp_bucket": "computed from the bucket size",
    "decoder.image_position_idx": "computed from the code image size",
}


def reason_dropped(name: str) -> str:
    """The reason why an entry of :data:`DROPPED` or :data:`TIED` is not stored."""
    return DROPPED.get(name, "a copy of the token embedding")


class NameMap:
    """Renames by a table of templates. :meth:`inverse` renames back."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self.table = dict(table)

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        """Compiled when the first name is asked for: loading what was converted before asks for none."""
        return [
            (re.compile(re.escape(source).replace(r"\{\}", r"([^.]+)")), target)
            for source, target in self.table.items()
        ]

    def __call__(self, name: str) -> str | None:
        """The other side's name, or None where no template fits."""
        for pattern, target in self._patterns:
            if match := pattern.fullmatch(name):
                return target.format(*match.groups())
        return None

    def inverse(self) -> NameMap:
        """The map in the other direction."""
        return NameMap({target: source for source, target in self.table.items()})

    def all(self, names: Iterable[str], kind: str) -> dict[str, str]:
        """``{name: renamed}`` for all ``names``.

        Raises:
            CheckpointError: names that fit no template, or two that become one.
        """
        renamed = {name: self(name) for name in names}
        unknown = [name for name, new in renamed.items() if new is None]
        if unknown:
            raise CheckpointError(f"{kind}: {len(unknown)} entries are not part of OFA: {list_names(unknown)}")
        known = {name: new for name, new in renamed.items() if new is not None}
        if len(set(known.values())) < len(known):
            twice = sorted(name for name in known if list(known.values()).count(known[name]) > 1)
            raise CheckpointError(f"{kind}: several entries stand for the same weight: {list_names(twice)}")
        return known


FROM_FAIRSEQ = NameMap(FAIRSEQ)
TO_FAIRSEQ = FROM_FAIRSEQ.inverse()
