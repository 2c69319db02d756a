"""A folder with a model for other engines: its graphs, its vocabulary, what grounding asks, and the runner."""

from __future__ import annotations

import json
import shutil
import tempfile
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from .. import api
from ..api import OFA
from ..checkpoint.model_dir import CONFIG_FILE, WEIGHTS_FILE, atomic_directory
from ..errors import OFAError
from ..generation import GenerationOptions
from ..heads.any_boxes import LEAST_MASS, least_mass, names_any_number
from ..heads.grounding import SPEC, refcoco_codec
from ..heads.pipeline import Pipeline, fill_prompt
from ..version import __version__
from ..vision.transform import IMAGENET_STATISTICS, OFA_STATISTICS
from .graph_files import OPSET, SUFFIXES, Format, checked_format, write_graphs
from .rounding import Comparison, check_onnxruntime, compare, drawn_questions, round_weights
from .runner import Runner

RUNNER_FILE = "runner.py"
#: Settings of a search that the runner has; others have to be the defaults.
SEARCHED = (
    "num_beams", "max_new_tokens", "max_new_tokens_per_source_token", "min_new_tokens", "length_penalty",
    "normalize_scores", "unk_penalty", "temperature", "no_repeat_ngram_size",
)  # fmt: skip
#: Settings without a meaning where no rule constrains tokens and all hypotheses are wanted.
NO_MATTER = ("constrain_after_softmax", "num_return_sequences")
#: Pictures on which int8 is compared with float32.
COMPARED = 32


def export_model(
    model: str | PathLike[str],
    directory: str | PathLike[str],
    format: str = "onnx",
    *,
    int8: bool = False,
    overwrite: bool = False,
    compared: int = COMPARED,
) -> Comparison | None:
    """Write a folder that other engines compute a model from. It appears whole or not at all.

    Args:
        model: what :func:`ofa_core.load` takes.
        directory: the folder.
        format: ``onnx`` for ONNX files and a runner on onnxruntime, or ``torch`` for programs of ``torch.export``.
        int8: round the weights of ONNX files to 8 bits, with onnxruntime's dynamic quantiser.
        overwrite: replace an earlier folder.
        compared: drawn pictures on which int8 is compared with float32.

    Returns:
        The comparison of int8 with float32, where the model grounds; otherwise None.

    Raises:
        OFAError: there is no such model or format, a package is missing, or the folder exists.
    """
    written = checked_format(format)
    if int8 and written != "onnx":
        raise OFAError("int8 rounds the weights of ONNX files: it needs the format onnx")
    if int8:
        check_onnxruntime()
    if compared < 1:
        raise OFAError(f"int8 is compared on at least one picture, not on {compared}")
    if (Path(directory) / WEIGHTS_FILE).exists():
        raise OFAError(f"{directory} is a model directory, which an export does not replace; choose another")
    with atomic_directory(Path(directory), overwrite) as temporary:
        ofa = api.load(model, dtype=torch.float32, optimize=False)
        settings = exported_config(ofa, written, int8)
        (temporary / CONFIG_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        ofa.tokenizer.save(temporary)
        side = ofa.pipeline.for_task(SPEC).transform.size
        if written == "onnx":
            shutil.copyfile(Path(__file__).with_name(RUNNER_FILE), temporary / RUNNER_FILE)
        if not int8:
            write_graphs(ofa.model, side, temporary, written)
            return None
        with tempfile.TemporaryDirectory(dir=temporary.parent) as exact:
            return _rounded(ofa, side, Path(exact), temporary, 0 if settings["ground"] is None else compared)


def _rounded(ofa: OFA, side: int, exact: Path, directory: Path, compared: int) -> Comparison | None:
    """Write graphs to ``exact`` and rounded ones to ``directory``, and compare both where the model grounds."""
    write_graphs(ofa.model, side, exact)
    round_weights(exact, directory)
    if not compared:
        return None
    for path in directory.iterdir():
        if not path.name.startswith(("encoder.onnx", "decoder.onnx")):
            shutil.copyfile(path, exact / path.name)
    with tempfile.TemporaryDirectory() as drawn:
        one, other = Runner(exact), Runner(directory)
        return compare(drawn_questions(Path(drawn), compared), one.ground, other.ground)


def exported_config(ofa: OFA, written: Format, int8: bool) -> dict[str, Any]:
    """The content of a folder's config.json: the making of the graphs, and all that the runner has to know."""
    pipeline = ofa.pipeline.for_task(SPEC)
    why_not = _cannot_ground(pipeline)
    return {
        "ofa_core": __version__,
        "format": written,
        "graphs": [f"{name}{SUFFIXES[written]}" for name in ("encoder", "decoder")],
        "opset": OPSET if written == "onnx" else None,
        "weights": "int8" if int8 else "float32",
        "image_size": pipeline.transform.size,
        "max_source_positions": ofa.model.config.max_source_positions,
        "why_not": why_not,
        "ground": None if why_not else _ground(pipeline),
        "search": None if why_not else _search(pipeline),
        "model": ofa.model.config.model_dump(mode="json"),
    }


def searched(options: GenerationOptions, max_target_positions: int) -> dict[str, Any]:
    """The settings of a search as the runner reads them.

    Raises:
        OFAError: a setting that the runner does not have.
    """
    values, defaults = options.model_dump(), GenerationOptions().model_dump()
    others = [name for name in values if name not in (*SEARCHED, *NO_MATTER) and values[name] != defaults[name]]
    others = [name for name in others if not (name == "diversity_penalty" and options.num_beam_groups == 1)]
    if others:
        raise OFAError(f"the runner's search does not know {', '.join(others)}")
    return {name: values[name] for name in SEARCHED} | {"max_target_positions": max_target_positions}


def _search(pipeline: Pipeline) -> dict[str, Any]:
    """The settings of the search for a phrase's boxes, and how a model that names any number says how many."""
    settings = searched(pipeline.options(SPEC), pipeline.model.config.max_target_positions)
    task, bins = pipeline.model.config.task, pipeline.tokenizer.vocabulary.bin_ids
    if not names_any_number(task):
        return settings
    least = least_mass(task.calibration)
    boxes = {"bin_ids": [bins.start, bins.stop], "least_first": least, "least_further": LEAST_MASS}
    return settings | {"boxes": boxes}


def _cannot_ground(pipeline: Pipeline) -> str:
    """The reason why the runner cannot ground with a model; "" where it can."""
    if pipeline.tokenizer.kind != "gpt2":
        return f"its vocabulary is of the kind {pipeline.tokenizer.kind}, the runner reads gpt2's alone"
    try:
        refcoco_codec(pipeline)
        fill_prompt(pipeline.prompt(SPEC, None), caption="")
        searched(pipeline.options(SPEC), pipeline.model.config.max_target_positions)
    except OFAError as error:
        return str(error)
    return ""


def _ground(pipeline: Pipeline) -> dict[str, Any]:
    """Everything about the question and the box."""
    task, bins = pipeline.model.config.task, pipeline.tokenizer.vocabulary.bin_ids
    mean, std = IMAGENET_STATISTICS if task.imagenet_normalization else OFA_STATISTICS
    return {
        "prompt": pipeline.prompt(SPEC, None),
        "max_words": pipeline.settings(SPEC).max_source_tokens,
        "image_size": pipeline.transform.size,
        "max_image_size": task.max_image_size,
        "num_bins": task.num_bins,
        "bin_ids": [bins.start, bins.stop],
        "mean": list(mean),
        "std": list(std),
    }
