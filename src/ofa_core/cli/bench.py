"""The command ``ofa-core bench``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, get_args

from .. import api
from ..bench.inputs import model_inputs
from ..bench.runner import Outcome, Run, make_header, run_task
from ..bench.samples import Models, Settings
from ..bench.self_play import PROTOCOLS
from ..bench.tasks import TASKS, Task, read_samples
from ..checkpoint.model_dir import weights_sha256
from ..data.loading import DataFiles
from ..data.read_options import ReadOptions
from ..data.readers import COLUMNS
from ..data.records import Format
from ..data.telling import told_formats
from ..errors import OFAError, shortened
from ..utils.distributed import Process, process_group
from ..utils.printable import printable, printable_json
from .options import (
    DTYPES,
    add_allow_outside,
    add_model,
    add_read_options,
    count,
    named_model,
    plain_path,
    positive,
    read_options,
)
from .score import summary_lines

#: Formats that some task reads.
FORMATS: tuple[Format, ...] = tuple(f for f in get_args(Format) if any(task.format == f for task in TASKS.values()))
ALL = "all"


def add_commands(commands: argparse._SubParsersAction[Any]) -> None:
    """Add ``bench``."""
    parser = commands.add_parser("bench", help="scores of a model on GuessWhat?!, InViG and RefCOCO")
    parser.add_argument(
        "tasks",
        nargs="+",
        choices=[*TASKS, ALL],
        metavar="TASK",
        help=f"{', '.join(TASKS)}, or {ALL}: every task that --data has rows for",
    )
    add_model(parser)
    add_run_options(parser)
    parser.set_defaults(command=bench_command, goes_on_with=("--resume",))


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what a run takes besides its tasks and its model."""
    parser.add_argument("--oracle", metavar="DIR", help="another model as the oracle of games")
    parser.add_argument(
        "--data",
        nargs="+",
        required=True,
        metavar="[FORMAT=]PATH",
        help=f"rows; for tasks of several formats ({', '.join(FORMATS)}) one path each, such as invig=test.jsonl; "
        "the format of one of several files is told by its content where it can be",
    )
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="[FORMAT=]PATH",
        help="directory, zip or tar of the pictures, unless rows hold them",
    )
    add_allow_outside(parser)
    add_read_options(parser)
    parser.add_argument("--columns", metavar="NAMES", help="order of a TSV file's columns, separated by commas")
    parser.add_argument("--batch-size", type=positive, default=16, metavar="N", help="samples at once (16)")
    parser.add_argument("--limit", type=positive, metavar="N", help="the first samples of each task only")
    parser.add_argument("--protocol", choices=PROTOCOLS, help="how games of GuessWhat?! are played (open)")
    parser.add_argument("--num-beams", type=positive, metavar="N", help="beams of every search, instead of 5")
    parser.add_argument("--max-new-tokens", type=positive, metavar="N", help="no answer is longer")
    parser.add_argument("--comment", metavar="NAME", help="what tells runs apart; by default the model's name")
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="where results go (results)")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was interrupted")
    parser.add_argument("--skip-bad", action="store_true", help="report rows that cannot be used, and go on")
    parser.add_argument("--workers", type=count, default=4, metavar="N", help="threads that open pictures (4)")
    parser.add_argument("--report", action="store_true", help="write a page with plots and samples, too")
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument("--json", action="store_true", help="print one JSON object a task")


def bench_command(args: argparse.Namespace) -> int:
    """Run ``args.tasks`` one after the other and print the scores of each."""
    for outcome in run_tasks(args):
        _print(outcome, args.json)
    return 0


def run_tasks(args: argparse.Namespace) -> Iterator[Outcome]:
    """The outcome of each of ``args.tasks``, on the first of several processes."""
    data = _data(args)
    tasks = _tasks(args.tasks, data)
    _check_special_options(args, tasks)
    for task in tasks:
        read_samples(task, data[task.format])  # names data that are not there before the model is loaded
    with process_group() as process:
        players = _load(args, process)
        for task in tasks:
            outcome = run_task(_run(args, task, data[task.format], players), process)
            if outcome is not None:
                yield outcome


