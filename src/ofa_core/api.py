"""OFA as its users see it: load once, then ask about one picture or many."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch
from PIL.Image import Image
from pydantic import ValidationError

from .checkpoint.card import CardScore, model_card
from .checkpoint.hub import SCHEME, upload
from .checkpoint.image_codes import VQGAN_FILE, StoredVQGAN, write_vqgan
from .checkpoint.lora import load_adapted
from .checkpoint.model_dir import load_model, load_tokenizer, save_directory
from .checkpoint.names import already_converted, is_checkpoint, locate
from .config import TaskSettings
from .errors import OFAError, first_problem
from .generation import GenerationOptions
from .generation.options import SearchOptions
from .generation.scoring import DecoderPrompt
from .heads import (
    caption,
    caption_grounding,
    classification,
    detection,
    entailment,
    explanation,
    glue,
    grounding,
    image_codes,
    image_generation,
    infilling,
    matching,
    ocr,
    oracle,
    presence,
    questioner,
    vqa,
)
from .heads import text as text_heads
from .heads.answering import OnError, answer_all
from .heads.arguments import as_list, listed, one_per_image, one_per_text, pair_up, text_list, unwrap
from .heads.caption import Caption
from .heads.caption_grounding import GroundedCaption
from .heads.chat import Chat
from .heads.chat_styles import ChatStyle
from .heads.confidence import Decode
from .heads.detection import DetectionStyle
from .heads.explanation import Explanation
from .heads.grounding import DIALOG_OPTIONS, Grounding
from .heads.image_codes import Codes
from .heads.image_generation import Imagined, OnRow, Rank
from .heads.matching import Match
from .heads.ocr import Reading
from .heads.options import (
    AgentOptions,
    AnswerOptions,
    AskOptions,
    BatchOptions,
    ClosedSetOptions,
    DetectOptions,
    ExplainOptions,
    GenerateOptions,
    GroundDialogOptions,
    GroundOptions,
    HeadOptions,
    ImagineOptions,
    OracleOptions,
    PromptedTextOptions,
    ReadOptions,
    SureOptions,
    TextOptions,
)
from .heads.oracle import ANSWERS, OracleAnswer, Scoring
from .heads.pipeline import EncodedImage, Picture, Pipeline
from .heads.questioner import AgentTurn
from .heads.results import Answer, Detections, Text
from .heads.tasks import GLUE, METHODS, TASKS, TaskSpec, answered_methods
from .heads.vqa import Method
from .inference.fast_model import optimized, plain, refresh
from .inference.int8 import check_int8
from .model.ofa import OFAModel
from .text import Tokenizer
from .text.dialog import Dialog, Style
from .version import __version__
from .vision.images import ImageLike
from .vision.transform import ImageTransform
from .vision.vqgan import VQGAN

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .config import TaskChanges


def load(
    model: str | PathLike[str],
    *,
    adapter: str | PathLike[str] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | str | None = None,
    optimize: bool = True,
    compile_steps: bool = False,
    **task: Unpack[TaskChanges],
) -> OFA:
    """Load a model.

    Args:
        model: a model directory written by ``convert-ckpt``; or any checkpoint that it reads, which is then converted
            once, into the cache, with a line on stderr that says so; or the name of a released checkpoint, such as
            ``"refcoco_large_best"`` or ``"OFA-Sys/ofa-base"``, which is downloaded once; or ``"hf:org/name"``, with
            ``@revision`` or without, for any other repository of the Hugging Face hub; or ``"demo"``, the small model
            that comes with the package and knows coloured shapes. A path that exists wins over a name.
        adapter: a directory with a low-rank adapter of this model (LoRA), which training with ``lora`` or peft wrote.
            It is merged into the weights, so that answers take no longer, and its task settings are taken on.
        device: where the model shall run, such as ``"cpu"`` or ``"cuda"``.
        dtype: float32, float16 or bfloat16, or its name, such as ``"float16"``; None means float32 on a CPU and what is
            stored elsewhere. int8 is float32 with the weights of linear layers rounded to 8 bits, on CPUs: faster, but
            not equal.
        optimize: whether to compute faster, see :class:`OFA`.
        compile_steps: whether decoding steps go through ``torch.compile``: on GPUs, for many pictures.
        task: settings to use instead of those the model was trained with, such as ``image_size=480``; see
            :class:`TaskSettings`.

    Returns:
        The model with everything it needs to answer.

    Raises:
        CheckpointError: the directory or a file in it is missing or broken, or there is no such name, or it cannot be
            downloaded.
        OFAError: a device or a type that cannot be used, or a setting that does not exist.
    """
    _check_device(device)
    dtype = _as_dtype(dtype)
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
    return OFA(
        network,
        tokenizer,
        optimize=optimize,
        int8=int8,
        compile_steps=compile_steps,
        vqgan=StoredVQGAN(directory, device, None if int8 else dtype),
    )


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


def _as_dtype(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """``dtype``, by its name in torch too (``float16``, ``half``, ``torch.float16``), if it is one to compute in."""
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found is None and dtype is None:
        return None
    if not isinstance(found, torch.dtype) or not (found == torch.int8 or found.is_floating_point):
        raise OFAError(f"dtype must be float32, float16, bfloat16 or int8, not {dtype}")
    return found


def _check_device(device: str | torch.device) -> None:
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise OFAError(f"device {str(device)!r} is not available here: torch finds no CUDA GPU")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OFAError(f"device {str(device)!r} is not available here: {str(error).splitlines()[0]}") from None


def _parameters(model: OFAModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class OFA:
    """A loaded model with everything it needs to answer questions about pictures.

    A picture is a path, a PIL image, an array [h, w, 3] of uint8, a tensor [3, h, w], encoded bytes, an open file, what
    :meth:`look` made of one, or anything else of :data:`~ofa_core.vision.images.ImageLike`. Phone pictures are turned
    upright as their EXIF data say, and boxes lie in the upright picture; ``pipeline.transform.like_original = True``
    reads files as the original does. Every method takes one picture or a list of pictures of any sizes (a generator, an
    array or a pandas Series too) and then returns a list. One text goes with every picture of a list, and a list of
    texts goes with one picture; boxes and dialogs come one for each picture.

    A picture is read when its turn comes, and of a long list only two batches are held. With ``progress`` a bar tells
    how far a call has come. With ``on_error="skip"`` a sample that cannot be answered, such as one with a damaged file,
    gives None and a warning, instead of an error for all.

    ``options`` are :class:`~ofa_core.GenerationOptions` to change, by name. ``batch_size`` is how many samples are
    computed at once. ``prompt`` replaces the text the model was trained with. All methods raise :class:`OFAError` where
    a picture cannot be read, a text or list is empty, lists do not pair up, or an option does not exist.

    With ``optimize`` the modules of ``model`` change their classes to faster ones, in place, as :func:`optimized` says:
    several times faster, at more memory, and equal within rounding. Without it they are the plain ones. ``int8`` rounds
    the weights of linear layers to 8 bits, which is no longer equal; ``compile_steps`` decodes through
    ``torch.compile``. One model has one way to answer: the last :class:`OFA` made of it decides.

    Whatever is done to :attr:`model` counts at the next answer: hooks, layers that are replaced, weights that are
    written to. Weights are compared by a sample of their values, so a write to a few of them through ``.data``, of
    which torch keeps no count, may go unseen; :meth:`refresh` is for that.

    Args:
        model: the network, in evaluation mode.
        tokenizer: its tokenizer.
        optimize: whether to compute faster.
        int8: whether to round the weights of linear layers to 8 bits.
        compile_steps: whether decoding steps go through ``torch.compile``.
        vqgan: the network that makes pictures of image codes, or what loads it where it is needed.

    Raises:
        OFAError: ``int8`` or ``compile_steps`` without ``optimize``, or int8 where it cannot be computed.
    """

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
        if not isinstance(self._vqgan, VQGAN):
            self._vqgan = self._vqgan()
        return self._vqgan

    @property
    def dtype(self) -> str:
        """The type that it computes in: that of the weights, or ``int8``."""
        return "int8" if self._int8 else str(self.model.dtype).removeprefix("torch.")

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
        self._warn_unless_learned(function.__name__, keywords)

    def _warn_unless_learned(self, name: str, keywords: Mapping[str, Any] | None = None) -> None:
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
                stacklevel=5,
            )

    def save(self, directory: str | PathLike[str], *, card: str | None = None, overwrite: bool = False) -> None:
        """Write the model as a directory that :func:`load` takes, which appears whole or not at all.

        The network of image codes goes with it, where there is one.

        Args:
            directory: the directory.
            card: its README.md; None writes one with architecture, task and how to load it.
            overwrite: replace a model directory that exists.

        Raises:
            CheckpointError: ``directory`` exists, or the network was changed to one that its configuration does not
                describe, such as by adapters of other libraries: these are merged first.
        """
        state, config = self.model.state_dict(), self.model.config
        card = card or model_card(config, _parameters(self.model), load=str(directory))
        provenance = {"source": "a model in memory", "source_kind": "OFA.save", "ofa_core": __version__}
        without = self._vqgan is None or (isinstance(self._vqgan, StoredVQGAN) and not self._vqgan.is_there)
        files = {} if without else {VQGAN_FILE: partial(write_vqgan, state=self.vqgan.state_dict())}
        save_directory(
            directory, state, config, self.tokenizer, provenance, card=card, overwrite=overwrite, files=files
        )

    def push_to_hub(
        self, repository: str, *, private: bool = False, data: Sequence[str] = (), scores: Sequence[CardScore] = ()
    ) -> str:
        """Put the model, with a model card, into a repository of the Hugging Face hub, which is made if need be.

        Args:
            repository: ``org/name``.
            private: whether a new repository is private.
            data: names of what it was trained on, for the card.
            scores: results of benchmarks, for the card.

        Returns:
            The address of the repository.

        Raises:
            CheckpointError: huggingface_hub is not installed, or the hub refuses it; and as :meth:`save`.
        """
        config, parameters = self.model.config, _parameters(self.model)
        card = model_card(config, parameters, load=f"{SCHEME}{repository}", data=data, scores=scores)
        with tempfile.TemporaryDirectory() as place:
            self.save(Path(place) / "model", card=card)
            return upload(Path(place) / "model", repository, private=private, message="Model of ofa_core")

    def refresh(self) -> None:
        """Take all weights of :attr:`model` anew: after a write to a few of them that torch keeps no count of."""
        refresh(self.model)

    @overload
    def look(self, image: Picture) -> EncodedImage: ...
    @overload
    def look(self, image: list[Any]) -> list[EncodedImage]: ...
    def look(self, image: Any) -> Any:
        """Run the image stem once: every method takes the result in place of the picture, at the same results."""
        images, single = as_list(image, self.pipeline.keep)
        return unwrap(self.pipeline.look(images), single)

    @overload
    def ground(self, image: Picture, text: str, **options: Unpack[GroundOptions]) -> Grounding: ...
    @overload
    def ground(self, image: list[Any], text: str | list[str], **options: Unpack[GroundOptions]) -> list[Grounding]: ...
    @overload
    def ground(self, image: Picture, text: list[str], **options: Unpack[GroundOptions]) -> list[Grounding]: ...
    def ground(
        self,
        image: Any,
        text: Any,
        *,
        bins_only: bool = False,
        threshold: float = 0.0,
        confidence: bool | None = None,
        decode: Decode | None = None,
        all: bool = False,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Find the box of what a phrase such as ``"the man in white"`` describes.

        Args:
            image: a picture or a list of them.
            text: the phrase, one for each picture or one for all.
            bins_only: let the model say nothing but box coordinates.
            threshold: the least score, 0 to 1, with which a box is returned.
            confidence: tell how sure the box is and whether the thing is there, by boxes drawn from the model's own
                distribution; None: if the model was calibrated (``ofa-core calibrate``).
            decode: the box that is returned: ``argmax``, the most likely; ``expected``, the mean around it; ``mbr``,
                the one with the highest expected IoU. None: ``mbr`` if the model was calibrated, else ``argmax``.
            all: give every region that the phrase fits in ``regions``, each with its share of what the model means.
            prompt: a prompt instead of the model's own; it holds ``{caption}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The box in xyxy pixels of the picture, or None in its place, with score, confidence, bins and alternatives.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, texts, single = pair_up(image, text, self._keep(grounding.SPEC))
        head = partial(
            grounding.ground,
            options=self.pipeline.options(grounding.SPEC).updated(**options),
            bins_only=bins_only,
            threshold=threshold,
            sureness=grounding.asked_sureness(self.pipeline, confidence, decode, all),
            prompt=prompt,
        )
        return self._answers(head, single, batch_size, progress, on_error, images=images, captions=texts)

    @overload
    def ground_caption(
        self, image: Picture, text: str, phrases: Sequence[str] | None = None, **options: Unpack[SureOptions]
    ) -> GroundedCaption: ...
    @overload
    def ground_caption(
        self, image: list[Any], text: list[str], phrases: list[Any] | None = None, **options: Unpack[SureOptions]
    ) -> list[GroundedCaption]: ...
    def ground_caption(
        self,
        image: Any,
        text: Any,
        phrases: Any = None,
        *,
        confidence: bool | None = None,
        decode: Decode | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Find a box for each thing that a caption such as ``"a man with a dog on a sofa"`` names.

        Args:
            image: a picture or a list of them.
            text: the caption, one for each picture or one for all.
            phrases: the parts of the caption to look for, a list for each caption; None finds its noun phrases by a few
                rules of English.
            confidence: as for :meth:`ground`.
            decode: as for :meth:`ground`.
            batch_size: phrases computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            The phrases in their order, each with its place in the caption and its grounding.

        Raises:
            OFAError: see :class:`OFA`; or a phrase does not stand in the caption.
        """
        images, texts, single = pair_up(image, text, self._keep(grounding.SPEC))
        given = [None] * len(texts) if phrases is None else one_per_image(phrases, len(texts), single, "phrase lists")
        head = partial(
            caption_grounding.ground_caption, sureness=grounding.asked_sureness(self.pipeline, confidence, decode)
        )
        return self._answers(head, single, batch_size, progress, on_error, images=images, texts=texts, phrases=given)

    @overload
    def explain(
        self, image: Picture, text: str, answer: str | None = None, **options: Unpack[ExplainOptions]
    ) -> Explanation: ...
    @overload
    def explain(
        self, image: list[Any], text: str | list[str], answer: Any = None, **options: Unpack[ExplainOptions]
    ) -> list[Explanation]: ...
    def explain(
        self,
        image: Any,
        text: Any,
        answer: Any = None,
        *,
        gradients: bool = False,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Tell where the decoder looks for the box of a phrase, or for another answer.

        Args:
            image: a picture or a list of them.
            text: the phrase, one for each picture or one for all.
            answer: the answer to explain, one for each phrase; None for the model's own.
            gradients: weigh attention by how much more likely it makes the answer.
            prompt: a prompt instead of that of :meth:`ground`; it holds ``{caption}``, in whose place the text stands.
            batch_size: samples computed at once, where the model is asked for its answer.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            A map of the attention from the answer to the picture, the mean of all layers and heads, which
            :meth:`~ofa_core.Explanation.draw` lays over the picture.

        Raises:
            OFAError: see :class:`OFA`; or the model gives no answer.
        """
        images, texts, single = pair_up(image, text)
        many = listed(answer)
        answers = [answer] * len(texts) if many is None else one_per_image(many, len(texts), False, "answers")
        head = partial(explanation.explain, gradients=gradients, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images, texts=texts, answers=answers)

    @overload
    def detect(
        self, image: Picture, categories: str | Sequence[str] | None = None, **options: Unpack[DetectOptions]
    ) -> Detections: ...
    @overload
    def detect(
        self, image: list[Any], categories: str | Sequence[str] | None = None, **options: Unpack[DetectOptions]
    ) -> list[Detections]: ...
    def detect(
        self,
        image: Any,
        categories: Any = None,
        *,
        style: DetectionStyle | None = None,
        threshold: float = 0.0,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Find everything in a picture, or all things of some names.

        Args:
            image: a picture or a list of them.
            categories: a name such as ``"cars"`` or a list of names, the same for all pictures; None for everything.
            style: ``ofa`` lists all objects in one answer, of which those of the names are kept; ``tio`` asks for one
                name after the other. By default that of the model: ``tio`` for one whose task has this name.
            threshold: the least score, 0 to 1, of a region.
            prompt: a prompt for ``ofa`` instead of the model's own.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            Boxes in xyxy pixels of the picture, each with its label and score, without duplicates.

        Raises:
            OFAError: no or empty names, or no such style; and see :class:`OFA`.
        """
        names = None if categories is None else detection.checked_names(text_list(categories))
        images, single = as_list(image, self.pipeline.keep)
        spoken = detection.style_for(self.pipeline, names, style)
        usual = self.pipeline.options(detection.SPEC) if spoken == "ofa" else DIALOG_OPTIONS
        head = partial(
            detection.detect,
            categories=names,
            style=spoken,
            options=usual.updated(**options),
            threshold=threshold,
            prompt=prompt,
        )
        return self._answers(head, single, batch_size, progress, on_error, images=images)

    @overload
    def ground_dialog(self, image: Picture, dialog: Dialog, **options: Unpack[GroundDialogOptions]) -> Grounding: ...
    @overload
    def ground_dialog(
        self, image: list[Any], dialog: list[Dialog], **options: Unpack[GroundDialogOptions]
    ) -> list[Grounding]: ...
    def ground_dialog(
        self,
        image: Any,
        dialog: Any,
        *,
        style: Style = "guesswhat",
        threshold: float = 0.0,
        confidence: bool | None = None,
        decode: Decode | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Find the box that a dialog is about.

        Args:
            image: a picture or a list of them.
            dialog: (question, answer) pairs or single turns, one dialog for each picture.
            style: ``guesswhat``, where the agent's question comes first, or ``invig``, where the person's query does.
            threshold: the least score, 0 to 1, with which a box is returned.
            confidence: as for :meth:`ground`.
            decode: as for :meth:`ground`.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The box in xyxy pixels of the picture, or None in its place, with score, bins and alternatives.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self.pipeline.keep)
        dialogs = one_per_image(dialog, len(images), single, "dialogs")
        changed = DIALOG_OPTIONS.updated(**options)
        sureness = grounding.asked_sureness(self.pipeline, confidence, decode)
        head = partial(grounding.ground_dialog, style=style, options=changed, threshold=threshold, sureness=sureness)
        return self._answers(head, single, batch_size, progress, on_error, images=images, dialogs=dialogs)

    @overload
    def oracle(
        self,
        image: Picture,
        box: Sequence[float],
        dialog: Dialog,
        question: str,
        **options: Unpack[OracleOptions],
    ) -> OracleAnswer: ...
    @overload
    def oracle(
        self,
        image: list[Any],
        box: Sequence[Sequence[float]],
        dialog: list[Dialog],
        question: str | list[str],
        **options: Unpack[OracleOptions],
    ) -> list[OracleAnswer]: ...
    def oracle(
        self,
        image: Any,
        box: Any,
        dialog: Any,
        question: Any,
        *,
        style: Style = "guesswhat",
        answers: Sequence[str] = ANSWERS,
        scoring: Scoring = "first_token",
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Answer a question about a region.

        Args:
            image: a picture or a list of them.
            box: the region, (x0, y0, x1, y1) in pixels, one for each picture.
            dialog: what was asked and answered before, possibly nothing, one for each picture.
            question: the question, one for each picture or one for all.
            style: ``guesswhat``, where the answer is one of ``answers``, or ``invig``, where it is free text.
            answers: the answers that are allowed.
            scoring: probabilities of the answers' first tokens, as the published code does (``first_token``), or of
                whole answers (``candidates``).
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search for free text, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The answer, with a probability for each of ``answers``.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self.pipeline.keep)
        count = len(images)
        questions = listed(question)
        changed = DIALOG_OPTIONS.updated(**options)
        return self._answers(
            partial(oracle.oracle, style=style, answers=text_list(answers), scoring=scoring, options=changed),
            single,
            batch_size,
            progress,
            on_error,
            images=images,
            boxes=one_per_image(box, count, single, "boxes"),
            dialogs=one_per_image(dialog, count, single, "dialogs"),
            questions=[question] * count if questions is None else one_per_image(questions, count, single, "questions"),
        )

    @overload
    def query(self, image: Picture, box: Sequence[float], **options: Unpack[TextOptions]) -> Text: ...
    @overload
    def query(self, image: list[Any], box: Sequence[Sequence[float]], **options: Unpack[TextOptions]) -> list[Text]: ...
    def query(
        self,
        image: Any,
        box: Any,
        *,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Say how a person who means a region would first ask for it (InViG).

        Args:
            image: a picture or a list of them.
            box: the region, (x0, y0, x1, y1) in pixels, one for each picture.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The query.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self.pipeline.keep)
        boxes = one_per_image(box, len(images), single, "boxes")
        head = partial(oracle.query, options=DIALOG_OPTIONS.updated(**options))
        return self._answers(head, single, batch_size, progress, on_error, images=images, boxes=boxes)

    @overload
    def ask(self, image: Picture, dialog: Dialog, **options: Unpack[AskOptions]) -> Text: ...
    @overload
    def ask(self, image: list[Any], dialog: list[Dialog], **options: Unpack[AskOptions]) -> list[Text]: ...
    def ask(
        self,
        image: Any,
        dialog: Any,
        *,
        style: Style = "guesswhat",
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Ask the next question of someone who wants to find out what a dialog is about.

        Args:
            image: a picture or a list of them.
            dialog: (question, answer) pairs or single turns, one dialog for each picture.
            style: ``guesswhat`` or ``invig``, see :meth:`ground_dialog`.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The question.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self.pipeline.keep)
        dialogs = one_per_image(dialog, len(images), single, "dialogs")
        head = partial(questioner.ask, style=style, options=DIALOG_OPTIONS.updated(**options))
        return self._answers(head, single, batch_size, progress, on_error, images=images, dialogs=dialogs)

    @overload
    def agent_turn(self, image: Picture, dialog: Dialog, **options: Unpack[AgentOptions]) -> AgentTurn: ...
    @overload
    def agent_turn(
        self, image: list[Any], dialog: list[Dialog], **options: Unpack[AgentOptions]
    ) -> list[AgentTurn]: ...
    def agent_turn(
        self,
        image: Any,
        dialog: Any,
        *,
        ambiguity: bool = False,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Take the turn of an agent who may guess: ask a question, or say which region it is (InViG).

        Args:
            image: a picture or a list of them.
            dialog: the person's query, then (question, answer) pairs or single turns; one dialog for each picture.
            ambiguity: tell how many regions the dialog may still mean, in bits, for one more look at the picture.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            A question or a grounding.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self.pipeline.keep)
        dialogs = one_per_image(dialog, len(images), single, "dialogs")
        head = partial(questioner.agent_turn, options=DIALOG_OPTIONS.updated(**options), ambiguity=ambiguity)
        return self._answers(head, single, batch_size, progress, on_error, images=images, dialogs=dialogs)

    @overload
    def caption(self, image: Picture, **options: Unpack[PromptedTextOptions]) -> Caption: ...
    @overload
    def caption(self, image: list[Any], **options: Unpack[PromptedTextOptions]) -> list[Caption]: ...
    def caption(
        self,
        image: Any,
        *,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Caption a picture.

        Args:
            image: a picture or a list of them.
            prompt: a prompt instead of the model's own.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The caption.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self._keep(caption.SPEC))
        changed = self.pipeline.options(caption.SPEC).updated(**options)
        head = partial(caption.caption, options=changed, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images)

    @overload
    def describe_region(self, image: Picture, box: Sequence[float], **options: Unpack[PromptedTextOptions]) -> Text: ...
    @overload
    def describe_region(
        self, image: list[Any], box: Sequence[Sequence[float]], **options: Unpack[PromptedTextOptions]
    ) -> list[Text]: ...
    def describe_region(
        self,
        image: Any,
        box: Any,
        *,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Describe a region of a picture.

        Args:
            image: a picture or a list of them.
            box: the region, (x0, y0, x1, y1) in pixels, one for each picture.
            prompt: a prompt instead of the model's own; the region follows it.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The description.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self._keep(caption.REGION_SPEC))
        boxes = one_per_image(box, len(images), single, "boxes")
        changed = self.pipeline.options(caption.REGION_SPEC).updated(**options)
        head = partial(caption.describe_region, options=changed, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images, boxes=boxes)

    @overload
    def answer(self, image: Picture, question: str, **options: Unpack[AnswerOptions]) -> Answer: ...
    @overload
    def answer(self, image: list[Any], question: str | list[str], **options: Unpack[AnswerOptions]) -> list[Answer]: ...
    @overload
    def answer(self, image: Picture, question: list[str], **options: Unpack[AnswerOptions]) -> list[Answer]: ...
    def answer(
        self,
        image: Any,
        question: Any,
        *,
        candidates: Sequence[str] | None = None,
        method: Method = "score",
        objects: Any = None,
        box: Any = None,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Answer a question about a picture with free text or one of given answers.

        Args:
            image: a picture or a list of them.
            question: the question, one for each picture or one for all.
            candidates: the answers that are allowed; None for free text.
            method: ``score`` gives each candidate its probability, ``beam`` searches the tree of them.
            objects: names of what a detector saw, a list for each picture, for models trained with them.
            box: a region that the question is about, (x0, y0, x1, y1) in pixels, one for each picture.
            decoder_prompt: the decoder's prompt instead of the one the checkpoint was trained with.
            prompt: a prompt instead of the model's own; it holds ``{question}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The answer, with a probability for each candidate.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, questions, single = pair_up(image, question, self._keep(vqa.SPEC))
        count = len(images)
        head = partial(
            vqa.answer,
            candidates=text_list(candidates),
            options=self.pipeline.options(vqa.SPEC).updated(**options),
            method=method,
            decoder_prompt=decoder_prompt,
            prompt=prompt,
        )
        return self._answers(
            head,
            single,
            batch_size,
            progress,
            on_error,
            images=images,
            questions=questions,
            objects=None if objects is None else one_per_image(objects, count, single, "lists of objects"),
            boxes=None if box is None else one_per_image(box, count, single, "boxes"),
        )

    @overload
    def entails(
        self, image: Picture, text: str, caption: str | None = None, **options: Unpack[ClosedSetOptions]
    ) -> Answer: ...
    @overload
    def entails(
        self,
        image: list[Any],
        text: str | list[str],
        caption: list[str] | None = None,
        **options: Unpack[ClosedSetOptions],
    ) -> list[Answer]: ...
    @overload
    def entails(
        self, image: Picture, text: list[str], caption: list[str] | None = None, **options: Unpack[ClosedSetOptions]
    ) -> list[Answer]: ...
    def entails(
        self,
        image: Any,
        text: Any,
        caption: Any = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Decide whether a picture, or picture and caption, implies a text.

        Args:
            image: a picture or a list of them.
            text: the text, one for each picture or one for all.
            caption: a caption of each picture; None where there is none.
            decoder_prompt: the decoder's prompt instead of the one the checkpoint was trained with.
            prompt: a prompt instead of the model's own; it holds ``{hypothesis}`` and, with a caption, ``{caption}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            Yes, no or maybe, with a probability for each.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, texts, single = pair_up(
            image, text, self._keep(entailment.SPEC if caption is None else entailment.CAPTION_SPEC)
        )
        captions = None if caption is None else one_per_image(caption, len(images), single, "captions")
        head = partial(entailment.entails, decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(
            head, single, batch_size, progress, on_error, images=images, hypotheses=texts, captions=captions
        )

    @overload
    def classify(self, image: Picture, labels: Sequence[str], **options: Unpack[ClosedSetOptions]) -> Answer: ...
    @overload
    def classify(
        self, image: list[Any], labels: Sequence[str], **options: Unpack[ClosedSetOptions]
    ) -> list[Answer]: ...
    def classify(
        self,
        image: Any,
        labels: Sequence[str],
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Find the label that fits a picture best.

        Args:
            image: a picture or a list of them.
            labels: any texts, the same for all pictures.
            decoder_prompt: the decoder's prompt instead of the one the checkpoint was trained with.
            prompt: a prompt instead of the model's own.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            The best label, with a probability for each.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image, self._keep(classification.SPEC))
        head = partial(classification.classify, labels=text_list(labels), decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images)

    @overload
    def head_probabilities(
        self, head: str, text: str, image: Picture | None = None, **options: Unpack[HeadOptions]
    ) -> list[float]: ...
    @overload
    def head_probabilities(
        self, head: str, text: list[str], image: list[Any] | None = None, **options: Unpack[HeadOptions]
    ) -> list[list[float]]: ...
    def head_probabilities(
        self,
        head: str,
        text: Any,
        image: Any = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Compute probabilities of the classes of one of the checkpoint's classification heads.

        Args:
            head: the head's name.
            text: the text that the model reads, or a list of them.
            image: a picture or a list of them; None for text alone.
            decoder_prompt: the decoder's prompt instead of the one the checkpoint was trained with.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            A probability for each class.

        Raises:
            OFAError: there is no such head; and see :class:`OFA`.
        """
        images, texts, single = pair_up(image, text, self.pipeline.keep)
        return self._answers(
            partial(classification.head_probabilities, head=head, decoder_prompt=decoder_prompt),
            single,
            batch_size,
            progress,
            on_error,
            texts=texts,
            images=None if image is None else images,
        )

    @overload
    def summarize(self, text: str, **options: Unpack[PromptedTextOptions]) -> Text: ...
    @overload
    def summarize(self, text: list[str], **options: Unpack[PromptedTextOptions]) -> list[Text]: ...
    def summarize(
        self,
        text: Any,
        *,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Summarize a text.

        Args:
            text: the text or a list of them.
            prompt: a prompt instead of the model's own; it holds ``{text}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The summary.

        Raises:
            OFAError: see :class:`OFA`.
        """
        _, texts, single = pair_up(None, text)
        changed = self.pipeline.options(text_heads.SUMMARY_SPEC).updated(**options)
        head = partial(text_heads.summarize, options=changed, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, texts=texts)

    @overload
    def generate(self, text: str, image: Picture | None = None, **options: Unpack[GenerateOptions]) -> Text: ...
    @overload
    def generate(self, text: list[str], image: Any = None, **options: Unpack[GenerateOptions]) -> list[Text]: ...
    @overload
    def generate(self, text: str, image: list[Any], **options: Unpack[GenerateOptions]) -> list[Text]: ...
    def generate(
        self,
        text: Any,
        image: Any = None,
        *,
        symbols: bool = True,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Generate what follows a text, taken as it is, with a picture or without.

        Args:
            text: the text that the model reads, or a list of them.
            image: a picture or a list of them, in which None stands for no picture; None for text alone.
            symbols: read ``<bin_3>`` and ``<code_7>`` that stand alone as words as the model's symbols. Captions,
                questions and dialogs never are: what a person types in them is text.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: settings of the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The model's text.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, texts, single = pair_up(image, text, self.pipeline.keep)
        head = partial(text_heads.generate_text, options=GenerationOptions(**options), symbols=symbols)
        pictures = None if image is None else images
        return self._answers(head, single, batch_size, progress, on_error, texts=texts, images=pictures)

    def chat(self, image: Picture, *, style: ChatStyle = "invig", **options: Unpack[SearchOptions]) -> Chat:
        """Begin a conversation about a picture, in which the model finds out what a person means.

        Args:
            image: the picture; its image stem runs once.
            style: ``invig``, the published dialog task; or one of TiO's: ``tio`` (a reply, and what the dialog is about
                after it), ``tio_tasks`` (questions until the agent is sure), ``freeform``, ``freeform_grounding`` and
                ``guesser`` as in its demo.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The conversation: ``say`` something, ``undo`` it, ``ground`` what was said, ``reset``, ``save`` and
            ``load``; ``as_oracle`` changes the roles.

        Raises:
            OFAError: there is no such style; and see :class:`OFA`.
        """
        return Chat(self.pipeline, image, style, DIALOG_OPTIONS.updated(**options))

    # Further tasks of the original

    @overload
    def read(self, image: Picture, **options: Unpack[ReadOptions]) -> Reading: ...
    @overload
    def read(self, image: list[Any], **options: Unpack[ReadOptions]) -> list[Reading]: ...
    def read(
        self,
        image: Any,
        *,
        document: bool = False,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Read what is written on a picture, which keeps its aspect ratio.

        Args:
            image: a picture or a list of them.
            document: whether pictures are long lines of a document, which are cut into four parts.
            prompt: a prompt instead of the model's own.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The text, and its form without spaces.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, single = as_list(image)
        changed = self.pipeline.options(ocr.SPEC).updated(**options)
        head = partial(ocr.read, options=changed, document=document, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images)

    @overload
    def judge(self, task: str, text: str, text2: str | None = None, **options: Unpack[ClosedSetOptions]) -> Answer: ...
    @overload
    def judge(
        self, task: str, text: list[str], text2: list[str] | None = None, **options: Unpack[ClosedSetOptions]
    ) -> list[Answer]: ...
    def judge(
        self,
        task: str,
        text: Any,
        text2: Any = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Judge a text, or a pair of texts, as a task of GLUE does.

        Args:
            task: ``cola``, ``mnli``, ``rte``, ``mrpc``, ``qnli``, ``qqp`` or ``sst2``.
            text: the first text of the task's rows (of ``qnli`` the question), or a list of them.
            text2: the second text, one for each; None for ``cola`` and ``sst2``, which judge one.
            decoder_prompt: the decoder's prompt instead of the one the checkpoint was trained with.
            prompt: a prompt instead of the model's own; it holds ``{text}`` and, for a pair, ``{text2}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            The judgement, with a probability for each.

        Raises:
            OFAError: there is no such task, or it judges another number of texts; and see :class:`OFA`.
        """
        _, texts, single = pair_up(None, text)
        seconds = [None] * len(texts) if text2 is None else one_per_text(text2, len(texts), single)
        head = partial(glue.judge, task=task, decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, texts=texts, seconds=seconds)

    @overload
    def matches(self, image: Picture, text: str, **options: Unpack[ClosedSetOptions]) -> Match: ...
    @overload
    def matches(self, image: list[Any], text: str | list[str], **options: Unpack[ClosedSetOptions]) -> list[Match]: ...
    @overload
    def matches(self, image: Picture, text: list[str], **options: Unpack[ClosedSetOptions]) -> list[Match]: ...
    def matches(
        self,
        image: Any,
        text: Any,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Decide whether a text describes a picture.

        Args:
            image: a picture or a list of them.
            text: the text, one for each picture or one for all.
            decoder_prompt: the decoder's prompt instead of the one the checkpoint was trained with.
            prompt: a prompt instead of the model's own; it holds ``{caption}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            Yes or no, and the probability of yes.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, texts, single = pair_up(image, text, self._keep(matching.TEXT_SPEC))
        head = partial(matching.matches, decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images, texts=texts)

    @overload
    def is_present(self, image: Picture, text: str, **options: Unpack[BatchOptions]) -> Match: ...
    @overload
    def is_present(self, image: list[Any], text: str | list[str], **options: Unpack[BatchOptions]) -> list[Match]: ...
    @overload
    def is_present(self, image: Picture, text: list[str], **options: Unpack[BatchOptions]) -> list[Match]: ...
    def is_present(
        self, image: Any, text: Any, *, batch_size: int = 16, progress: bool = False, on_error: OnError = "raise"
    ) -> Any:
        """Decide whether the object that a text describes is in the picture, with a model of TiO.

        Args:
            image: a picture or a list of them.
            text: the text, one for each picture or one for all.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            Yes or no, and the probability of yes: a softmax over both first tokens, as TiO's ``bin_check``. Models
            that never learned this question answer at random.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, texts, single = pair_up(image, text, self.pipeline.keep)
        return self._answers(presence.is_present, single, batch_size, progress, on_error, images=images, texts=texts)

    @overload
    def is_answer(self, image: Picture, question: str, answer: str, **options: Unpack[ClosedSetOptions]) -> Match: ...
    @overload
    def is_answer(
        self, image: Any, question: str | list[str], answer: list[str], **options: Unpack[ClosedSetOptions]
    ) -> list[Match]: ...
    def is_answer(
        self,
        image: Any,
        question: Any,
        answer: Any,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
    ) -> Any:
        """Decide whether an answer to a question about a picture is right.

        Args:
            image: a picture or a list of them.
            question: the question, one for each picture or one for all.
            answer: the answer, one for each question.
            decoder_prompt: the decoder's prompt instead of the one the checkpoint was trained with.
            prompt: a prompt instead of the model's own; it holds ``{question}`` and ``{answer}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.

        Returns:
            Yes or no, and the probability of yes.

        Raises:
            OFAError: see :class:`OFA`.
        """
        images, questions, single = pair_up(image, question, self._keep(matching.ANSWER_SPEC))
        answers = one_per_image(answer, len(questions), single, "answers")
        head = partial(matching.is_answer, decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(
            head, single, batch_size, progress, on_error, images=images, questions=questions, answers=answers
        )

    @overload
    def complete(self, text: str, **options: Unpack[PromptedTextOptions]) -> Text: ...
    @overload
    def complete(self, text: list[str], **options: Unpack[PromptedTextOptions]) -> list[Text]: ...
    def complete(
        self,
        text: Any,
        *,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_error: OnError = "raise",
        **options: Unpack[SearchOptions],
    ) -> Any:
        """Complete a text in which something is missing.

        Args:
            text: the text, in which each ``<mask>`` stands for any number of words; or a list of them.
            prompt: a prompt instead of the model's own; it holds ``{text}`` behind a space.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The whole text, in lower case.

        Raises:
            OFAError: nothing is missing in a text; and see :class:`OFA`.
        """
        _, texts, single = pair_up(None, text)
        changed = self.pipeline.options(infilling.SPEC).updated(**options)
        head = partial(infilling.complete, options=changed, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, texts=texts)

    # Pictures

    @overload
    def imagine(self, text: str, **options: Unpack[ImagineOptions]) -> list[Imagined]: ...
    @overload
    def imagine(self, text: list[str], **options: Unpack[ImagineOptions]) -> list[list[Imagined]]: ...
    def imagine(
        self,
        text: Any,
        *,
        count: int = 4,
        top_k: int = 256,
        top_p: float = 1.0,
        temperature: float = 1.0,
        seed: int | None = None,
        rank: Rank = "caption",
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_row: OnRow | None = None,
    ) -> Any:
        """Make pictures of a text.

        Args:
            text: what is on the picture, or a list of texts.
            count: pictures of each text.
            top_k: each code is one of so many that are most probable; 0: of all.
            top_p: and one of the fewest whose probabilities reach this.
            temperature: more than 1 for more variety, less for less.
            seed: the same seed draws the same pictures, however many are drawn at once; None draws others each time.
            rank: what orders them: ``caption``, the probability of the text as the model's caption of the picture;
                ``codes``, that of the picture's codes; or a function of a picture and its text, such as CLIP's score.
            prompt: a prompt instead of the model's own; it holds ``{text}``.
            batch_size: pictures that are drawn at once, which takes memory for their codes.
            progress: whether a bar tells how far the call has come.
            on_row: called with the pictures as far as they are drawn, each time a row of codes is done.

        Returns:
            The pictures with their codes, scores and seeds, best first; a list of such lists for a list of texts.

        Raises:
            OFAError: the model has no network of image codes, or one for another number of them; and see :class:`OFA`.
        """
        _, texts, single = pair_up(None, text)
        self._warn_unless_learned("imagine")
        spec = image_generation.SPEC
        found = image_generation.imagine(
            replace(self.pipeline, progress=progress),
            self.vqgan,
            texts,
            count=count,
            options=self.pipeline.options(spec).updated(top_k=top_k, top_p=top_p, temperature=temperature),
            seed=seed,
            rank=rank,
            prompt=prompt,
            batch_size=batch_size,
            on_row=on_row,
        )
        return unwrap(found, single)

    def infill(
        self,
        image: ImageLike,
        box: Sequence[float] | None = None,
        *,
        count: int = 1,
        top_k: int = 256,
        top_p: float = 1.0,
        temperature: float = 1.0,
        seed: int | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        progress: bool = False,
        on_row: OnRow | None = None,
    ) -> list[Imagined]:
        """Complete a part of a picture from what lies around it, as in pre-training.

        Args:
            image: the picture.
            box: what is drawn anew, (x0, y0, x1, y1) in pixels; None: the middle, half as high and as wide.
            count: how many completions.
            top_k: each code is one of so many that are most probable; 0: of all.
            top_p: and one of the fewest whose probabilities reach this.
            temperature: more than 1 for more variety, less for less.
            seed: the same seed draws the same completions; None draws others each time.
            prompt: a prompt instead of the model's own.
            batch_size: completions that are drawn at once.
            progress: whether a bar tells how far the call has come.
            on_row: called with the parts as far as they are drawn, each time a row of codes is done.

        Returns:
            Pictures of the size of ``image``, with the codes of the part that is new.

        Raises:
            OFAError: as :meth:`imagine`; or the box is none.
        """
        self._warn_unless_learned("infill")
        spec = image_generation.SPEC
        return image_generation.infill(
            replace(self.pipeline, progress=progress),
            self.vqgan,
            image,
            box,
            count=count,
            options=self.pipeline.options(spec).updated(top_k=top_k, top_p=top_p, temperature=temperature),
            seed=seed,
            prompt=prompt,
            batch_size=batch_size,
            on_row=on_row,
        )

    @overload
    def encode_image(self, image: ImageLike, *, side: int | None = None, noise: int | None = None) -> Codes: ...
    @overload
    def encode_image(self, image: list[Any], *, side: int | None = None, noise: int | None = None) -> list[Codes]: ...
    def encode_image(self, image: Any, *, side: int | None = None, noise: int | None = None) -> Any:
        """Find the image codes of a picture's middle square.

        Args:
            image: a picture or a list of them.
            side: pixels a side to which the square is brought; None: the side of the pictures that the model draws.
            noise: a seed with which codes are drawn, as the original does in training; None takes the best ones.

        Returns:
            Codes [rows, columns], one for each 8 × 8 pixels.

        Raises:
            OFAError: the model has no network of image codes, or one without encoder.
        """
        side = self.model.config.code_image_size if side is None else side
        like_original = self.pipeline.transform.like_original
        images, single = as_list(image)
        codes = [
            image_codes.encode_image(self.vqgan, one, side, noise=noise, like_original=like_original) for one in images
        ]
        return unwrap(codes, single)

    def decode_codes(self, codes: Any, *, tile: int | None = None) -> Image:
        """Make a picture of image codes.

        Args:
            codes: [rows, columns], or all codes of a square in one list, row by row.
            tile: compute in overlapping tiles of so many codes a side, for grids beyond memory: close to the whole, but
                not equal.

        Returns:
            A picture of 8 × 8 pixels for each code.

        Raises:
            OFAError: they are no codes, or the model has no network of image codes.
        """
        return image_codes.decode_codes(self.vqgan, codes, tile=tile)
