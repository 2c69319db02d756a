"""The parser of ``ofa-core train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..options import HelpFormatter


class _SettingsHelp(HelpFormatter):
    """Help that ends with all settings, which are read only when it is asked for."""

    def format_help(self) -> str:
        from ...training.settings_help import help_text

        return f"{super().format_help()}\n{help_text()}"


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``train``."""
    parser = commands.add_parser(
        "train",
        help="fine-tune a model, or go on with a run that was interrupted",
        formatter_class=_SettingsHelp,
        usage="ofa-core train [-h] CONFIG.toml | --example NAME",
        examples=(
            "ofa-core train --example refcoco > refcoco.toml",
            "ofa-core train refcoco.toml",
            "torchrun --nproc-per-node 8 -m ofa_core train refcoco.toml",
        ),
    )
    parser.add_argument("settings", type=Path, nargs="?", metavar="CONFIG.toml", help="what to learn from, and how")
    parser.add_argument("--example", metavar="NAME", help="print a recipe to begin with: refcoco, vqa, ...")
    parser.set_defaults(command=_train, goes_on_with=())


def _train(args: argparse.Namespace) -> int:
    from ..train import train

    return train(args)
