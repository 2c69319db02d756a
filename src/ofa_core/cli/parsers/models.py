"""The parsers of the commands about models themselves: ``inspect``, ``models``, ``cache`` and ``push``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add the commands."""
    inspect = commands.add_parser(
        "inspect",
        help="what a model directory or a checkpoint holds",
        examples=(
            "ofa-core inspect demo",
            "ofa-core inspect DIR --verify --json",
        ),
    )
    inspect.add_argument("path", metavar="MODEL", help="a model directory, a checkpoint, or a name")
    inspect.add_argument(
        "--verify", action="store_true", help="check every file against its digest and every weight for damage"
    )
    inspect.add_argument("--json", action="store_true", help="print one JSON object")
    inspect.set_defaults(command=_inspect)

    models = commands.add_parser(
        "models",
        help="the released checkpoints that load by their names",
        examples=("ofa-core models refcoco",),
    )
    models.add_argument("words", nargs="*", metavar="WORD", help="only those that have all these words in their row")
    models.add_argument("--json", action="store_true", help="print one JSON object a model")
    models.set_defaults(command=_models)

    cache = commands.add_parser(
        "cache",
        help="what was downloaded and converted",
        examples=(
            "ofa-core cache list",
            "ofa-core cache remove refcoco_large_best",
        ),
    )
    actions = cache.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser(
        "list",
        help="every entry with its size",
        examples=("ofa-core cache list --json",),
    )
    listing.add_argument("--json", action="store_true", help="print one JSON object an entry")
    listing.set_defaults(command=_list_cache)
    remove = actions.add_parser(
        "remove",
        help="remove entries",
        examples=("ofa-core cache remove refcoco_large_best",),
    )
    remove.add_argument("names", nargs="+", metavar="NAME", help="a model's name, or an entry's that list prints")
    remove.add_argument(
        "--forget", action="store_true", help="forget the digest of the first download, so that another is accepted"
    )
    remove.set_defaults(command=_remove_from_cache)

    push = commands.add_parser(
        "push",
        help="put a model into a repository of the Hugging Face hub, with a model card",
        examples=("ofa-core push runs/refcoco/best me/my-ofa --private",),
    )
    push.add_argument("model", metavar="MODEL", help="a model directory, a checkpoint, or a name")
    push.add_argument("repository", metavar="ORG/NAME", help="the repository, which is made if need be")
    push.add_argument("--private", action="store_true", help="make a new repository private")
    push.add_argument("--data", nargs="+", default=[], metavar="NAME", help="what it was trained on, for the card")
    push.add_argument("--scores", nargs="+", default=[], type=Path, metavar="JSON", help="summaries that bench wrote")
    push.set_defaults(command=_push)


def _inspect(args: argparse.Namespace) -> int:
    from ..models import inspect

    return inspect(args)


def _models(args: argparse.Namespace) -> int:
    from ..models import models

    return models(args)


def _list_cache(args: argparse.Namespace) -> int:
    from ..models import list_cache

    return list_cache(args)


def _remove_from_cache(args: argparse.Namespace) -> int:
    from ..models import remove_from_cache

    return remove_from_cache(args)


def _push(args: argparse.Namespace) -> int:
    from ..models import push

    return push(args)
