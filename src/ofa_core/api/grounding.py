"""Questions whose answer is a place in a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from ..generation.options import SearchOptions
from ..heads import caption_grounding, detection, explanation, grounding
from ..heads.answering import OnError
from ..heads.arguments import as_list, listed, one_per_image, pair_up, text_list
from ..heads.caption_grounding import GroundedCaption
from ..heads.confidence import Decode
from ..heads.detection import DetectionStyle
from ..heads.explanation import Explanation
from ..heads.grounding import DIALOG_OPTIONS, Grounding, Presence
from ..heads.options import DetectOptions, ExplainOptions, GroundOptions, SureOptions
from ..heads.pipeline import Picture
from ..heads.results import Detections
from .base import LoadedModel
from .streaming import streaming

if TYPE_CHECKING:
    from typing_extensions import Unpack


class GroundingMethods(LoadedModel):
    """Methods that find boxes of what a text or a list of names describes."""

    @overload
    def ground(self, image: Picture, text: str, **options: Unpack[GroundOptions]) -> Grounding: ...
    @overload
    def ground(self, image: list[Any], text: str | list[str], **options: Unpack[GroundOptions]) -> list[Grounding]: ...
    @overload
    def ground(self, image: Picture, text: list[str], **options: Unpack[GroundOptions]) -> list[Grounding]: ...
    @overload
    def ground(
        self, image: Iterator[Any], text: str | Iterable[str], **options: Unpack[GroundOptions]
    ) -> Iterator[Grounding]: ...
    @streaming
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
        presence: Presence | None = None,
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
            all: give every region that the phrase fits in ``regions``, each with its share of what the model means; or
                those that it says, if it learned to say several (gRefCOCO).
            presence: ``check`` asks the model, too, whether the thing is there (:meth:`is_present`), at twice the cost;
                the answer counts as much as all else that tells of it. There is no box where it is not there.
            prompt: a prompt instead of the model's own; it holds ``{caption}``.
            batch_size: samples computed at once.
            progress: whether a bar tells how far the call has come.
            on_error: ``raise``, or ``skip`` for None in place of what cannot be answered.
            options: changes to the search, see :class:`~ofa_core.GenerationOptions`.

        Returns:
            The box in xyxy pixels of the picture, or None in its place, with score, confidence, bins and alternatives.

        Raises:
            OFAError: see :class:`OFA`.

        Examples:
            >>> ofa.ground(picture, "the red circle").box is not None
            True
            >>> [bool(found) for found in ofa.ground([picture, picture], ["the red circle", "the blue square"])]
            [True, True]
            >>> answers = ofa.ground(iter([picture, picture]), "the red circle")  # read a batch ahead
            >>> next(answers).asked
            'the red circle'
        """
        images, texts, single = pair_up(image, text, self._keep(grounding.SPEC))
        head = partial(
            grounding.ground,
            options=self.pipeline.options(grounding.SPEC).updated(**options),
            bins_only=bins_only,
            threshold=threshold,
            sureness=grounding.asked_sureness(self.pipeline, confidence, decode, all, presence),
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
    @overload
    def ground_caption(
        self,
        image: Iterator[Any],
        text: Iterable[str],
        phrases: Iterable[Any] | None = None,
        **options: Unpack[SureOptions],
    ) -> Iterator[GroundedCaption]: ...
    @streaming
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

        What begins with "a" is looked for with "the", as models learn to find things.

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

        Examples:
            >>> found = ofa.ground_caption(picture, "a red circle and a blue square")
            >>> [phrase.phrase for phrase in found.phrases]
            ['a red circle', 'a blue square']
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
    @overload
    def explain(
        self, image: Iterator[Any], text: str | Iterable[str], answer: Any = None, **options: Unpack[ExplainOptions]
    ) -> Iterator[Explanation]: ...
    @streaming
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

        Examples:
            >>> x, y = ofa.explain(picture, "the red circle").peak()  # in pixels
            >>> 0 <= x <= 640 and 0 <= y <= 480
            True
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
    @overload
    def detect(
        self, image: Iterator[Any], categories: str | Sequence[str] | None = None, **options: Unpack[DetectOptions]
    ) -> Iterator[Detections]: ...
    @streaming
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

        Examples:
            >>> things = ofa.detect(picture, categories=["circle", "square"])
            >>> {thing.label for thing in things} <= {"circle", "square"}
            True
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
