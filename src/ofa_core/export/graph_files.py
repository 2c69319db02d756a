"""The files of the two graphs: ONNX, or programs of ``torch.export``."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch.export import Dim, ExportedProgram, export

from ..errors import OFAError
from ..model.ofa import OFAModel
from .graphs import DecoderGraph, EncoderGraph, traced

Format = Literal["onnx", "torch"]
#: Suffix of the files of each format.
SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "torch": ".pt2"}
#: The set of operators of the ONNX files, which every engine of the last years reads.
OPSET = 18
GRAPHS = ("encoder", "decoder")
#: The most samples at once, and beams a sample, that a program says it takes; an ONNX file has no limit.
MOST_SAMPLES = 4096


@dataclass(frozen=True)
class Traced:
    """A graph with the names of what goes in and out."""

    program: ExportedProgram
    inputs: list[str]
    outputs: list[str]


def checked_format(name: str) -> Format:
    """The format of a name, with what it needs installed.

    Raises:
        OFAError: there is no such format, or a package is missing.
    """
    for known in get_args(Format):
        if name == known:
            if known == "onnx":
                _check_installed()
            return known
    raise OFAError(f"a model is exported to {' or '.join(get_args(Format))}, not to {name!r}")


def _check_installed() -> None:
    """Import what torch needs to write ONNX files."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise OFAError(f"ONNX files need {error.name}: pip install onnx onnxscript") from None


def write_graphs(model: OFAModel, image_size: int, directory: Path, written: Format = "onnx") -> None:
    """Write the two graphs of a model, for pictures of ``image_size`` pixels a side.

    Args:
        model: the model in float32, which is plain afterwards.
        image_size: side of the pictures.
        directory: a directory that exists.
        written: the format.
    """
    with torch.no_grad(), traced(model):
        for name, trace in zip(GRAPHS, (_encoder, _decoder), strict=True):
            _write(trace(model, image_size), directory / f"{name}{SUFFIXES[written]}", written)


def _encoder(model: OFAModel, image_size: int) -> Traced:
    tokens = torch.full((2, 7), 4)
    images = torch.zeros(2, 3, image_size, image_size)
    batch, length = _any("batch", MOST_SAMPLES), _any("length", model.config.max_source_positions)
    program = export(EncoderGraph(model), (tokens, images), dynamic_shapes=({0: batch, 1: length}, {0: batch}))
    outputs = ["states", "padding", "position_keys", *_layered(model, "cross")]
    return Traced(program, ["tokens", "images"], outputs)


def _decoder(model: OFAModel, image_size: int) -> Traced:
    """The step, traced with sizes of which none is 1 or another's, so that none is taken for a fact."""
    config = model.config
    batch, beams, new, earlier, source = 2, 3, 4, 5, 9
    heads, width, parts = config.num_heads, config.head_dim, 2 * config.decoder_layers
    example = (
        torch.full((batch, beams, new), 4),
        torch.zeros(batch, source, dtype=torch.bool),
        torch.zeros(heads, source, width),
        [torch.zeros(batch, heads, source, width) for _ in range(parts)],
        [torch.zeros(batch, beams, heads, earlier, width) for _ in range(parts)],
    )
    samples, rows = _any("batch", MOST_SAMPLES), _any("beams", MOST_SAMPLES)
    places = _any("source", config.max_source_positions + config.image_bucket_size**2)
    after, before = _any("new", config.max_target_positions), _any("past", config.max_target_positions, least=0)
    shapes: tuple[Any, ...] = (
        {0: samples, 1: rows, 2: after},
        {0: samples, 1: places},
        {1: places},
        [{0: samples, 2: places}] * parts,
        [{0: samples, 1: rows, 3: before}] * parts,
    )
    program = export(DecoderGraph(model), example, dynamic_shapes=shapes)
    inputs = ["tokens", "padding", "position_keys", *_layered(model, "cross"), *_layered(model, "past")]
    return Traced(program, inputs, ["logits", *_layered(model, "present")])


def _any(name: str, most: int, least: int = 1) -> Any:
    return Dim(name, min=least, max=most)


def _layered(model: OFAModel, name: str) -> list[str]:
    """Names of the keys and values of each layer of the decoder."""
    layers = range(model.config.decoder_layers)
    return [f"{name}_{part}_{layer}" for layer in layers for part in ("keys", "values")]


def _write(graph: Traced, path: Path, written: Format) -> None:
    if written == "torch":
        torch.export.save(graph.program, path)
        return
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):  # torch tells of each of its steps
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            graph.program, (), input_names=graph.inputs, output_names=graph.outputs, opset_version=OPSET, dynamo=True
        )
        program.save(str(path), external_data=True)  # one file may hold 2 GB, and large models hold more
