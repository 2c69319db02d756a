"""Pictures made of texts and of image codes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, overload

from PIL.Image import Image

from ..generation.options import GenerationOptions, SearchOptions
from ..heads import image_codes, image_generation
from ..heads.arguments import as_list, pair_up, unwrap
from ..heads.image_codes import Codes
from ..heads.image_generation import Imagined, OnRow, Rank
from ..heads.options import ImagineOptions
from ..vision.images import ImageLike
from .base import LoadedModel
from .streaming import streaming

if TYPE_CHECKING:
    from typing_extensions import Unpack


class PictureMethods(LoadedModel):
    """Methods that draw pictures, complete them and turn them into image codes."""

    @overload
    def imagine(self, text: str, **options: Unpack[ImagineOptions]) -> list[Imagined]: ...
    @overload
    def imagine(self, text: list[str], **options: Unpack[ImagineOptions]) -> list[list[Imagined]]: ...
    def imagine(
        self,
        text: Any,
        *,
        count: int = 4,
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
        guidance: float | None = None,
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
            top_k: each code is one of so many that are most probable; 0: of all. None, here and in the next three: as
                the model's settings of the search say, and the original's (256, 1, 1 and 1) where they say nothing.
            top_p: and one of the fewest whose probabilities reach this.
            temperature: more than 1 for more variety, less for less.
            guidance: more than 1 for pictures that follow the text more closely, at twice the time, of a model that was
                trained with some texts left out (``text_dropout``).
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

        Examples:
            >>> painter = ofa_core.load("demo-pictures")
            >>> best, other = painter.imagine("a red circle", count=2, seed=1)
            >>> best.image.size
            (64, 64)
        """
        _, texts, single = pair_up(None, text)
        self._warn_unless_learned("imagine")
        found = image_generation.imagine(
            replace(self.pipeline, progress=progress),
            self.vqgan,
            texts,
            count=count,
            options=self._drawing_options(top_k=top_k, top_p=top_p, temperature=temperature, guidance=guidance),
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
        top_k: int | None = None,
        top_p: float | None = None,
        temperature: float | None = None,
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
            top_k: each code is one of so many that are most probable; 0: of all. None, here and in the next two: as for
                :meth:`imagine`.
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

        Examples:
            >>> ofa.infill(picture, (60, 120, 220, 280))
            Traceback (most recent call last):
            ...
            ofa_core.errors.OFAError: the model demo draws no pictures; demo-pictures does
        """
        self._warn_unless_learned("infill")
        return image_generation.infill(
            replace(self.pipeline, progress=progress),
            self.vqgan,
            image,
            box,
            count=count,
            options=self._drawing_options(top_k=top_k, top_p=top_p, temperature=temperature),
            seed=seed,
            prompt=prompt,
            batch_size=batch_size,
            on_row=on_row,
        )

    def _drawing_options(self, **given: float | None) -> GenerationOptions:
        """The search for codes, with the options that are not None."""
        changes = cast(SearchOptions, {name: value for name, value in given.items() if value is not None})
        return self.pipeline.options(image_generation.SPEC).updated(**changes)

    @overload
    def encode_image(self, image: ImageLike, *, side: int | None = None, noise: int | None = None) -> Codes: ...
    @overload
    def encode_image(self, image: list[Any], *, side: int | None = None, noise: int | None = None) -> list[Codes]: ...
    @overload
    def encode_image(
        self, image: Iterator[Any], *, side: int | None = None, noise: int | None = None
    ) -> Iterator[Codes]: ...
    @streaming
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

        Examples:
            >>> ofa_core.load("demo-pictures").encode_image(picture).shape
            (8, 8)
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

        Examples:
            >>> ofa_core.load("demo-pictures").decode_codes([[0, 1], [2, 3]]).size
            (16, 16)
        """
        return image_codes.decode_codes(self.vqgan, codes, tile=tile)
