"""The command ``ofa-core train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import OFAError


class _SettingsHelp(argparse.HelpFormatter):
    """Help that ends with all settings, which are read only when it is asked for."""

    def format_help(self) -> str:
        from ..training.settings_help import help_text

        return f"{super().format_help()}\n{help_text()}"


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``train``."""
    parser = commands.add_parser(
        "train",
        help="fine-tune a model, or go on with a run that was interrupted",
        formatter_class=_SettingsHelp,
        usage="ofa-core train [-h] CONFIG.toml | --example NAME",
    )
    parser.add_argument("settings", type=Path, nargs="?", metavar="CONFIG.toml", help="what to learn from, and how")
    parser.add_argument("--example", metavar="NAME", help="print a recipe to begin with: refcoco, vqa, ...")
    parser.set_defaults(command=_train, goes_on_with=())


def _train(args: argparse.Namespace) -> int:
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
