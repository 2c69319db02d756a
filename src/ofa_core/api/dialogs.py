"""Questions about a dialog on a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from ..generation.options import SearchOptions
from ..heads import grounding, oracle, questioner
from ..heads.answering import OnError
from ..heads.arguments import as_list, listed, one_per_image, text_list
from ..heads.chat import Chat
from ..heads.chat_styles import ChatStyle
from ..heads.confidence import Decode
from ..heads.grounding import DIALOG_OPTIONS, Grounding
from ..heads.options import AgentOptions, AskOptions, GroundDialogOptions, OracleOptions, TextOptions
from ..heads.oracle import ANSWERS, OracleAnswer, Scoring
from ..heads.pipeline import Picture
from ..heads.questioner import AgentTurn
from ..heads.results import Text
from ..text.dialog import Dialog, Style
from .base import LoadedModel
from .streaming import streaming

if TYPE_CHECKING:
    from typing_extensions import Unpack


class DialogMethods(LoadedModel):
    """Methods that find, ask and answer what a dialog is about."""

    @overload
    def ground_dialog(self, image: Picture, dialog: Dialog, **options: Unpack[GroundDialogOptions]) -> Grounding: ...
    @overload
    def ground_dialog(
        self, image: list[Any], dialog: list[Dialog], **options: Unpack[GroundDialogOptions]
    ) -> list[Grounding]: ...
    @overload
    def ground_dialog(
        self, image: Iterator[Any], dialog: Iterable[Dialog], **options: Unpack[GroundDialogOptions]
    ) -> Iterator[Grounding]: ...
    @streaming
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

        Examples:
            >>> ofa.ground_dialog(picture, [("is it a circle?", "no"), ("is it blue?", "yes")]).box is not None
            True
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
    @overload
    def oracle(
        self,
        image: Iterator[Any],
        box: Iterable[Sequence[float]],
        dialog: Iterable[Dialog],
        question: str | Iterable[str],
        **options: Unpack[OracleOptions],
    ) -> Iterator[OracleAnswer]: ...
    @streaming
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

        Examples:
            >>> ofa.oracle(picture, (380, 80, 540, 240), [], "is it blue?").answer
            'yes'
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
    @overload
    def query(
        self, image: Iterator[Any], box: Iterable[Sequence[float]], **options: Unpack[TextOptions]
    ) -> Iterator[Text]: ...
    @streaming
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

        Examples:
            >>> ofa.query(picture, (60, 120, 220, 280)).text != ""
            True
        """
        images, single = as_list(image, self.pipeline.keep)
        boxes = one_per_image(box, len(images), single, "boxes")
        head = partial(oracle.query, options=DIALOG_OPTIONS.updated(**options))
        return self._answers(head, single, batch_size, progress, on_error, images=images, boxes=boxes)

    @overload
    def ask(self, image: Picture, dialog: Dialog, **options: Unpack[AskOptions]) -> Text: ...
    @overload
    def ask(self, image: list[Any], dialog: list[Dialog], **options: Unpack[AskOptions]) -> list[Text]: ...
    @overload
    def ask(self, image: Iterator[Any], dialog: Iterable[Dialog], **options: Unpack[AskOptions]) -> Iterator[Text]: ...
    @streaming
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

        Examples:
            >>> ofa.ask(picture, [("is it a circle?", "no")]).text.endswith("?")
            True
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
    @overload
    def agent_turn(
        self, image: Iterator[Any], dialog: Iterable[Dialog], **options: Unpack[AgentOptions]
    ) -> Iterator[AgentTurn]: ...
    @streaming
    def agent_turn(
        self,
        image: Any,
        dialog: Any,
        *,
        ambiguity: bool = False,
        ask_above: float | None = None,
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
            ask_above: the ambiguity in bits above which the turn is a question, and up to which it is a region,
                whatever the model would rather say; None leaves that to the model.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            A question or a grounding.

        Raises:
            OFAError: see :class:`OFA`.

        Examples:
            >>> turn = ofa.agent_turn(picture, ["i want the red shape."])
            >>> (turn.question is None) != (turn.grounding is None)  # it asks, or it says the region
            True
        """
        images, single = as_list(image, self.pipeline.keep)
        dialogs = one_per_image(dialog, len(images), single, "dialogs")
        head = partial(
            questioner.agent_turn,
            options=DIALOG_OPTIONS.updated(**options),
            ambiguity=ambiguity,
            ask_above=ask_above,
        )
        return self._answers(head, single, batch_size, progress, on_error, images=images, dialogs=dialogs)

    def chat(
        self,
        image: Picture,
        *,
        style: ChatStyle = "invig",
        ask_above: float | None = None,
        **options: Unpack[SearchOptions],
    ) -> Chat:
        """Begin a conversation about a picture, in which the model finds out what a person means.

        Args:
            image: the picture; its image stem runs once.
            style: ``invig``, the published dialog task; or one of TiO's: ``tio`` (a reply, and what the dialog is about
                after it), ``tio_tasks`` (questions until the agent is sure), ``freeform``, ``freeform_grounding`` and
                ``guesser`` as in its demo.
            ask_above: in style ``invig``, the ambiguity in bits above which the model asks, and up to which it names
                the region, as for :meth:`agent_turn`; None leaves that to the model.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The conversation: ``say`` something, ``undo`` it, ``ground`` what was said, ``reset``, ``save`` and
            ``load``; ``as_oracle`` changes the roles.

        Raises:
            OFAError: there is no such style, or ``ask_above`` is for another one; and see :class:`OFA`.

        Examples:
            >>> conversation = ofa.chat(picture)
            >>> turn = conversation.say("i want the red shape.")
            >>> conversation.history == [("i want the red shape.", turn.text)]
            True
        """
        return Chat(self.pipeline, image, style, DIALOG_OPTIONS.updated(**options), ask_above)
