"""A loaded model, and the way from what a method is given to its answers."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from ..checkpoint.image_codes import StoredVQGAN
from ..checkpoint.names import DEMO, DRAWING_DEMO
from ..config import OFAConfig
from ..errors import OFAError
from ..heads.answering import OnError, answer_all
from ..heads.arguments import unwrap
from ..heads.pipeline import Pipeline
from ..heads.tasks import GLUE, METHODS, TASKS, TaskSpec, answered_methods
from ..inference.fast_model import optimized, plain
from ..model.ofa import OFAModel
from ..text import Tokenizer
from ..vision.transform import ImageTransform
from ..vision.vqgan import VQGAN


class LoadedModel:
    """A network with all that its methods need to ask it; :class:`~ofa_core.OFA` describes the arguments."""

    #: The name that it was loaded by, or the last part of its path; None for a model that was made of its parts.
    name: str | None = None

    def __init__(
        self,
        model: OFAModel,
        tokenizer: Tokenizer,
        *,
        optimize: bool = True,
        int8: bool = False,
        compile_steps: bool = False,
        vqgan: VQGAN | Callable[[], VQGAN] | None = None,
    ) -> None:
        if (int8 or compile_steps) and not optimize:
            raise OFAError(f"{'int8' if int8 else 'compile_steps'} is an optimisation: it needs optimize=True")
        task = model.config.task
        #: The network that answers.
        self.model = optimized(model, int8=int8, compile_steps=compile_steps) if optimize else plain(model)
        self.tokenizer = tokenizer
        #: The model with its tokenizer and picture transform, as the functions in ``heads`` take them.
        self.pipeline = Pipeline(self.model, tokenizer, ImageTransform(task.image_size, task.imagenet_normalization))
        self._int8 = int8
        self._vqgan = vqgan
        self._warned: set[str] = set()

    def __repr__(self) -> str:
        config, name = self.model.config, "" if self.name is None else f" {self.name!r}"
        size = config.size or f"{self._parameters():,} parameters"
        return f"<OFA{name}: {size}, task {config.task.name!r}, {self.dtype} on {self.model.device}>"

    @property
    def draws(self) -> bool:
        """True if there is a network of image codes, so that the model can draw pictures and complete them."""
        return self._vqgan is not None and not (isinstance(self._vqgan, StoredVQGAN) and not self._vqgan.is_there)

    @property
    def vqgan(self) -> VQGAN:
        """The network that makes pictures of image codes, and codes of pictures.

        Raises:
            OFAError: the model came without one.
        """
        if self._vqgan is None:
            raise OFAError(
                "this model has no network of image codes: load it from a directory, or pass OFA(..., vqgan=)"
            )
        if not self.draws and self.name == DEMO:
            raise OFAError(f"the model {DEMO} draws no pictures; {DRAWING_DEMO} does")
        if not isinstance(self._vqgan, VQGAN):
            self._vqgan = self._vqgan()
        return self._vqgan

    @property
    def dtype(self) -> str:
        """The type that it computes in: that of the weights, or ``int8``."""
        return "int8" if self._int8 else str(self.model.dtype).removeprefix("torch.")

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return self.model.device

    @property
    def config(self) -> OFAConfig:
        """Sizes and settings of the network."""
        return self.model.config

    def _parameters(self) -> int:
        """The number of weights, each counted once."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def _keep(self, spec: TaskSpec) -> Callable[[Any], Any]:
        """Reduces a picture of a generator to what a task needs of it."""
        return self.pipeline.for_task(spec).keep

    def _answers(
        self,
        head: Callable[..., Sequence[Any]],
        single: bool,
        batch_size: int,
        progress: bool,
        on_error: OnError,
        **columns: Sequence[Any] | None,
    ) -> Any:
        """The results of a head for samples, whose arguments are ``columns``; the only one of a ``single`` sample."""
        self._warn_of_unlearned(head)
        found = answer_all(self.pipeline, head, columns, batch_size=batch_size, progress=progress, on_error=on_error)
        return unwrap(found, single)

    def _warn_of_unlearned(self, head: Callable[..., Sequence[Any]]) -> None:
        """Warn, once for each method, that the model was trained for other tasks alone."""
        function, keywords = (head.func, head.keywords) if isinstance(head, partial) else (head, {})
        self._warn_unless_learned(function.__name__, keywords, stacklevel=6)

    def _warn_unless_learned(
        self, name: str, keywords: Mapping[str, Any] | None = None, *, stacklevel: int = 3
    ) -> None:
        """Warn where the model was not trained for a method; ``stacklevel`` counts from here to the user's line."""
        task = self.model.config.task
        if name == "judge":
            glue = (keywords or {})["task"]
            learned = glue not in GLUE or TASKS[glue].is_learned_by(task)
        else:
            learned = name not in METHODS or name in answered_methods(task)
        if not learned and name not in self._warned:
            self._warned.add(name)
            warnings.warn(
                f"this model was trained for {task.name!r} and not for what {name} asks; its answers mean little",
                stacklevel=stacklevel,
            )
