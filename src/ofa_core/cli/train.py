"""The command ``ofa-core train``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..training.run import train
from ..training.settings import TrainingSettings
from ..training.stored import ADAPTER, LAST
from ..utils.printable import printable


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``train``."""
    parser = commands.add_parser("train", help="fine-tune a model, or go on with a run that was interrupted")
    parser.add_argument("settings", type=Path, metavar="CONFIG.toml", help="what to learn from, and how")
    parser.set_defaults(command=_train, goes_on_with=())


def _train(args: argparse.Namespace) -> int:
    settings = TrainingSettings.from_toml(args.settings)
    train(settings)
    print(f"the model is in {printable(str(settings.out / LAST))}")
    if settings.lora is not None:
        print(f"the adapter alone is in {printable(str(settings.out / (LAST + ADAPTER)))}")
    return 0
