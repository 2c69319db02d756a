"""fairseq's state dict to ours and back, checked entry by entry."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ofa_core.checkpoint.model_dir import check_state, list_names
from ofa_core.checkpoint.verification import not_finite
from ofa_core.config import OFAConfig
from ofa_core.errors import CheckpointError
from ofa_core.model.position_bias import code_position_ids, image_buckets, token_buckets

from .names import DROPPED, FROM_FAIRSEQ, TIED, TO_FAIRSEQ

_EMBEDDING = "encoder.embed_tokens.weight"


def from_fairseq(state: Mapping[str, Tensor], config: OFAConfig) -> dict[str, Tensor]:
    """Map fairseq's state dict to ours: every entry used or dropped for a listed reason, every weight filled once.

    Args:
        state: tensors by fairseq's names.
        config: the configuration that they belong to.

    Returns:
        The same tensors by our names.

    Raises:
        CheckpointError: entries that are missing, unknown, of another shape, not finite, or copies of the token
            embedding that differ from it.
    """
    _check_tied(state)
    weights = {name: tensor for name, tensor in state.items() if name not in DROPPED and name not in TIED}
    renamed = {ours: weights[theirs] for theirs, ours in FROM_FAIRSEQ.all(weights, "the checkpoint").items()}
    _check(renamed, config)
    return renamed


def to_fairseq(state: Mapping[str, Tensor], config: OFAConfig) -> dict[str, Tensor]:
    """Map our state dict to fairseq's, with the tied copies and the computed buffers.

    Args:
        state: tensors by our names.
        config: the configuration that they belong to.

    Returns:
        The same tensors by fairseq's names.

    Raises:
        CheckpointError: as :func:`from_fairseq`.
    """
    order = _check(state, config)  # of the network, whatever that of a file is
    renamed = {theirs: state[ours] for ours, theirs in TO_FAIRSEQ.all(order, "the model").items()}
    embedding = renamed[_EMBEDDING]
    return renamed | dict.fromkeys(TIED, embedding) | _computed_buffers(config, embedding.dtype)


def _check(state: Mapping[str, Tensor], config: OFAConfig) -> list[str]:
    """The names of the network's entries in its order, once ``state`` is found to hold exactly these."""
    names = list(check_state(state, config).state_dict())
    broken = not_finite(state)
    if broken:
        raise CheckpointError(f"{len(broken)} entries hold NaN or infinity: {list_names(broken)}")
    return names


def _check_tied(state: Mapping[str, Tensor]) -> None:
    for name in TIED:
        if name in state and _EMBEDDING in state and not torch.equal(state[name], state[_EMBEDDING]):
            raise CheckpointError(f"{name} differs from {_EMBEDDING}, of which it should be a copy")


def _computed_buffers(config: OFAConfig, dtype: torch.dtype) -> dict[str, Tensor]:
    """The entries that fairseq's model computes and stores; exactly those that :data:`DROPPED` lists."""
    text = torch.arange(max(config.max_source_positions, config.max_target_positions))
    patches = torch.arange(config.image_bucket_size**2 + 1)
    of_text = token_buckets(text, text, config.token_bucket_size, len(text))
    of_patches = image_buckets(patches, patches, config.image_bucket_size)
    codes = torch.arange(config.max_target_positions + 2)
    version = torch.tensor([3.0], dtype=dtype)  # fairseq casts it with the weights
    return {
        "encoder.version": version,
        "decoder.version": version,
        "encoder.token_rp_bucket": of_text,
        "decoder.token_rp_bucket": of_text,
        "encoder.image_rp_bucket": of_patches,
        "decoder.image_rp_bucket": of_patches,
        "decoder.image_position_idx": code_position_ids(codes, config.code_image_size, config.image_bucket_size),
    }
