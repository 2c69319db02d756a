"""The command ``ofa-core bench``."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import get_args

from .. import api
from ..bench.inputs import model_inputs
from ..bench.runner import Outcome, Run, make_header, run_task
from ..bench.samples import Models, Settings, read_answers
from ..bench.tasks import TASKS, Task, read_samples
from ..checkpoint.digests import sha256
from ..checkpoint.model_dir import weights_sha256
from ..data.default_paths import DefaultData, default_data, ways_to_name
from ..data.loading import DataFiles
from ..data.read_options import ReadOptions
from ..data.readers import COLUMNS
from ..data.records import Format
from ..data.telling import told_formats
from ..errors import OFAError, shortened
from ..utils.distributed import Process, process_group
from ..utils.printable import printable, printable_json
from .choices import ALL
from .options import named_model, plain_path, read_options
from .score import summary_lines

#: Formats that some task reads.
FORMATS: tuple[Format, ...] = tuple(f for f in get_args(Format) if any(task.format == f for task in TASKS.values()))


def bench_command(args: argparse.Namespace) -> int:
    """Run ``args.tasks`` one after the other and print the scores of each."""
    for outcome in run_tasks(args):
        _print(outcome, args)
    return 0


def run_tasks(args: argparse.Namespace) -> Iterator[Outcome]:
    """The outcome of each of ``args.tasks``, on the first of several processes."""
    defaults = _defaults(args) if args.data is None else {}
    data = _data(args, defaults)
    tasks = _tasks(args.tasks, data)
    _check_special_options(args, tasks)
    for task in tasks:
        read_samples(task, data[task.format])  # names data that are not there before the model is loaded
    with process_group() as process:
        if process.is_rank0:
            for taken in defaults.values():
                print(printable(str(taken)), file=sys.stderr)
        players = _load(args, process)
        for task in tasks:
            outcome = run_task(_run(args, task, data[task.format], players), process)
            if outcome is not None:
                yield outcome


# What was asked for


def _defaults(args: argparse.Namespace) -> dict[Format, DefaultData]:
    """The files that are read where no ``--data`` are given.

    Raises:
        OFAError: a task that was named has none, or none of all tasks.
    """
    formats = _asked_formats(args.tasks)
    found = {format: taken for format in formats if (taken := default_data(format)) is not None}
    missing = [format for format in formats if format not in found]
    if missing and (not found or ALL not in args.tasks):
        task = next(task for task in TASKS.values() if task.format == missing[0] and _is_asked(task, args.tasks))
        raise OFAError(f"{task.name} has no data: pass --data PATH, or name them by {ways_to_name(missing[0])}")
    return found


def _asked_formats(names: Sequence[str]) -> tuple[Format, ...]:
    """The formats that the tasks of ``names`` read."""
    return tuple(f for f in FORMATS if any(task.format == f and _is_asked(task, names) for task in TASKS.values()))


def _data(args: argparse.Namespace, defaults: Mapping[Format, DefaultData]) -> dict[Format, DataFiles]:
    """The files of each format: rows and pictures, as they were named or as ``defaults`` have them."""
    options = read_options(args)
    told = partial(_told, formats=_asked_formats(args.tasks), options=options)
    paths = _by_format(args.data or [], "--data", told, always_told=ALL in args.tasks)
    paths |= {format: [taken.path] for format, taken in defaults.items()}
    images = {format: taken.images for format, taken in defaults.items() if taken.images is not None}
    images |= {format: found[0] for format, found in _by_format(args.images, "--images", most=1).items()}
    for path in images.values():
        if not path.exists():
            raise OFAError(f"images {path} does not exist; it should be a directory, a .zip, .tar or .tar.gz archive")
    columns = tuple(args.columns.split(",")) if args.columns else None
    return {
        format: DataFiles(
            path,
            images.get(format),
            columns if format in COLUMNS else None,
            args.allow_outside,
            options,
            tuple(more),
        )
        for format, (path, *more) in paths.items()
    }


def _is_asked(task: Task, names: Sequence[str]) -> bool:
    return task.name in names or ALL in names


def _by_format(
    values: Sequence[str],
    option: str,
    told: Callable[[Sequence[Path]], dict[Format, list[Path]]] | None = None,
    *,
    always_told: bool = False,
    most: int | None = None,
) -> dict[Format, list[Path]]:
    """``[FORMAT=]PATH`` arguments; a path without a format is for every format that has no path of its own.

    Of several such paths, and of one with ``always_told``, the formats are those that ``told`` finds. A format has
    ``most`` paths.
    """
    named: dict[Format, list[Path]] = {}
    plain: list[Path] = []
    for value in values:
        name, equals, path = value.partition("=")
        format = next((format for format in FORMATS if format == name), None)
        if format is None or not equals:
            plain.append(Path(value))
        elif len(named.get(format, ())) == most:
            raise OFAError(f"{option} names two paths for {format}: {named[format][0]} and {path}")
        else:
            named.setdefault(format, []).append(Path(path))
    everything = [*plain, *(path for paths in named.values() for path in paths)]
    if twice := [path for path, times in Counter(everything).items() if times > 1]:
        raise OFAError(f"{option} names {twice[0]} twice")
    if told is not None and (len(plain) > 1 or (plain and always_told)):
        return told(plain) | named
    if len(plain) > 1:
        raise OFAError(f"{option} names {plain[0]} and {plain[1]}; say whose rows they are: {FORMATS[0]}={plain[0]}")
    return {format: named.get(format, plain) for format in FORMATS if plain} | named


#: Formats whose rows are rows of another one too, and say more.
_SAYS_MORE: Mapping[Format, Format] = {"ref_l4": "refcoco"}


def _told(paths: Sequence[Path], formats: Sequence[Format], options: ReadOptions) -> dict[Format, list[Path]]:
    """The formats of files, told by their first rows; where one format is asked about, files without names are of it.

    Raises:
        OFAError: a file is of none of them, or may be of several.
    """
    found: dict[Format, list[Path]] = {}
    for path in paths:
        if not path.exists():
            raise OFAError(f"data {path} does not exist")
        reasons = told_formats(path, formats, options)
        nameless = not reasons and len(formats) == 1
        fitting = [format for format in formats if nameless or reasons.get(format) == ""]
        fitting = [one for one in fitting if not any(_SAYS_MORE.get(other) == one for other in fitting)]
        if not fitting:
            tried = "; ".join(f"{format}: {shortened(reason, 90)}" for format, reason in reasons.items())
            told = shortened(tried, 900) if tried else "its columns have no names"
            raise OFAError(f"{path} tells no format, pass --data FORMAT={path} ({told})")
        if len(fitting) > 1:
            raise OFAError(
                f"{path} may hold {' or '.join(fitting)} rows: pass --data {fitting[0]}={path}, or the other"
            )
        found.setdefault(fitting[0], []).append(path)
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
    if len({data[format].name for format in formats}) < len(formats):
        told = [f"{format}=PATH" for format in FORMATS if format in formats]
        shown = " ".join([*told[:4], *(["..."] if len(told) > 4 else [])])
        raise OFAError(f"these tasks read rows of {len(formats)} formats: pass --data {shown}")
    return wanted


def _check_special_options(args: argparse.Namespace, tasks: Sequence[Task]) -> None:
    """Refuse an option that none of ``tasks`` has a use for."""
    uses: dict[str, Callable[[Task], bool]] = {
        f"--protocol {args.protocol}": lambda task: args.protocol in task.protocols,
        "--oracle": lambda task: bool(task.protocols),
        "--information-gain": _measures_information,
        "--columns": lambda task: task.format in COLUMNS,
        "--language cn": lambda task: task.format == "invig",
        "--keep-last-turn": lambda task: task.format == "invig",
        "--source": lambda task: task.format == "custom",
        "--target": lambda task: task.format == "custom",
        "--answers": lambda task: task.takes_answers,
        "--score-answers": lambda task: task.name == "vqa",
        "--confidence": lambda task: task.tells_confidence,
        "--ask-above": lambda task: "open" in task.protocols,
    }
    chinese = "cn" if args.language == "cn" else None
    given = (
        args.protocol,
        args.oracle,
        args.information_gain or None,
        args.columns,
        chinese,
        args.keep_last_turn or None,
        args.source,
        args.target,
        args.answers,
        args.score_answers or None,
        args.confidence or None,
        args.ask_above,
    )
    for value, (option, used) in zip(given, uses.items(), strict=True):
        if value is not None and not any(map(used, tasks)):
            raise OFAError(f"{option} is for {', '.join(task.name for task in TASKS.values() if used(task))}")
    if args.ask_above is not None and not args.ask_above >= 0:
        raise OFAError(f"--ask-above is a number of bits, 0 or more, not {args.ask_above}")
    if args.score_answers and args.answers is None:
        raise OFAError("--score-answers scores those of a list: pass --answers FILE too")
    if args.answers is not None:
        read_answers(args.answers)  # named before the model is loaded


def _measures_information(task: Task) -> bool:
    """True of games whose data list the objects of a picture."""
    return bool(task.protocols) and task.format == "guesswhat"


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
    agent, sha256, inputs = _loaded(named, "model", args, process, args.adapter)
    if args.oracle is None:
        return _Players(Models(agent, agent), named, sha256, None, None, inputs, {})
    other = plain_path(args.oracle)
    oracle, oracle_sha256, its_inputs = _loaded(other, "oracle", args, process)
    return _Players(Models(agent, oracle), named, sha256, other, oracle_sha256, inputs, its_inputs)


def _loaded(
    name: str, player: str, args: argparse.Namespace, process: Process, adapter: Path | None = None
) -> tuple[api.OFA, str, dict[str, str]]:
    """A model with the sha256 of its weights, which one process computes (and converts a checkpoint) for all.

    With them come digests of all else that it is made of, named after the ``player``.
    """
    directory = Path(process.broadcast_from_rank0(lambda: str(api.model_directory(name))))
    sha256 = process.broadcast_from_rank0(lambda: weights_sha256(directory))
    ofa = api.load(directory, adapter=adapter, device=process.device(args.device), dtype=args.dtype)
    return ofa, sha256, model_inputs(directory, player, adapter)


def _usual_comment(players: _Players, adapter: Path | None) -> str:
    named = [Path(players.model), *([adapter] if adapter is not None else [])]
    return "+".join(path.resolve().name for path in named)


def _run(args: argparse.Namespace, task: Task, data: DataFiles, players: _Players) -> Run:
    protocol = args.protocol if args.protocol in task.protocols else next(iter(task.protocols), "")
    listed = args.answers is not None and task.takes_answers
    settings = Settings(
        args.batch_size,
        args.limit,
        protocol,
        args.num_beams,
        args.max_new_tokens,
        args.information_gain and _measures_information(task),
        answers=read_answers(args.answers) if listed else None,
        score_answers=listed and args.score_answers,
        confidence=args.confidence and task.tells_confidence,
        ask_above=args.ask_above if protocol == "open" else None,
    )
    games = bool(task.protocols)
    header = make_header(
        task,
        players.models,
        settings,
        comment=args.comment or _usual_comment(players, args.adapter),
        model=players.model,
        model_sha256=players.sha256,
        oracle=players.oracle if games else None,
        oracle_sha256=players.oracle_sha256 if games else None,
        data=data.name,
        inputs=players.inputs
        | (players.oracle_inputs if games else {})
        | ({"answers": sha256(args.answers)} if listed else {}),
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
        single_json=args.single_json,
        quiet=args.quiet,
    )


def _print(outcome: Outcome, args: argparse.Namespace) -> None:
    if args.json:
        print(printable_json(outcome.summary.model_dump_json()), flush=True)
        return
    before = " (finished before)" if outcome.before else ""
    files = [f"{outcome.path}{before}", *([] if outcome.page is None else [str(outcome.page)])]
    lines = [*map(printable, files), *summary_lines(outcome.summary, verbose=args.verbose)]
    print("\n".join(lines), flush=True)
