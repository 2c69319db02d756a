"""Questions whose answer is a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from ..generation import GenerationOptions
from ..generation.options import SearchOptions
from ..generation.scoring import DecoderPrompt
from ..heads import caption, infilling, ocr, vqa
from ..heads import text as text_heads
from ..heads.answering import OnError
from ..heads.arguments import as_list, one_per_image, pair_up, text_list
from ..heads.caption import Caption
from ..heads.ocr import Reading
from ..heads.options import AnswerOptions, GenerateOptions, PromptedTextOptions, ReadOptions
from ..heads.pipeline import Picture
from ..heads.results import Answer, Text
from ..heads.vqa import Method
from .base import LoadedModel
from .streaming import streaming

if TYPE_CHECKING:
    from typing_extensions import Unpack


class TextMethods(LoadedModel):
    """Methods that answer in words."""

    @overload
    def caption(self, image: Picture, **options: Unpack[PromptedTextOptions]) -> Caption: ...
    @overload
    def caption(self, image: list[Any], **options: Unpack[PromptedTextOptions]) -> list[Caption]: ...
    @overload
    def caption(self, image: Iterator[Any], **options: Unpack[PromptedTextOptions]) -> Iterator[Caption]: ...
    @streaming
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

        Examples:
            >>> ofa.caption(picture, num_beams=3).text != ""
            True
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
    @overload
    def describe_region(
        self, image: Iterator[Any], box: Iterable[Sequence[float]], **options: Unpack[PromptedTextOptions]
    ) -> Iterator[Text]: ...
    @streaming
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

        Examples:
            >>> "red" in ofa.describe_region(picture, (60, 120, 220, 280)).text
            True
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
    @overload
    def answer(
        self, image: Iterator[Any], question: str | Iterable[str], **options: Unpack[AnswerOptions]
    ) -> Iterator[Answer]: ...
    @streaming
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

        Examples:
            >>> ofa.answer(picture, "what color is the square?", candidates=["red", "blue"]).answer
            'blue'
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
    def read(self, image: Picture, **options: Unpack[ReadOptions]) -> Reading: ...
    @overload
    def read(self, image: list[Any], **options: Unpack[ReadOptions]) -> list[Reading]: ...
    @overload
    def read(self, image: Iterator[Any], **options: Unpack[ReadOptions]) -> Iterator[Reading]: ...
    @streaming
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

        Examples:
            >>> ofa.read(picture, max_new_tokens=8).text != ""  # not learned by the demo model: a guess
            True
        """
        images, single = as_list(image)
        changed = self.pipeline.options(ocr.SPEC).updated(**options)
        head = partial(ocr.read, options=changed, document=document, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images)

    @overload
    def summarize(self, text: str, **options: Unpack[PromptedTextOptions]) -> Text: ...
    @overload
    def summarize(self, text: list[str], **options: Unpack[PromptedTextOptions]) -> list[Text]: ...
    @overload
    def summarize(self, text: Iterator[str], **options: Unpack[PromptedTextOptions]) -> Iterator[Text]: ...
    @streaming
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

        Examples:
            >>> ofa.summarize("a circle is left of a square", max_new_tokens=8).score <= 1
            True
        """
        _, texts, single = pair_up(None, text)
        changed = self.pipeline.options(text_heads.SUMMARY_SPEC).updated(**options)
        head = partial(text_heads.summarize, options=changed, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, texts=texts)

    @overload
    def complete(self, text: str, **options: Unpack[PromptedTextOptions]) -> Text: ...
    @overload
    def complete(self, text: list[str], **options: Unpack[PromptedTextOptions]) -> list[Text]: ...
    @overload
    def complete(self, text: Iterator[str], **options: Unpack[PromptedTextOptions]) -> Iterator[Text]: ...
    @streaming
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

        Examples:
            >>> ofa.complete("a red circle is left <mask> square", max_new_tokens=8).score <= 1
            True
        """
        _, texts, single = pair_up(None, text)
        changed = self.pipeline.options(infilling.SPEC).updated(**options)
        head = partial(infilling.complete, options=changed, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, texts=texts)

    @overload
    def generate(self, text: str, image: Picture | None = None, **options: Unpack[GenerateOptions]) -> Text: ...
    @overload
    def generate(self, text: list[str], image: Any = None, **options: Unpack[GenerateOptions]) -> list[Text]: ...
    @overload
    def generate(self, text: str, image: list[Any], **options: Unpack[GenerateOptions]) -> list[Text]: ...
    @overload
    def generate(self, text: str, image: Iterator[Any], **options: Unpack[GenerateOptions]) -> Iterator[Text]: ...
    @streaming
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

        Examples:
            >>> ofa.generate(" what does the image describe?", picture).text == ofa.caption(picture).text
            True
        """
        images, texts, single = pair_up(image, text, self.pipeline.keep)
        head = partial(text_heads.generate_text, options=GenerationOptions(**options), symbols=symbols)
        pictures = None if image is None else images
        return self._answers(head, single, batch_size, progress, on_error, texts=texts, images=pictures)
