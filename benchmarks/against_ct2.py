"""The transformer in turns with a BART of equal dimensions in CTranslate2: what ``speed --against-ct2`` runs."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from ofa_core import GenerationOptions, OFAModel, generate
from ofa_core.inference.fast_model import optimized

from .ctranslate2_bart import Bart, compute_types, sources_like
from .turns import in_turns, medians
from .workloads import CAPTION, GROUNDING, IMAGE_SIZE, IMAGE_SIZES, Inputs, make_inputs

#: Types that both compute in.
TYPES = [name for name in ("float32", "int8") if name in compute_types()]
#: The searches that are compared, besides the encoder alone.
SEARCHES: dict[str, GenerationOptions] = {"grounding": GROUNDING, "caption": CAPTION}


@dataclass(frozen=True)
class Pair:
    """One part of both engines, from what the stem made of the pictures to the end."""

    part: str
    size: str
    batch: int
    dtype: str
    #: Median time of a call, and median CPU time, which the neighbours on a shared machine change less.
    seconds: float
    ct2_seconds: float
    cpu_seconds: float
    ct2_cpu_seconds: float
    #: Times as fast as CTranslate2, by CPU time.
    of_ct2: float


HEADINGS = ("against ct2", "size", "type", "batch", "seconds", "ct2", "CPU s", "ct2 CPU s", "× ct2")
WIDTHS = (11, 6, 8, 5, 8, 8, 8, 9, 6)


def cells(pair: Pair) -> tuple[str, ...]:
    """The cells of a pair's line in the table."""
    times = (pair.seconds, pair.ct2_seconds, pair.cpu_seconds, pair.ct2_cpu_seconds)
    of_ct2 = f"{pair.of_ct2:.2f}"
    return (pair.part, pair.size, pair.dtype, str(pair.batch), *(f"{seconds:.3f}" for seconds in times), of_ct2)


def pairs(model: OFAModel, size: str, compute_type: str, args: argparse.Namespace) -> Iterator[Pair]:
    """Time the parts of ``model`` in turns with CTranslate2's.

    Args:
        model: the plain model, which is made faster.
        size: its name.
        compute_type: one of :data:`TYPES`.
        args: what ``benchmarks.speed`` was asked for: batches, repeats, seconds and the side of pictures.
    """
    side = args.image_size or IMAGE_SIZES.get(size, IMAGE_SIZE)
    batches = [make_inputs(model, batch, side) for batch in args.batches]
    optimized(model, int8=compute_type == "int8")
    with tempfile.TemporaryDirectory() as directory:
        bart = Bart(model.config, Path(directory), compute_type, torch.get_num_threads())
        for inputs in batches:
            for part, ours, theirs in _parts(inputs, bart):
                times = in_turns((ours, theirs), args.repeats, args.seconds)
                (seconds, cpu), (ct2_seconds, ct2_cpu) = (medians(one) for one in times)
                batch = len(inputs.tokens)
                yield Pair(part, size, batch, compute_type, seconds, ct2_seconds, cpu, ct2_cpu, ct2_cpu / cpu)


def _parts(inputs: Inputs, bart: Bart) -> Iterator[tuple[str, Callable[[], object], Callable[[], object]]]:
    """The name of each part, ours and CTranslate2's."""
    model, tokens, features = inputs.model, inputs.tokens, inputs.features
    rows, columns = features.grid
    sources = sources_like(tokens, rows * columns, model.config.vocab_size)
    encode = torch.inference_mode()(model.encode)
    yield "encoder", partial(encode, tokens, features), partial(bart.encode, sources)
    for name, options in SEARCHES.items():
        yield name, partial(generate, model, tokens, features, options), partial(bart.generate, sources, options)
