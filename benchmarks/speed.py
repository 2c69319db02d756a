"""The model's speed beside what the machine can do and beside the original implementation.

    python -m benchmarks.speed --sizes tiny base --batches 1 4 --out speed.json

Every row tells the time of one call, the arithmetic it needs and the bytes of all operands and results (counted on the
plain model), how many times as long it took as that arithmetic, and as reading those bytes, would at the machine's own
rates, the most memory that the process held, and, where the original was measured, how many times as fast it is. The
rates are measured just before and after each row, since those of a shared machine change from minute to minute.

With --against-ct2, a BART of the same dimensions in CTranslate2 is timed in turns with the model, without its stem.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from ofa_core import OFAModel, Tokenizer, load
from ofa_core.checkpoint.model_dir import save_directory
from ofa_core.cli.options import STORED_DTYPES
from ofa_core.config import PRESETS
from ofa_core.inference.fast_model import optimized
from ofa_core.text import small_vocabulary_dir

from .machine import Limits, PeakMemory, Place, Work, count, measure_limits, times
from .workloads import IMAGE_SIZE, IMAGE_SIZES, WORKLOADS, Inputs, make_inputs, make_model, mapped

if TYPE_CHECKING:
    from .against_ct2 import Pair

LOAD = "load"

#: Seconds of the original (fairseq, float32, two threads) by size, batch and workload; its candidates were timed one by
#: one, and a dialog turn is its grounding, since it has no way to keep what the stem saw.
ORIGINAL: dict[tuple[str, int], dict[str, float]] = {
    ("base", 1): {"stem": 0.52, "encode": 1.98, "grounding": 3.00, "turn": 3.00, "caption": 4.52, "candidates": 430.0},
    ("base", 4): {"stem": 2.68, "encode": 8.50, "grounding": 12.17, "turn": 12.17, "caption": 17.37},
    ("tiny", 1): {
        "stem": 0.078,
        "encode": 0.107,
        "grounding": 0.249,
        "turn": 0.249,
        "caption": 0.585,
        "candidates": 37,
    },
    ("tiny", 4): {"stem": 0.30, "encode": 0.39, "grounding": 0.66, "turn": 0.66, "caption": 1.18},
}
#: The rate of :attr:`Limits.product` on the machine where the original was measured.
ORIGINAL_RATE = 153e9


@dataclass(frozen=True)
class Row:
    """One measurement."""

    workload: str
    size: str
    image_size: int
    batch: int
    dtype: str
    optimized: bool
    #: Median and least time of a call.
    seconds: float
    best: float
    #: Floating-point operations in products and attention, and in convolutions.
    products: int | None = None
    convolutions: int | None = None
    #: Bytes of the operands and results of all of them.
    bytes: int | None = None
    #: Times as long as the arithmetic takes at the machine's rates, and where all of it runs at that of products.
    of_limit: float | None = None
    of_product_limit: float | None = None
    #: Times as long as reading the bytes takes at the rate of memory.
    of_memory_limit: float | None = None
    #: Times as fast as the original, at equal rates of products.
    of_original: float | None = None
    #: The machine's rates just before and after.
    product_rate: float | None = None
    convolution_rate: float | None = None
    memory_rate: float | None = None
    peak_bytes: int | None = None


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    parser = _parser()
    args = parser.parse_args(arguments)
    if args.against_ct2 and find_spec("ctranslate2") is None:
        parser.error("--against-ct2 needs CTranslate2: pip install 'ofa_core[dev]'")
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    rows = []
    for dtype in args.dtypes:
        print(_line(HEADINGS))
        for size in args.sizes:
            for row in _rows(args, size, dtype, (device, getattr(torch, dtype))):
                print(_line(_cells(row)), flush=True)
                rows.append(asdict(row))
    pairs = [asdict(pair) for pair in _against_ct2(args)] if args.against_ct2 else []
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"machine": _machine(device), "rows": rows, "against_ct2": pairs}
        args.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", choices=PRESETS, default=["tiny", "base"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4])
    parser.add_argument("--workloads", nargs="+", choices=[*WORKLOADS, LOAD], default=[*WORKLOADS, LOAD])
    parser.add_argument("--dtypes", nargs="+", choices=STORED_DTYPES, default=["float32"])
    parser.add_argument(
        "--image-size", type=int, help="pixels a side; 256 for tiny and 512 for the others if not given"
    )
    parser.add_argument("--threads", type=int, help="CPU threads; torch's own choice if not given")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3, help="timed calls at least, behind one that does not count")
    parser.add_argument("--seconds", type=float, default=3, help="time short calls for so long, again and again")
    parser.add_argument("--plain", action="store_true", help="the plain model, without optimisations")
    parser.add_argument(
        "--against-ct2",
        action="store_true",
        help="time a BART of equal dimensions in CTranslate2 beside it",
    )
    parser.add_argument("--out", type=Path, help="where to write everything as JSON")
    return parser


def _against_ct2(args: argparse.Namespace) -> Iterator[Pair]:
    """Time each size and batch beside CTranslate2, in every type that both compute in."""
    from .against_ct2 import HEADINGS, TYPES, WIDTHS, cells, pairs

    print(_line(HEADINGS, WIDTHS))
    for size in args.sizes:
        for compute_type in TYPES:
            for pair in pairs(make_model(size), size, compute_type, args):
                print(_line(cells(pair), WIDTHS), flush=True)
                yield pair


def _machine(device: torch.device) -> dict[str, object]:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "cpus": os.cpu_count(), "gpu": gpu}


def _rows(args: argparse.Namespace, size: str, dtype: str, place: Place) -> Iterator[Row]:
    side = args.image_size or IMAGE_SIZES.get(size, IMAGE_SIZE)
    names = [name for name in WORKLOADS if name in args.workloads]
    with tempfile.TemporaryDirectory() as directory:
        model = _model(size, place, Path(directory))
        batches = [make_inputs(model, batch, side) for batch in args.batches]
        # counted on the plain model, which the faster one is made of
        work_of = {(inputs, name): count(_call(name, inputs)) for inputs in batches for name in names}
        if not args.plain:
            optimized(model)
        for (inputs, name), work in work_of.items():
            batch = len(inputs.tokens)
            before = measure_limits(place)
            peak, taken = _measured(_call(name, inputs), place[0], args)
            limits = before.mean(measure_limits(place))
            original = ORIGINAL.get((size, batch), {}).get(name) if dtype == "float32" else None
            seconds = median(taken)
            yield Row(
                name, size, side, batch, dtype, not args.plain, seconds, min(taken),
                **asdict(work),
                of_limit=seconds / limits.seconds(work),
                of_product_limit=seconds / Limits(limits.product, limits.product).seconds(work),
                of_memory_limit=seconds / limits.memory_seconds(work),
                of_original=original and original * ORIGINAL_RATE / limits.product / seconds,
                product_rate=limits.product,
                convolution_rate=limits.convolution,
                memory_rate=limits.memory,
                peak_bytes=peak,
            )  # fmt: skip
    del model, batches, work_of, inputs
    if LOAD in args.workloads:
        peak, taken = _load(size, place, args)
        yield Row(LOAD, size, side, 1, dtype, not args.plain, median(taken), min(taken), peak_bytes=peak)


def _model(size: str, place: Place, directory: Path) -> OFAModel:
    """A plain model of random weights; on a CPU they are mapped from a file, as those of a loaded model are."""
    device, dtype = place
    model = make_model(size).to(device, dtype)
    return mapped(model, directory / "weights.safetensors") if device.type == "cpu" else model


def _call(name: str, inputs: Inputs) -> Callable[[], object]:
    def call() -> object:
        with torch.inference_mode():
            return WORKLOADS[name](inputs)

    return call


def _measured(
    call: Callable[[], object], device: torch.device, args: argparse.Namespace
) -> tuple[int | None, list[float]]:
    with PeakMemory(device) as peak:
        taken = times(call, device, args.repeats, args.seconds)
    return peak.bytes, taken


def _load(size: str, place: Place, args: argparse.Namespace) -> tuple[int | None, list[float]]:
    """Loading a model of this size from a directory, its files being in the system's cache."""
    device, dtype = place
    tokenizer = Tokenizer.from_dir(small_vocabulary_dir())
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / size
        model = make_model(size, vocab_size=len(tokenizer)).to(dtype)
        save_directory(path, model.state_dict(), model.config, tokenizer)
        return _measured(lambda: load(path, device=device, dtype=dtype), device, args)


