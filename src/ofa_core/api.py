"""OFA as its users see it: load once, then ask about one picture or many."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import entry_points
from os import PathLike
from pathlib import Path
from typing import Any, overload

import torch
from pydantic import ValidationError

from .checkpoint.model_dir import load_model, load_tokenizer
from .config import TaskSettings
from .errors import OFAError, first_problem
from .generation import GenerationOptions
from .generation.scoring import DecoderPrompt
from .heads import caption, classification, entailment, grounding, oracle, questioner, vqa
from .heads import text as text_heads
from .heads.arguments import as_list, is_sequence, one_per_image, pair_up, unwrap
from .heads.caption import Caption
from .heads.grounding import DIALOG_OPTIONS, Grounding
from .heads.oracle import ANSWERS, OracleAnswer, Scoring
from .heads.pipeline import EncodedImage, Picture, Pipeline
from .heads.questioner import AgentTurn
from .heads.results import Answer, Text
from .heads.vqa import Method
from .inference.fast_model import optimized, plain, refresh
from .inference.int8 import check_int8
from .model.ofa import OFAModel
from .text import Tokenizer
from .text.dialog import Dialog, Style
from .vision.transform import ImageTransform


def load(
    directory: str | PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    optimize: bool = True,
    compile_steps: bool = False,
    **task: Any,
) -> OFA:
    """Load a model.

    Args:
        directory: a model directory written by ``convert-ckpt``; or any checkpoint that it reads, which is then
            converted once, into the cache, with a line on stderr that says so; or ``"demo"``, the small model that
            comes with the package and knows coloured shapes.
        device: where the model shall run, such as ``"cpu"`` or ``"cuda"``.
        dtype: float32, float16 or bfloat16; None means float32 on a CPU and what is stored elsewhere. int8 is float32
            with the weights of linear layers rounded to 8 bits, on CPUs: faster, but not equal.
        optimize: whether to compute faster, see :class:`OFA`.
        compile_steps: whether decoding steps go through ``torch.compile``: on GPUs, for many pictures.
        task: settings to use instead of those the model was trained with, such as ``image_size=480``; see
            :class:`TaskSettings`.

    Raises:
        CheckpointError: the directory or a file in it is missing or broken.
    """
    _check_device(device)
    int8 = dtype == torch.int8
    if not (int8 or dtype is None or dtype.is_floating_point):
        raise OFAError(f"dtype must be float32, float16, bfloat16 or int8, not {dtype}")
    if int8:
        check_int8(torch.device(device))
    directory = model_directory(Path(directory))
    model = load_model(directory, device, torch.float32 if int8 else dtype)
    tokenizer = load_tokenizer(directory, model.config)
    if task:
        try:
            settings = TaskSettings(**{**model.config.task.model_dump(), **task})
        except ValidationError as error:
            raise OFAError(first_problem(error, "task settings")) from None
        model.config = model.config.model_copy(update={"task": settings})
    return OFA(model, tokenizer, optimize=optimize, int8=int8, compile_steps=compile_steps)


#: The checkpoint that ``demo`` stands for, unless there is a directory of this name.
DEMO, DEMO_CHECKPOINT = Path("demo"), Path(__file__).parent / "demo" / "model" / "ofa_shapes.pt"


def model_directory(path: Path) -> Path:
    """``path`` itself, or what the installed converter makes of a checkpoint in another format."""
    if path == DEMO and not path.exists():
        path = DEMO_CHECKPOINT
    is_checkpoint = path.is_file() or (path / "vocab.json").is_file()
    for converter in entry_points(group="ofa_core.converters") if is_checkpoint else ():
        directory: Path = converter.load()(path)
        return directory
    return path


def _check_device(device: str | torch.device) -> None:
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise OFAError(f"device {str(device)!r} is not available here: torch finds no CUDA GPU")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise OFAError(f"device {str(device)!r} is not available here: {str(error).splitlines()[0]}") from None


class OFA:
    """A loaded model with everything it needs to answer questions about pictures.

    A picture is a path, a PIL image, an array [h, w, 3] of uint8, a tensor [3, h, w], or what :meth:`look` made of one.
    Every method takes one picture or a list of pictures of any sizes and then returns a list. One text goes with every
    picture of a list, and a list of texts goes with one picture; boxes and dialogs come one for each picture.

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
    """

    def __init__(
        self,
        model: OFAModel,
        tokenizer: Tokenizer,
        *,
        optimize: bool = True,
        int8: bool = False,
        compile_steps: bool = False,
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

    @property
    def dtype(self) -> str:
        """The type that it computes in: that of the weights, or ``int8``."""
        return "int8" if self._int8 else str(self.model.dtype).removeprefix("torch.")

    def refresh(self) -> None:
        """Take all weights of :attr:`model` anew: after a write to a few of them that torch keeps no count of."""
        refresh(self.model)

    @overload
    def look(self, image: Picture) -> EncodedImage: ...
    @overload
    def look(self, image: list[Any]) -> list[EncodedImage]: ...
    def look(self, image: Any) -> Any:
        """Run the image stem once: every method takes the result in place of the picture, at the same results."""
        images, single = as_list(image)
        return unwrap(self.pipeline.look(images), single)

    @overload
    def ground(self, image: Picture, text: str, **options: Any) -> Grounding: ...
    @overload
    def ground(self, image: list[Any], text: str | list[str], **options: Any) -> list[Grounding]: ...
    @overload
    def ground(self, image: Picture, text: list[str], **options: Any) -> list[Grounding]: ...
    def ground(
        self,
        image: Any,
        text: Any,
        *,
        bins_only: bool = False,
        threshold: float = 0.0,
        prompt: str | None = None,
        batch_size: int = 16,
        **options: Any,
    ) -> Any:
        """The box of what ``text``, a phrase such as ``"the man in white"``, describes.

        With ``bins_only`` the model can say nothing but box coordinates. Below the score ``threshold`` no box is
        returned. ``prompt`` holds ``{caption}``.
        """
        images, texts, single = pair_up(image, text)
        found = grounding.ground(
            self.pipeline,
            images,
            texts,
            grounding.OPTIONS.updated(**options),
            bins_only=bins_only,
            threshold=threshold,
            prompt=prompt,
            batch_size=batch_size,
        )
        return unwrap(found, single)

    @overload
    def ground_dialog(self, image: Picture, dialog: Dialog, **options: Any) -> Grounding: ...
    @overload
    def ground_dialog(self, image: list[Any], dialog: list[Dialog], **options: Any) -> list[Grounding]: ...
    def ground_dialog(
        self,
        image: Any,
        dialog: Any,
        *,
        style: Style = "guesswhat",
        threshold: float = 0.0,
        batch_size: int = 16,
        **options: Any,
    ) -> Any:
        """The box a dialog is about.

        A dialog is a list of (question, answer) pairs, or of single turns. In the style ``guesswhat`` the agent's
        question comes first, in the style ``invig`` the person's query.
        """
        images, single = as_list(image)
        found = grounding.ground_dialog(
            self.pipeline,
            images,
            one_per_image(dialog, len(images), single, "dialogs"),
            style,
            DIALOG_OPTIONS.updated(**options),
            threshold=threshold,
            batch_size=batch_size,
        )
        return unwrap(found, single)

    @overload
    def oracle(
        self, image: Picture, box: Sequence[float], dialog: Dialog, question: str, **options: Any
    ) -> OracleAnswer: ...
    @overload
    def oracle(
        self,
        image: list[Any],
        box: Sequence[Sequence[float]],
        dialog: list[Dialog],
        question: str | list[str],
        **options: Any,
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
        **options: Any,
    ) -> Any:
        """The answer to a question about the region ``box``, (x0, y0, x1, y1) in pixels.

        ``dialog`` is what was asked and answered before, possibly nothing. In the style ``guesswhat`` the answer is one
        of ``answers`` with a probability for each: of their first tokens, as the published code does, or of whole
        answers with ``scoring="candidates"``. In the style ``invig`` it is free text, and ``options`` apply.
        """
        images, single = as_list(image)
        count = len(images)
        found = oracle.oracle(
            self.pipeline,
            images,
            one_per_image(box, count, single, "boxes"),
            one_per_image(dialog, count, single, "dialogs"),
            one_per_image(question, count, single, "questions") if is_sequence(question) else [question] * count,
            style,
            answers=answers,
            scoring=scoring,
            options=DIALOG_OPTIONS.updated(**options),
            batch_size=batch_size,
        )
        return unwrap(found, single)

    @overload
    def query(self, image: Picture, box: Sequence[float], **options: Any) -> Text: ...
    @overload
    def query(self, image: list[Any], box: Sequence[Sequence[float]], **options: Any) -> list[Text]: ...
    def query(self, image: Any, box: Any, *, batch_size: int = 16, **options: Any) -> Any:
        """Say how a person who means the region ``box`` would first ask for it (InViG)."""
        images, single = as_list(image)
        boxes = one_per_image(box, len(images), single, "boxes")
        found = oracle.query(self.pipeline, images, boxes, DIALOG_OPTIONS.updated(**options), batch_size)
        return unwrap(found, single)

    @overload
    def ask(self, image: Picture, dialog: Dialog, **options: Any) -> Text: ...
    @overload
    def ask(self, image: list[Any], dialog: list[Dialog], **options: Any) -> list[Text]: ...
    def ask(self, image: Any, dialog: Any, *, style: Style = "guesswhat", batch_size: int = 16, **options: Any) -> Any:
        """The next question of someone who wants to find out what the dialog is about."""
        images, single = as_list(image)
        dialogs = one_per_image(dialog, len(images), single, "dialogs")
        found = questioner.ask(self.pipeline, images, dialogs, style, DIALOG_OPTIONS.updated(**options), batch_size)
        return unwrap(found, single)

    @overload
    def agent_turn(self, image: Picture, dialog: Dialog, **options: Any) -> AgentTurn: ...
    @overload
    def agent_turn(self, image: list[Any], dialog: list[Dialog], **options: Any) -> list[AgentTurn]: ...
    def agent_turn(self, image: Any, dialog: Any, *, batch_size: int = 16, **options: Any) -> Any:
        """Take the turn of an agent who may guess: ask a question, or say which region it is."""
        images, single = as_list(image)
        dialogs = one_per_image(dialog, len(images), single, "dialogs")
        found = questioner.agent_turn(self.pipeline, images, dialogs, DIALOG_OPTIONS.updated(**options), batch_size)
        return unwrap(found, single)

    @overload
    def caption(self, image: Picture, **options: Any) -> Caption: ...
    @overload
    def caption(self, image: list[Any], **options: Any) -> list[Caption]: ...
    def caption(self, image: Any, *, prompt: str | None = None, batch_size: int = 16, **options: Any) -> Any:
        """A caption of a picture."""
        images, single = as_list(image)
        found = caption.caption(self.pipeline, images, caption.OPTIONS.updated(**options), prompt, batch_size)
        return unwrap(found, single)

    @overload
    def describe_region(self, image: Picture, box: Sequence[float], **options: Any) -> Text: ...
    @overload
    def describe_region(self, image: list[Any], box: Sequence[Sequence[float]], **options: Any) -> list[Text]: ...
    def describe_region(
        self, image: Any, box: Any, *, prompt: str | None = None, batch_size: int = 16, **options: Any
    ) -> Any:
        """Describe the region ``box``, (x0, y0, x1, y1) in pixels. ``prompt`` is followed by the region."""
        images, single = as_list(image)
        boxes = one_per_image(box, len(images), single, "boxes")
        changed = caption.OPTIONS.updated(**options)
        return unwrap(caption.describe_region(self.pipeline, images, boxes, changed, prompt, batch_size), single)

    @overload
    def answer(self, image: Picture, question: str, **options: Any) -> Answer: ...
    @overload
    def answer(self, image: list[Any], question: str | list[str], **options: Any) -> list[Answer]: ...
    @overload
    def answer(self, image: Picture, question: list[str], **options: Any) -> list[Answer]: ...
    def answer(
        self,
        image: Any,
        question: Any,
        *,
        candidates: Sequence[str] | None = None,
        method: Method = "score",
        objects: Any = None,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
        **options: Any,
    ) -> Any:
        """The answer to a question about a picture: free text, or one of ``candidates``.

        ``method="score"`` gives each candidate its probability; ``"beam"`` searches the tree of them. ``objects`` are
        names of what a detector saw, for models trained with them (one list for each question). ``decoder_prompt``
        overrides what the checkpoint was trained with; ``prompt`` holds ``{question}``.
        """
        images, questions, single = pair_up(image, question)
        found = vqa.answer(
            self.pipeline,
            images,
            questions,
            candidates,
            vqa.OPTIONS.updated(**options),
            method=method,
            objects=None if objects is None else one_per_image(objects, len(images), single, "lists of objects"),
            decoder_prompt=decoder_prompt,
            prompt=prompt,
            batch_size=batch_size,
        )
        return unwrap(found, single)

    @overload
    def entails(
        self,
        image: Picture,
        text: str,
        caption: str | None = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
    ) -> Answer: ...
    @overload
    def entails(
        self,
        image: list[Any],
        text: str | list[str],
        caption: list[str] | None = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
    ) -> list[Answer]: ...
    @overload
    def entails(
        self,
        image: Picture,
        text: list[str],
        caption: list[str] | None = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        prompt: str | None = None,
        batch_size: int = 16,
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
    ) -> Any:
        """Decide whether a picture, or picture and ``caption``, implies ``text``: yes, no or maybe.

        ``prompt`` holds ``{hypothesis}`` and, with a caption, ``{caption}``.
        """
        images, texts, single = pair_up(image, text)
        captions = None if caption is None else one_per_image(caption, len(images), single, "captions")
        found = entailment.entails(
            self.pipeline,
            images,
            texts,
            captions,
            decoder_prompt=decoder_prompt,
            prompt=prompt,
            batch_size=batch_size,
        )
        return unwrap(found, single)

    @overload
    def classify(
        self, image: Picture, labels: Sequence[str], *, prompt: str | None = None, batch_size: int = 16
    ) -> Answer: ...
    @overload
    def classify(
        self, image: list[Any], labels: Sequence[str], *, prompt: str | None = None, batch_size: int = 16
    ) -> list[Answer]: ...
    def classify(self, image: Any, labels: Sequence[str], *, prompt: str | None = None, batch_size: int = 16) -> Any:
        """Find which of ``labels``, any texts, fits a picture best."""
        images, single = as_list(image)
        found = classification.classify(self.pipeline, images, labels, prompt=prompt, batch_size=batch_size)
        return unwrap(found, single)

    @overload
    def head_probabilities(
        self,
        head: str,
        text: str,
        image: Picture | None = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        batch_size: int = 16,
    ) -> list[float]: ...
    @overload
    def head_probabilities(
        self,
        head: str,
        text: list[str],
        image: list[Any] | None = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        batch_size: int = 16,
    ) -> list[list[float]]: ...
    def head_probabilities(
        self,
        head: str,
        text: Any,
        image: Any = None,
        *,
        decoder_prompt: DecoderPrompt | None = None,
        batch_size: int = 16,
    ) -> Any:
        """Probabilities of the classes of one of the checkpoint's classification heads."""
        images, texts, single = pair_up(image, text)
        found = classification.head_probabilities(
            self.pipeline,
            head,
            texts,
            None if image is None else images,
            decoder_prompt=decoder_prompt,
            batch_size=batch_size,
        )
        return unwrap(found, single)

    @overload
    def summarize(self, text: str, **options: Any) -> Text: ...
    @overload
    def summarize(self, text: list[str], **options: Any) -> list[Text]: ...
    def summarize(self, text: Any, *, prompt: str | None = None, batch_size: int = 16, **options: Any) -> Any:
        """A summary of a text. ``prompt`` holds ``{text}``."""
        _, texts, single = pair_up(None, text)
        changed = text_heads.SUMMARY_OPTIONS.updated(**options)
        return unwrap(text_heads.summarize(self.pipeline, texts, changed, prompt, batch_size), single)

    @overload
    def generate(self, text: str, image: Picture | None = None, **options: Any) -> Text: ...
    @overload
    def generate(self, text: list[str], image: Any = None, **options: Any) -> list[Text]: ...
    @overload
    def generate(self, text: str, image: list[Any], **options: Any) -> list[Text]: ...
    def generate(self, text: Any, image: Any = None, *, batch_size: int = 16, **options: Any) -> Any:
        """Generate what follows ``text``, taken as it is, with a picture or without (None, also in a list)."""
        images, texts, single = pair_up(image, text)
        changed = GenerationOptions(**options)
        pictures = None if image is None else images
        return unwrap(text_heads.generate_text(self.pipeline, texts, pictures, changed, batch_size), single)
