"""The commands that ask a model: pictures and texts in, an answer a line out, as soon as it is there."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from PIL import Image

from .. import api
from ..errors import OFAError
from ..heads.explanation import Explanation
from ..heads.grounding import Grounding
from ..predict.answers import answer_batch, answer_each, result_fields, scored, told
from ..predict.heads import Head
from ..utils.atomic_write import atomic_path
from ..utils.printable import printable, printable_json
from ..utils.progress import progress
from ..vision.images import check_image, open_image
from .options import named_model
from .pictures import check_no_picture, named_pictures

#: Columns that are printed with an answer, since they are what was asked.
ASKED = ("text", "question", "caption")


@dataclass(frozen=True)
class Sample:
    """A thing that is asked once."""

    #: The picture's path; None for text alone.
    path: Path | None
    #: The arguments of the head but the picture.
    asked: dict[str, Any]
    #: The file for the picture with the answer.
    output: Path | None = None
    #: The picture, once it was read.
    picture: Image.Image | None = field(default=None, repr=False)

    @property
    def columns(self) -> dict[str, Any]:
        """All arguments of the head."""
        return self.asked if self.picture is None else {"image": self.picture, **self.asked}

    @property
    def name(self) -> str:
        """Its name in a line of answers."""
        if self.path is not None:
            return str(self.path)
        return next(str(self.asked[name]) for name in ASKED if name in self.asked)


def ask(args: argparse.Namespace) -> int:
    """Ask ``args.head`` about everything that the command names."""
    head: Head = args.head
    samples = _samples(args, head)
    if head.name == "imagine":
        return _imagine(args, samples[0])
    if not args.skip_bad:  # a broken one is found before the model is loaded
        for sample in samples:
            if sample.path is not None:
                check_image(sample.path)
    ofa = load(args)
    shared = shared_arguments(args, head)
    failures: list[OFAError] = []
    with _Bar(len(samples), args) as bar:
        for batch in _batches(samples, args.batch_size):
            start = time.perf_counter()
            read, answers = _answers(ofa, head, batch, shared, args.skip_bad)
            seconds = (time.perf_counter() - start) / len(batch)
            for sample, found in zip(read, answers, strict=True):
                if isinstance(found, OFAError):
                    failures.append(found)
                    named = "" if sample.name in str(found) else f"{sample.name}: "
                    bar.print(printable(f"skipped: {named}{found}"), sys.stderr)
                else:
                    bar.print(_line(sample, found, seconds, args.json))
                    _draw(sample, found)
            bar.update(len(batch))
    return _counted(failures, len(samples))


def load(args: argparse.Namespace) -> api.OFA:
    """The model that a command names, with the settings that it changes."""
    changes: dict[str, Any] = {} if args.image_size is None else {"image_size": args.image_size}
    return api.load(named_model(args), adapter=args.adapter, device=args.device, dtype=args.dtype, **changes)


def shared_arguments(args: argparse.Namespace, head: Head) -> dict[str, Any]:
    """The arguments for all samples that were given; those that were not are the method's own."""
    given = {name: getattr(args, name) for name in head.shared}
    return {name: value for name, value in given.items() if value is not None and value is not False}


# What is asked


def _samples(args: argparse.Namespace, head: Head) -> list[Sample]:
    """The samples of a command line, in its order."""
    names = [name for name in (*head.columns, *head.optional) if name != "image"]
    asked = {name: value for name in names if (value := getattr(args, name, None)) is not None}
    if head.name == "summarize":
        return [Sample(None, {"text": sys.stdin.read() if text == "-" else text}) for text in args.texts]
    for name in ("text", "question"):
        if name in asked and head.has_image:
            check_no_picture(asked[name], name.upper(), head.name)
    paths = named_pictures(args.images) if head.has_image else []
    if not paths:
        return [Sample(None, asked, getattr(args, "out", None))]
    outputs = _output_paths(getattr(args, "out", None), paths)
    return [Sample(path, asked, output) for path, output in zip(paths, outputs, strict=True)]


def _batches(samples: Sequence[Sample], size: int) -> Iterator[list[Sample]]:
    rest = iter(samples)
    while batch := list(islice(rest, size)):
        yield batch


# What is answered


def _answers(
    ofa: api.OFA, head: Head, batch: Sequence[Sample], shared: dict[str, Any], skip_bad: bool
) -> tuple[list[Sample], list[Any]]:
    """The samples with their pictures, and an answer for each, or with ``skip_bad`` the error in its place."""
    read = [_read(sample, skip_bad) for sample in batch]
    good = [sample for sample in read if isinstance(sample, Sample)]
    samples = [sample.columns for sample in good]
    found = answer_each(ofa, head, samples, shared) if skip_bad else answer_batch(ofa, head, samples, shared)
    answers = iter(found)
    pairs = [
        (sample, next(answers)) if isinstance(sample, Sample) else (asked, sample)
        for asked, sample in zip(batch, read, strict=True)
    ]
    return [sample for sample, _ in pairs], [answer for _, answer in pairs]


