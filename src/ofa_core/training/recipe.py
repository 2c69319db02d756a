"""The recipes of training: tables of defaults, by dotted names of settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

#: Numbers that a run gives: the original's, or those of torch's own AdamW and of what was learned since.
Recipe = Literal["ofa", "modern"]

#: Settings of the recipe ``ofa`` where nothing else is said; the defaults of the fields are the recipe ``modern``.
ORIGINAL: Mapping[str, Any] = {
    "loss.rdrop_rule": "original",
    "loss.drop_worst_rule": "original",
    "optimizer.eps_rule": "uncorrected",
    "optimizer.decay": "all",
    "optimizer.warmup_from_zero": True,
    "freeze": ("as_original",),
    "freeze_batch_norm_affine": True,
    "ema_start": 0,
    "ema_embedding": 3,
    "channels_last": False,
}
#: The same with autocast: the original's half-precision runs average a copy that has each weight once.
ORIGINAL_AUTOCAST: Mapping[str, Any] = {**ORIGINAL, "ema_embedding": 1}
#: Settings that runs of earlier versions do not know: where they have their defaults, such a run can go on.
ADDED = (
    *(name for name in ORIGINAL if name != "freeze"),
    "loss.ignore_eos",
    "loss.ignore_prefix_size",
    "loss.per_sentence",
    "optimizer.warmup_steps",
    "optimizer.end_lr",
    "optimizer.force_anneal",
    "epochs",
    "lora",
    "loss.self_critical",
    "loss.encouraging",
)
