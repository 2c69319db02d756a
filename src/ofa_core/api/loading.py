"""Loading a model by its name or its place."""

from __future__ import annotations

from importlib.metadata import entry_points
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError

from ..checkpoint.image_codes import StoredVQGAN
from ..checkpoint.lora import load_adapted
from ..checkpoint.model_dir import load_model, load_tokenizer
from ..checkpoint.names import already_converted, is_checkpoint, locate
from ..config import TaskSettings
from ..errors import OFAError, first_problem
from ..inference.int8 import check_int8
from .devices import as_dtype, check_device
from .ofa import OFA

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..config import TaskChanges


def load(
    model: str | PathLike[str],
    *,
    adapter: str | PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    optimize: bool = True,
    compile_steps: bool = False,
    warm_up: bool = False,
    **task: Unpack[TaskChanges],
) -> OFA:
    """Load a model.

    Args:
        model: a model directory written by ``convert-ckpt``; or any checkpoint that it reads, which is then converted
            once, into the cache, with a line on stderr that says so; or the name of a released checkpoint, such as
            ``"refcoco_large_best"`` or ``"OFA-Sys/ofa-base"``, which is downloaded once; or ``"hf:org/name"``, with
            ``@revision`` or without, for any other repository of the Hugging Face hub; or ``"demo"`` or
            ``"demo-pictures"``, small models that come with the package: one answers about coloured shapes, the other
            draws them. A path that exists wins over a name.
        adapter: a directory with a low-rank adapter of this model (LoRA), which training with ``lora`` or peft wrote.
            It is merged into the weights, so that answers take no longer, and its task settings are taken on.
        device: where the model shall run, such as ``"cpu"`` or ``"cuda"``.
        dtype: float32, float16 or bfloat16, or its name, such as ``"float16"``; None means float32 on a CPU and what is
            stored elsewhere. int8 is float32 with the weights of linear layers rounded to 8 bits, on CPUs: faster, but
            not equal.
        optimize: whether to compute faster, see :class:`OFA`.
        compile_steps: whether decoding steps go through ``torch.compile``: on GPUs, for many pictures.
        warm_up: whether the first answer's own work is done at once, see :meth:`OFA.warm_up`.
        task: settings to use instead of those the model was trained with, such as ``image_size=480``; see
            :class:`TaskSettings`.

    Returns:
        The model with everything it needs to answer.

    Raises:
        CheckpointError: the directory or a file in it is missing or broken, or there is no such name, or it cannot be
            downloaded.
        OFAError: a device or a type that cannot be used, or a setting that does not exist.
    """
    check_device(device)
    dtype = as_dtype(dtype)
    int8 = dtype == torch.int8
    if int8:
        check_int8(torch.device(device))
    directory = model_directory(model)
    dtype = torch.float32 if int8 else dtype
    if adapter is None:
        network = load_model(directory, device, dtype)
    else:
        network = load_adapted(directory, Path(adapter).expanduser(), device, dtype)
    tokenizer = load_tokenizer(directory, network.config)
    if task:
        try:
            settings = TaskSettings.model_validate({**network.config.task.model_dump(), **task})
        except ValidationError as error:
            raise OFAError(first_problem(error, "task settings")) from None
        network.config = network.config.model_copy(update={"task": settings})
    ofa = OFA(
        network,
        tokenizer,
        optimize=optimize,
        int8=int8,
        compile_steps=compile_steps,
        vqgan=StoredVQGAN(directory, device, None if int8 else dtype),
    )
    ofa.name = "+".join(_short_name(given) for given in (model, adapter) if given is not None)
    if warm_up:
        ofa.warm_up()
    return ofa


def model_directory(name: str | PathLike[str]) -> Path:
    """The model directory that a path or a name means.

    What is no model directory is converted once, into the cache, by the installed converter.

    Raises:
        CheckpointError: there is no such path or name, or it cannot be downloaded or converted.
    """
    if (before := already_converted(name)) is not None:
        return before
    located = locate(name)
    for converter in entry_points(group="ofa_core.converters") if is_checkpoint(located.path) else ():
        directory: Path = converter.load()(located.path, located.label)
        return directory
    return located.path


def _short_name(given: str | PathLike[str]) -> str:
    """The last part of a path that exists; a name as it is."""
    path = Path(given).expanduser()
    return path.resolve().name if path.exists() else fspath(given)
