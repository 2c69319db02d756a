"""mmpretrain's names of the state dict.

Three of its names are fairseq's too, for other entries of equal shape: ``attn_ln``, ``self_attn_ln`` and
``cross_attn_ln`` are the norms before the attention there and behind it in fairseq. So the layout is told first, by
names that only one of the two has, and the table is applied whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from .names import DROPPED, FAIRSEQ, TIED, NameMap

#: fairseq's name of a layer's part, or of an entry of a stack, -> mmpretrain's. The others are the same.
_LAYER_PARTS: dict[str, dict[str, str]] = {
    "encoder": {
        "self_attn": "attn",
        "self_attn_layer_norm": "attn_ln",
        "attn_ln": "attn_mid_ln",
        "final_layer_norm": "ffn_ln",
        "ffn_layernorm": "ffn_mid_ln",
    },
    "decoder": {
        "self_attn_layer_norm": "self_attn_ln",
        "self_attn_ln": "self_attn_mid_ln",
        "encoder_attn": "cross_attn",
        "encoder_attn_layer_norm": "cross_attn_ln",
        "cross_attn_ln": "cross_attn_mid_ln",
        "final_layer_norm": "ffn_ln",
        "ffn_layernorm": "ffn_mid_ln",
    },
}
_STACK_PARTS = {
    "layer_norm": "final_ln",
    "layernorm_embedding": "embedding_ln",
    "type_embedding": "embed_type",
    "patch_layernorm_embedding": "image_embedding_ln",
    "code_layernorm_embedding": "code_embedding_ln",
}
#: Names that no other layout has, after the last dot but one or between dots.
_MARKS = ("attn_mid_ln", "self_attn_mid_ln", "cross_attn_mid_ln", "ffn_mid_ln", "final_ln", "embedding_ln")


def _renamed(template: str) -> str:
    parts = template.split(".")
    if parts[1:2] == ["layers"]:
        parts[3] = _LAYER_PARTS[parts[0]].get(parts[3], parts[3])
    elif parts[0] in _LAYER_PARTS:
        parts[1] = _STACK_PARTS.get(parts[1], parts[1])
    return ".".join(parts)


#: mmpretrain's template -> fairseq's, for every entry of fairseq's.
MMPRETRAIN: dict[str, str] = {_renamed(template): template for template in (*FAIRSEQ, *TIED, *DROPPED)}
FROM_MMPRETRAIN = NameMap(MMPRETRAIN)


def is_mmpretrain(state: Iterable[str]) -> bool:
    """Tell whether the entries of a state dict have mmpretrain's names: any that no other layout has."""
    return any(mark in name.split(".") for name in state for mark in _MARKS)


def state_from_mmpretrain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``state`` by fairseq's names.

    Raises:
        CheckpointError: entries that are not part of OFA.
    """
    return {theirs: state[name] for name, theirs in FROM_MMPRETRAIN.all(state, "the checkpoint").items()}
