"""The command ``ofa-core train``."""

from __future__ import annotations

import argparse

from ..errors import OFAError


def train(args: argparse.Namespace) -> int:
    """Train by the recipe ``args.settings``, or print one."""
    if (args.settings is None) == (args.example is None):
        raise OFAError("train takes a CONFIG.toml, or --example NAME, which prints one")
    if args.example is not None:
        from ..training.settings_help import recipe_text

        print(recipe_text(args.example), end="")
        return 0
    from ..training.outcome import outcome_lines
    from ..training.run import trained
    from ..training.settings import TrainingSettings

    trainer = trained(TrainingSettings.from_toml(args.settings))
    if trainer.process.is_rank0:
        print("\n".join(outcome_lines(trainer)))
    return 0