# What was asked for


def _data(args: argparse.Namespace) -> dict[Format, DataFiles]:
    """The files of each format: rows and pictures."""
    options = read_options(args)
    asked = tuple(
        f for f in FORMATS if any(task.format == f and _is_asked(task, args.tasks) for task in TASKS.values())
    )
    told = partial(_told, formats=asked, options=options)
    paths = _by_format(args.data, "--data", told, always_told=ALL in args.tasks)
    images = _by_format(args.images, "--images")
    for path in images.values():
        if not path.exists():
            raise OFAError(f"images {path} does not exist; it should be a directory, a .zip, .tar or .tar.gz archive")
    columns = tuple(args.columns.split(",")) if args.columns else None
    return {
        format: DataFiles(path, images.get(format), columns if format in COLUMNS else None, args.allow_outside, options)
        for format, path in paths.items()
    }


def _is_asked(task: Task, names: Sequence[str]) -> bool:
    return task.name in names or ALL in names


def _by_format(
    values: Sequence[str],
    option: str,
    told: Callable[[Sequence[Path]], dict[Format, Path]] | None = None,
    *,
    always_told: bool = False,
) -> dict[Format, Path]:
    """``[FORMAT=]PATH`` arguments; a path without a format is for every format that has no path of its own.

    Of several such paths, and of one with ``always_told``, the formats are those that ``told`` finds.
    """
    named: dict[Format, Path] = {}
    plain: list[Path] = []
    for value in values:
        name, equals, path = value.partition("=")
        format = next((format for format in FORMATS if format == name), None)
        if format is None or not equals:
            plain.append(Path(value))
        elif format in named:
            raise OFAError(f"{option} names two paths for {format}: {named[format]} and {path}")
        else:
            named[format] = Path(path)
    if told is not None and (len(plain) > 1 or (plain and always_told)):
        return told(plain) | named
    if len(plain) > 1:
        raise OFAError(f"{option} names {plain[0]} and {plain[1]}; say whose rows they are: {FORMATS[0]}={plain[0]}")
    return {format: named.get(format, path) for path in plain for format in FORMATS} | named


def _told(paths: Sequence[Path], formats: Sequence[Format], options: ReadOptions) -> dict[Format, Path]:
    """The formats of files, told by their first rows.

    Raises:
        OFAError: a file is of none of them, or may be of several, or two are of one.
    """
    found: dict[Format, Path] = {}
    for path in paths:
        if not path.exists():
            raise OFAError(f"data {path} does not exist")
        reasons = told_formats(path, formats, options)
        fitting = [format for format in formats if reasons.get(format) == ""]
        if not fitting:
            tried = "; ".join(f"{format}: {shortened(reason, 90)}" for format, reason in reasons.items())
            told = shortened(tried, 900) if tried else "its columns have no names"
            raise OFAError(f"{path} tells no format, pass --data FORMAT={path} ({told})")
        if len(fitting) > 1:
            raise OFAError(
                f"{path} may hold {' or '.join(fitting)} rows: pass --data {fitting[0]}={path}, or the other"
            )
        (format,) = fitting
        if format in found:
            raise OFAError(f"{found[format]} and {path} both hold {format} rows; pass --data {format}=PATH")
        found[format] = path
    return found


def _tasks(names: Sequence[str], data: dict[Format, DataFiles]) -> list[Task]:
    """The tasks of ``names``, each once.

    Raises:
        OFAError: there are no data for one of them, or the same data for several formats.
    """
    wanted = [task for task in TASKS.values() if _is_asked(task, names) and (ALL not in names or task.format in data)]
    for task in wanted:
        if task.format not in data:
            raise OFAError(f"{task.name} has no data: pass --data {task.format}=PATH")
    formats = {task.format for task in wanted}
    paths = {data[format].path for format in formats}
    if len(paths) < len(formats):
        told = [f"{format}=PATH" for format in FORMATS if format in formats]
        shown = " ".join([*told[:4], *(["..."] if len(told) > 4 else [])])
        raise OFAError(f"these tasks read rows of {len(formats)} formats: pass --data {shown}")
    return wanted


