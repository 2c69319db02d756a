"""Options of the search for a target sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, TypedDict

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..errors import OFAError, first_problem

if TYPE_CHECKING:
    from typing_extensions import Unpack


class SearchOptions(TypedDict, total=False):
    """The fields of :class:`GenerationOptions`, to be given by name; what they mean stands there."""

    num_beams: int
    max_new_tokens: int
    max_new_tokens_per_source_token: float
    min_new_tokens: int
    length_penalty: float
    normalize_scores: bool
    unk_penalty: float
    temperature: float
    no_repeat_ngram_size: int
    num_beam_groups: int
    diversity_penalty: float
    num_return_sequences: int | None
    do_sample: bool
    top_k: int
    top_p: float
    constrain_after_softmax: bool
    suppress_special_tokens: bool
    image_codes: bool
    guidance: float


class GenerationOptions(BaseModel):
    """Settings of beam search and sampling; the defaults are the original's.

    Raises:
        OFAError: an option that does not exist or a value out of range.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    #: K, the prefixes kept at every step of a beam search; 1 is greedy.
    num_beams: int = Field(default=5, ge=1)
    #: At most ``int(max_new_tokens_per_source_token * N + max_new_tokens)`` tokens come before ``</s>``, where N is the
    #: length of the padded source text.
    max_new_tokens: int = Field(default=200, ge=0)
    max_new_tokens_per_source_token: float = Field(default=0.0, ge=0)
    #: ``</s>`` is ruled out until this many tokens stand.
    min_new_tokens: int = Field(default=1, ge=0)
    #: Scores are divided by (length including ``</s>``) ** ``length_penalty``, unless ``normalize_scores`` is off.
    length_penalty: float = 1.0
    normalize_scores: bool = True
    #: Taken from the log-probability of ``<unk>``.
    unk_penalty: float = 0.0
    #: Logits are divided by it.
    temperature: float = Field(default=1.0, gt=0)
    #: No run of this many tokens occurs twice; 0 switches the rule off.
    no_repeat_ngram_size: int = Field(default=0, ge=0)
    #: Beams are shared out over this many groups; a token that an earlier group picked in the same step loses
    #: ``diversity_penalty`` for every time it did.
    num_beam_groups: int = Field(default=1, ge=1)
    diversity_penalty: float = 0.5
    #: Hypotheses to return; None: one a beam, or one when sampling.
    num_return_sequences: int | None = Field(default=None, ge=1)
    #: Draw tokens instead of searching: from the ``top_k`` most probable (0: all) and among these from the fewest whose
    #: probabilities reach ``top_p``.
    do_sample: bool = False
    top_k: int = Field(default=0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    #: Apply constraints to log-probabilities, which then do not sum to one over what is allowed ("zero-shot").
    constrain_after_softmax: bool = False
    #: Rule out ids 0 to 3 until the last step, as for boxes and codes of a fixed length.
    suppress_special_tokens: bool = False
    #: The target is image codes: their positions are a picture's, and special tokens are suppressed.
    image_codes: bool = False
    #: Weight of the text in what is drawn: s in ``(1 - s) * log p(code | no text) + s * log p(code | text)``, of which
    #: codes are drawn (Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598). Others than 1 are for models
    #: that were trained with some texts left out.
    guidance: float = Field(default=1.0, ge=0)

    def __init__(self, **options: Unpack[SearchOptions]) -> None:
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise OFAError(first_problem(error, "generation options")) from None

    @model_validator(mode="after")
    def _fits_together(self) -> GenerationOptions:
        if self.num_beams % self.num_beam_groups:
            raise ValueError(f"num_beams {self.num_beams} is not a multiple of num_beam_groups {self.num_beam_groups}")
        if not self.do_sample and (self.num_return_sequences or 1) > self.num_beams:
            raise ValueError(
                f"num_return_sequences {self.num_return_sequences} is more than num_beams {self.num_beams}"
            )
        return self

    def max_length(self, source_length: int, limit: int) -> int:
        """Compute how many tokens may come before ``</s>``.

        Args:
            source_length: tokens of the padded source.
            limit: target positions of the model.

        Returns:
            The number of tokens.
        """
        wanted = int(self.max_new_tokens_per_source_token * source_length + self.max_new_tokens)
        return min(wanted, limit - 1)

    def updated(self, **changes: Unpack[SearchOptions]) -> GenerationOptions:
        """These options with some of them changed."""
        fields: dict[str, Any] = self.model_dump() | dict(changes)
        return GenerationOptions(**fields)
