"""The heads that programs ask: what each takes for every sample, and what for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

#: Options of a search for tokens that programs offer.
SEARCH = ("num_beams", "max_new_tokens")
#: Texts that may be asked of all rows that hold none.
GIVEN = ("text", "question", "caption")


@dataclass(frozen=True)
class Head:
    """A method of :class:`~ofa_core.OFA` as a command."""

    name: str
    method: str
    #: Its meaning, for people.
    help: str
    #: Arguments of the method that come one for each sample, and those of them that a sample may lack.
    columns: tuple[str, ...]
    optional: tuple[str, ...] = ()
    #: Arguments that are the same for all samples.
    shared: tuple[str, ...] = ()
    #: Published formats whose rows have the columns, those that say most first; rows of the plain form are read always.
    formats: tuple[str, ...] = ()
    #: True if rows of files can be put to it.
    in_bulk: bool = True

    @property
    def has_image(self) -> bool:
        """True if it looks at a picture, or may."""
        return "image" in self.columns or "image" in self.optional

    @property
    def needs_image(self) -> bool:
        """True if there is nothing to ask without a picture."""
        return "image" in self.columns


_PHRASES = ("ref_l4", "refcoco", "grefcoco")
_DIALOGS = ("invig", "guesswhat")

#: Every head, in the order in which help lists them.
HEADS: Mapping[str, Head] = {
    head.name: head
    for head in (
        Head(
            "ground",
            "ground",
            "the box of what a text describes",
            ("image", "text"),
            shared=("bins_only", "all", "threshold", "prompt", *SEARCH),
            formats=_PHRASES,
        ),
        Head(
            "detect",
            "detect",
            "the boxes of everything in a picture, or of all things of some names",
            ("image",),
            shared=("categories", "style", "threshold", "prompt", *SEARCH),
            formats=("pretrain_detection", *_PHRASES, "caption", "image_classify"),
        ),
        Head(
            "caption",
            "caption",
            "a caption",
            ("image",),
            shared=("prompt", *SEARCH),
            formats=(*_PHRASES, "caption", "image_classify"),
        ),
        Head(
            "answer",
            "answer",
            "the answer to a question",
            ("image", "question"),
            shared=("candidates", "prompt", *SEARCH),
            formats=("vqa", "answer_matching"),
        ),
        Head(
            "oracle",
            "oracle",
            "the answer to a question about a region",
            ("image", "box", "question"),
            ("dialog",),
            shared=("style", *SEARCH),
            formats=_DIALOGS,
        ),
        Head(
            "ask",
            "ask",
            "the next question of someone who wants to find out what a dialog is about",
            ("image", "dialog"),
            shared=("style", *SEARCH),
            formats=_DIALOGS,
        ),
        Head(
            "describe",
            "describe_region",
            "a description of a region",
            ("image", "box"),
            shared=("prompt", *SEARCH),
            formats=_PHRASES[:2],
        ),
        Head(
            "entails",
            "entails",
            "yes, no or maybe: what a picture implies of a text",
            ("image", "text"),
            ("caption",),
            shared=("prompt",),
            formats=("snli_ve",),
        ),
        Head(
            "classify",
            "classify",
            "the label that fits a picture best",
            ("image",),
            shared=("labels", "prompt"),
            formats=("image_classify", "caption"),
        ),
        Head(
            "summarize",
            "summarize",
            "the headline of a text",
            ("text",),
            shared=("prompt", *SEARCH),
            formats=("gigaword",),
        ),
        Head("generate", "generate", "free text behind a raw prompt", ("text",), ("image",), shared=SEARCH),
        Head(
            "explain",
            "explain",
            "where the model looks for what a text describes",
            ("image", "text"),
            ("answer",),
            shared=("gradients", "prompt"),
            formats=_PHRASES,
        ),
        Head(
            "imagine",
            "imagine",
            "pictures of a text",
            ("text",),
            shared=("count", "seed", "top_k", "top_p", "temperature", "guidance", "prompt"),
            in_bulk=False,
        ),
    )
}
