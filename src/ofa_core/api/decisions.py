"""Questions whose answer is one of few."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from ..generation.scoring import DecoderPrompt
from ..heads import classification, entailment, glue, matching, presence
from ..heads.answering import OnError
from ..heads.arguments import as_list, one_per_image, one_per_text, pair_up, text_list
from ..heads.matching import Match
from ..heads.options import BatchOptions, ClosedSetOptions, HeadOptions
from ..heads.pipeline import Picture
from ..heads.results import Answer
from .base import LoadedModel
from .streaming import streaming

if TYPE_CHECKING:
    from typing_extensions import Unpack


class DecisionMethods(LoadedModel):
    """Methods that choose among given answers, and give each its probability."""

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
    @overload
    def entails(
        self,
        image: Iterator[Any],
        text: str | Iterable[str],
        caption: Iterable[str] | None = None,
        **options: Unpack[ClosedSetOptions],
    ) -> Iterator[Answer]: ...
    @streaming
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

        Examples:
            >>> ofa.entails(picture, "there is a red circle").answer in ("yes", "no", "maybe")
            True
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
    @overload
    def classify(
        self, image: Iterator[Any], labels: Sequence[str], **options: Unpack[ClosedSetOptions]
    ) -> Iterator[Answer]: ...
    @streaming
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

        Examples:
            >>> ofa.classify(picture, ["two shapes", "a star"]).answer in ("two shapes", "a star")
            True
        """
        images, single = as_list(image, self._keep(classification.SPEC))
        head = partial(classification.classify, labels=text_list(labels), decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, images=images)

    @overload
    def matches(self, image: Picture, text: str, **options: Unpack[ClosedSetOptions]) -> Match: ...
    @overload
    def matches(self, image: list[Any], text: str | list[str], **options: Unpack[ClosedSetOptions]) -> list[Match]: ...
    @overload
    def matches(self, image: Picture, text: list[str], **options: Unpack[ClosedSetOptions]) -> list[Match]: ...
    @overload
    def matches(
        self, image: Iterator[Any], text: str | Iterable[str], **options: Unpack[ClosedSetOptions]
    ) -> Iterator[Match]: ...
    @streaming
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

        Examples:
            >>> 0 <= ofa.matches(picture, "a red circle").yes <= 1
            True
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
    @overload
    def is_present(
        self, image: Iterator[Any], text: str | Iterable[str], **options: Unpack[BatchOptions]
    ) -> Iterator[Match]: ...
    @streaming
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

        Examples:
            >>> 0 <= ofa.is_present(picture, "a red circle").yes <= 1
            True
        """
        images, texts, single = pair_up(image, text, self.pipeline.keep)
        return self._answers(presence.is_present, single, batch_size, progress, on_error, images=images, texts=texts)

    @overload
    def is_answer(self, image: Picture, question: str, answer: str, **options: Unpack[ClosedSetOptions]) -> Match: ...
    @overload
    def is_answer(
        self, image: Any, question: str | list[str], answer: list[str], **options: Unpack[ClosedSetOptions]
    ) -> list[Match]: ...
    @overload
    def is_answer(
        self,
        image: Iterator[Any],
        question: str | Iterable[str],
        answer: Iterable[str],
        **options: Unpack[ClosedSetOptions],
    ) -> Iterator[Match]: ...
    @streaming
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

        Examples:
            >>> 0 <= ofa.is_answer(picture, "what color is the square?", "blue").yes <= 1
            True
        """
        images, questions, single = pair_up(image, question, self._keep(matching.ANSWER_SPEC))
        answers = one_per_image(answer, len(questions), single, "answers")
        head = partial(matching.is_answer, decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(
            head, single, batch_size, progress, on_error, images=images, questions=questions, answers=answers
        )

    @overload
    def judge(self, task: str, text: str, text2: str | None = None, **options: Unpack[ClosedSetOptions]) -> Answer: ...
    @overload
    def judge(
        self, task: str, text: list[str], text2: list[str] | None = None, **options: Unpack[ClosedSetOptions]
    ) -> list[Answer]: ...
    @overload
    def judge(
        self, task: str, text: Iterator[str], text2: Iterable[str] | None = None, **options: Unpack[ClosedSetOptions]
    ) -> Iterator[Answer]: ...
    @streaming
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

        Examples:
            >>> ofa.judge("sst2", "a beautiful day").answer in ("positive", "negative")
            True
        """
        _, texts, single = pair_up(None, text)
        seconds = [None] * len(texts) if text2 is None else one_per_text(text2, len(texts), single)
        head = partial(glue.judge, task=task, decoder_prompt=decoder_prompt, prompt=prompt)
        return self._answers(head, single, batch_size, progress, on_error, texts=texts, seconds=seconds)

    @overload
    def head_probabilities(
        self, head: str, text: str, image: Picture | None = None, **options: Unpack[HeadOptions]
    ) -> list[float]: ...
    @overload
    def head_probabilities(
        self, head: str, text: list[str], image: list[Any] | None = None, **options: Unpack[HeadOptions]
    ) -> list[list[float]]: ...
    @overload
    def head_probabilities(
        self, head: str, text: Iterator[str], image: Iterable[Any] | None = None, **options: Unpack[HeadOptions]
    ) -> Iterator[list[float]]: ...
    @streaming
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

        Examples:
            >>> ofa.head_probabilities("sentiment", "a beautiful day")  # of the heads that a checkpoint has
            Traceback (most recent call last):
            ...
            ofa_core.errors.OFAError: ...
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