def _read(sample: Sample, skip_bad: bool) -> Sample | OFAError:
    """The sample with its picture, or with ``skip_bad`` what is wrong with that."""
    if sample.path is None:
        return sample
    try:
        return Sample(sample.path, sample.asked, sample.output, open_image(sample.path))
    except OFAError as error:
        if not skip_bad:
            raise
        return error


def _counted(failures: Sequence[OFAError], samples: int) -> int:
    """The exit code, behind a line that tells how many samples were left out.

    Raises:
        OFAError: none could be answered.
    """
    if len(failures) == samples:
        raise OFAError(f"none of {samples:,} could be answered; the last one: {failures[-1]}")
    if failures:
        print(f"ofa-core: {len(failures):,} of {samples:,} could not be used", file=sys.stderr)
    return 0


# What is printed and written


class _Bar:
    """A bar on a terminal, where there is more than one sample, and lines above it."""

    def __init__(self, samples: int, args: argparse.Namespace) -> None:
        shown = samples > 1 and not args.quiet and sys.stderr.isatty()
        self._bar = progress(samples, 0, args.head.name, unit=" samples", shown=shown)

    def print(self, line: str, file: Any = None) -> None:
        """Print a line, with nothing in it that a terminal would act on."""
        file = sys.stdout if file is None else file
        if self._bar.disable:
            print(line, file=file, flush=True)
        else:
            self._bar.write(line, file=file)
            file.flush()

    def update(self, samples: int) -> None:
        """Move on."""
        self._bar.update(samples)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _line(sample: Sample, found: Any, seconds: float, as_json: bool) -> str:
    if not as_json:
        return printable(_line_for_people(sample, found, seconds))
    asked = {name: sample.asked[name] for name in ASKED if name in sample.asked}
    image = {} if sample.path is None else {"image": str(sample.path)}
    line = {**image, **asked, **result_fields(found), "seconds": round(seconds, 3)}
    return printable_json(json.dumps(line, ensure_ascii=False))


def _line_for_people(sample: Sample, found: Any, seconds: float) -> str:
    details = [detail for detail in (scored(found), f"{seconds:.2f} s") if detail]
    if isinstance(found, Grounding):
        return f"{sample.name}: {', '.join([told(found), *details])}"
    return f"{sample.name}: {told(found)} ({', '.join(details)})"


def _draw(sample: Sample, found: Any) -> None:
    """Write the picture with its answer where that was asked for."""
    if sample.output is None or sample.picture is None:
        return
    if isinstance(found, Explanation):
        drawn = found.draw()
    else:
        drawn = found.about(None, str(sample.asked.get("text", ""))).draw(sample.picture)
    save_picture(drawn, sample.output)


def _imagine(args: argparse.Namespace, sample: Sample) -> int:
    """Draw pictures of the text, write them, and tell where each is."""
    shared = shared_arguments(args, args.head)
    count = shared.get("count", 4)
    paths = _numbered_paths(args.out, count)
    start = time.perf_counter()
    found = load(args).imagine(args.text, batch_size=args.batch_size, progress=_shows_bar(args), **shared)
    seconds = (time.perf_counter() - start) / count
    for path, one in zip(paths, found, strict=True):
        save_picture(one.image, path)
        if args.json:
            line = {"text": args.text, "file": str(path), **result_fields(one), "seconds": round(seconds, 3)}
            print(printable_json(json.dumps(line, ensure_ascii=False)), flush=True)
        else:
            print(printable(f"{path}: score {one.score:.4f}, seed {one.seed}, {seconds:.2f} s"), flush=True)
    return 0


def _shows_bar(args: argparse.Namespace) -> bool:
    return not args.quiet and sys.stderr.isatty()


def _numbered_paths(out: Path, count: int) -> list[Path]:
    """``out`` itself for a single picture, names within it for several."""
    return [path for path in _output_paths(out, [Path(f"{number}.png") for number in range(1, count + 1)]) if path]


def _output_paths(out: Path | None, images: Sequence[Path]) -> list[Path | None]:
    """Paths of the pictures to write: ``out`` itself for a single one, names within ``out`` for several."""
    if out is None:
        return [None] * len(images)
    if len(images) == 1 and not out.is_dir():
        if out.suffix.lower() not in (".png", ".jpg", ".jpeg"):
            raise OFAError(f"--out {out} should end in .png or .jpg, or be an existing directory")
        out.parent.mkdir(parents=True, exist_ok=True)
        return [out]
    names = [f"{path.stem}.png" for path in images]
    if len(set(names)) < len(names):
        raise OFAError("several pictures have the same name, so their results would overwrite each other in --out")
    out.mkdir(parents=True, exist_ok=True)
    return [out / name for name in names]


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all."""
    with atomic_path(path) as temporary:
        picture.save(temporary)