def _check_special_options(args: argparse.Namespace, tasks: Sequence[Task]) -> None:
    """Refuse an option that none of ``tasks`` has a use for."""
    uses: dict[str, Callable[[Task], bool]] = {
        f"--protocol {args.protocol}": lambda task: args.protocol in task.protocols,
        "--oracle": lambda task: bool(task.protocols),
        "--columns": lambda task: task.format in COLUMNS,
        "--language cn": lambda task: task.format == "invig",
        "--keep-last-turn": lambda task: task.format == "invig",
    }
    chinese = "cn" if args.language == "cn" else None
    given = (args.protocol, args.oracle, args.columns, chinese, args.keep_last_turn or None)
    for value, (option, used) in zip(given, uses.items(), strict=True):
        if value is not None and not any(map(used, tasks)):
            raise OFAError(f"{option} is for {', '.join(task.name for task in TASKS.values() if used(task))}")


# The models


@dataclass(frozen=True)
class _Players:
    """The models with what a results file tells of them."""

    models: Models
    model: str
    sha256: str
    oracle: str | None
    oracle_sha256: str | None
    #: Digests of configurations and vocabularies: of the model, and of an oracle that is another one.
    inputs: dict[str, str]
    oracle_inputs: dict[str, str]


def _load(args: argparse.Namespace, process: Process) -> _Players:
    """The model, and the oracle's where that is another one."""
    named = named_model(args)
    agent, sha256, inputs = _loaded(named, "model", args, process)
    if args.oracle is None:
        return _Players(Models(agent, agent), named, sha256, None, None, inputs, {})
    other = plain_path(args.oracle)
    oracle, oracle_sha256, its_inputs = _loaded(other, "oracle", args, process)
    return _Players(Models(agent, oracle), named, sha256, other, oracle_sha256, inputs, its_inputs)


def _loaded(name: str, player: str, args: argparse.Namespace, process: Process) -> tuple[api.OFA, str, dict[str, str]]:
    """A model with the sha256 of its weights, which one process computes (and converts a checkpoint) for all.

    With them come digests of all else that it is made of, named after the ``player``.
    """
    directory = Path(process.broadcast_from_rank0(lambda: str(api.model_directory(name))))
    sha256 = process.broadcast_from_rank0(lambda: weights_sha256(directory))
    dtype = DTYPES[args.dtype] if args.dtype else None
    ofa = api.load(directory, device=process.device(args.device), dtype=dtype)
    return ofa, sha256, model_inputs(directory, player)


def _run(args: argparse.Namespace, task: Task, data: DataFiles, players: _Players) -> Run:
    protocol = args.protocol if args.protocol in task.protocols else next(iter(task.protocols), "")
    settings = Settings(args.batch_size, args.limit, protocol, args.num_beams, args.max_new_tokens)
    games = bool(task.protocols)
    header = make_header(
        task,
        players.models,
        settings,
        comment=args.comment or Path(players.model).resolve().name,
        model=players.model,
        model_sha256=players.sha256,
        oracle=players.oracle if games else None,
        oracle_sha256=players.oracle_sha256 if games else None,
        data=str(data.path),
        inputs=players.inputs | (players.oracle_inputs if games else {}),
    )
    return Run(
        task=task,
        data=data,
        models=players.models,
        settings=settings,
        header=header,
        out=args.out,
        resume=args.resume,
        skip_bad=args.skip_bad,
        workers=args.workers,
        report=args.report,
        quiet=args.quiet,
    )


def _print(outcome: Outcome, as_json: bool) -> None:
    if as_json:
        print(printable_json(outcome.summary.model_dump_json()), flush=True)
        return
    before = " (finished before)" if outcome.before else ""
    print("\n".join([printable(f"{outcome.path}{before}"), *summary_lines(outcome.summary)]), flush=True)