HEADINGS = (
    "workload", "size", "type", "batch", "seconds", "GFLOP", "GB", "× limit", "× products", "× bytes", "× original",
    "GFLOP/s", "GB/s", "memory",
)  # fmt: skip
WIDTHS = (11, 6, 8, 5, 8, 8, 7, 7, 10, 7, 10, 8, 6, 9)


def _line(cells: Sequence[str], widths: Sequence[int] = WIDTHS) -> str:
    return "  ".join(
        cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def _cells(row: Row) -> tuple[str, ...]:
    work = None if row.products is None or row.convolutions is None else Work(row.products, row.convolutions)
    ratios = (row.of_limit, row.of_product_limit, row.of_memory_limit, row.of_original)
    return (
        row.workload,
        row.size,
        row.dtype,
        str(row.batch),
        f"{row.seconds:.3f}",
        "" if work is None else f"{(work.products + work.convolutions) / 1e9:.1f}",
        "" if row.bytes is None else f"{row.bytes / 1e9:.2f}",
        *("" if ratio is None else f"{ratio:.2f}" for ratio in ratios),
        *("" if rate is None else f"{rate / 1e9:.0f}" for rate in (row.product_rate, row.memory_rate)),
        "" if row.peak_bytes is None else f"{row.peak_bytes / 2**30:.2f} GiB",
    )


if __name__ == "__main__":
    sys.exit(main())
