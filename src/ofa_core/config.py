"""Configuration: dimensions, optional parts and the settings a model was trained with. Stored as ``config.json``."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, TypeAlias, TypedDict

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from .errors import OFAError, first_problem, shown

#: Blocks in the three stages of the image stem, by the name fairseq gives them. All of them use bottleneck blocks.
STEM_DEPTHS: dict[str, tuple[int, int, int]] = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "resnet152": (3, 8, 36),
}

#: Fields that differ from size to size; everything else is the default of :class:`OFAConfig`.
PRESETS: dict[str, dict[str, Any]] = {
    size: dict(
        zip(("embed_dim", "ffn_dim", "encoder_layers", "decoder_layers", "num_heads", "stem_depths"), row, strict=True)
    )
    for size, row in {
        "tiny": (256, 1024, 4, 4, 4, STEM_DEPTHS["resnet50"]),
        "medium": (512, 2048, 4, 4, 8, STEM_DEPTHS["resnet101"]),
        "base": (768, 3072, 6, 6, 12, STEM_DEPTHS["resnet101"]),
        "large": (1024, 4096, 12, 12, 16, STEM_DEPTHS["resnet152"]),
        "huge": (1280, 5120, 24, 12, 16, STEM_DEPTHS["resnet152"]),
    }.items()
}


def merged(fields: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge settings at every level: what ``changes`` does not name stays as ``fields`` has it.

    Args:
        fields: settings by name; those of a part are a mapping themselves.
        changes: the settings with other values, in the same form.

    Returns:
        All settings, in new mappings.
    """
    result = dict(fields)
    for name, value in changes.items():
        old = result.get(name)
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        result[name] = merged(old, value) if both else value  # type: ignore[arg-type]  # which both says
    return result


class Limit(NamedTuple):
    """The largest value of a field that is accepted, and why no more is meant."""

    most: int
    reason: str


#: The most of each field, by its name: far beyond every model there is, and little enough that a number that was not
#: meant (a damaged file, a slip of the hand) is refused before memory is asked for.
LIMITS: Mapping[str, Limit] = {
    "embed_dim": Limit(16_384, "the largest released model has 1,280"),
    "ffn_dim": Limit(65_536, "the largest released model has 5,120"),
    "encoder_layers": Limit(64, "the largest released model has 24"),
    "decoder_layers": Limit(64, "the largest released model has 12"),
    "num_heads": Limit(1_024, "the largest released model has 16"),
    "stem_depths": Limit(64, "the deepest image stem has 36 blocks in a stage"),
    "vocab_size": Limit(2**22, "released models have 59,457"),
    "max_source_positions": Limit(8_192, "released models have 1,024, and memory grows with the square"),
    "max_target_positions": Limit(8_192, "released models have 1,024, and memory grows with the square"),
    "token_bucket_size": Limit(8_192, "released models have 256"),
    "image_bucket_size": Limit(128, "released models have 42, and memory grows with the fourth power"),
    "image_size": Limit(2_048, "that is 16,384 patches, whose attention takes 13 GB in a base model"),
    "code_image_size": Limit(2_048, "that is 65,536 codes, far beyond every target"),
    "orig_patch_image_size": Limit(2_048, "released models have 256"),
    "max_image_size": Limit(16_384, "released models have 512"),
    "num_bins": Limit(2**16, "released models have 1,000, and pictures have few thousand pixels a side"),
    "code_dict_size": Limit(2**20, "released models have 8,192"),
    "max_source_tokens": Limit(8_192, "a model has as many positions at most"),
    "max_target_tokens": Limit(8_192, "a model has as many positions at most"),
    "adapter_dim": Limit(65_536, "it is a bottleneck"),
    "projection_dim": Limit(65_536, "no layer of a released model is wider than 5,120"),
    "length": Limit(8_192, "prompts are shorter than texts"),
    "inner_dim": Limit(65_536, "no layer of a released model is wider than 5,120"),
    "num_classes": Limit(2**20, "a class is a row of weights"),
    "classification_heads": Limit(256, "a head is a task"),
    "extra_tokens": Limit(2**20, "a token is a row of weights"),
}
#: Parameters of a whole model.
MAX_PARAMETERS = Limit(20 * 10**9, "the largest released model has 930,000,000")


class _Frozen(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _within_limit(cls, value: Any, info: ValidationInfo) -> Any:
        limit = LIMITS.get(info.field_name or "")
        if limit is not None and value is not None:
            check_limit(_magnitude(value), limit)
        return value


def check_limit(value: int, limit: Limit) -> None:
    """Refuse a number that cannot be meant.

    Raises:
        ValueError: it is more than ``limit``.
    """
    if value > limit.most:
        raise ValueError(f"{shown(value)} is more than {limit.most:,}, the most that is accepted: {limit.reason}")


def _magnitude(value: Any) -> int:
    """A number itself, the largest of several, and of other things how many they are."""
    if isinstance(value, int):
        return value
    numbers = isinstance(value, tuple) and bool(value) and all(isinstance(item, int) for item in value)
    return max(value) if numbers else len(value)


class PromptConfig(_Frozen):
    """A prefix prompt: ``length`` learned key/value vectors in front of every self-attention of a stack."""

    length: int = Field(gt=0)
    #: Width of the projection's hidden layer; None where the vectors are stored as they are used.
    projection_dim: int | None = Field(default=None, gt=0)


class ClassificationHeadConfig(_Frozen):
    """A classification head: ``inner_dim`` is the hidden width of the ``mlp`` kind, None for the ``linear`` kind."""

    num_classes: int = Field(gt=0)
    inner_dim: int | None = Field(default=None, gt=0)


#: Points of a line that never falls: x strictly rising, both between 0 and 1.
Knots: TypeAlias = "tuple[tuple[Annotated[float, Field(ge=0, le=1)], Annotated[float, Field(ge=0, le=1)]], ...]"


class Calibration(_Frozen):
    """Lines that tell how a model's own distribution of boxes turned out on data."""

    #: From expected IoU to the probability that the box and the right one overlap by half; empty: not measured.
    overlap: Knots = ()
    #: From the highest expected IoU of a box, times the probability that the model has one to say, to the probability
    #: that what the phrase describes is there at all; empty: not measured.
    present: Knots = ()
    #: The probability of being there below which there is no box.
    least_present: float = Field(default=0.0, ge=0, le=1)

    @model_validator(mode="after")
    def _never_falls(self) -> Calibration:
        for name, knots in (("overlap", self.overlap), ("present", self.present)):
            if any(a[0] >= b[0] or a[1] > b[1] for a, b in itertools.pairwise(knots)):
                raise ValueError(f"the points of {name} do not rise from one to the next")
        return self


class TaskSettings(_Frozen):
    """Settings that a checkpoint was trained with: what evaluation needs and tensors cannot tell."""

    #: The name of the task it was trained for, as fairseq knows it (``refcoco``, ``vqa_gen``, ...).
    name: str = "ofa"
    #: Side in pixels of the square to which pictures are resized.
    image_size: int = Field(default=512, gt=0)
    #: Divisor of box coordinates in the RefCOCO convention, whatever the picture is resized to.
    max_image_size: int = Field(default=512, gt=0)
    num_bins: int = Field(default=1000, gt=1)
    code_dict_size: int = Field(default=8192, ge=0)
    #: Tokens that a fine-tuning added after the bins.
    extra_tokens: tuple[str, ...] = ()
    #: The decoder's prompt before an answer, see :func:`ofa_core.score_candidates`; None: the task's own.
    prompt_type: Literal["none", "src", "prev_output"] | None = None
    #: True if detected object names were appended to the question (VQA).
    add_object: bool = False
    #: The number of names that are read.
    max_objects: int = Field(default=30, ge=0)
    #: ImageNet's mean and standard deviation instead of 0.5 and 0.5.
    imagenet_normalization: bool = False
    #: Text tokens kept of a source and of a target.
    max_source_tokens: int = Field(default=128, gt=0)
    max_target_tokens: int = Field(default=30, gt=0)
    #: Prompts that it was trained with instead of the original's, by the names of tasks.
    prompts: dict[str, str] = Field(default_factory=dict)
    #: Names of tasks that a fine-tuning taught beside the one it is named after.
    learned: tuple[str, ...] = ()
    #: Settings of the search for the task it was trained for that are not the original's, as
    #: :class:`~ofa_core.GenerationOptions` names them.
    search: dict[str, bool | int | float] = Field(default_factory=dict)

    #: The meaning of the confidence in a box with this model, as ``ofa-core calibrate`` measured it; None: nobody did.
    calibration: Calibration | None = None


class TaskChanges(TypedDict, total=False):
    """The fields of :class:`TaskSettings`, to be given by name; what they mean stands there."""

    name: str
    image_size: int
    max_image_size: int
    num_bins: int
    code_dict_size: int
    extra_tokens: tuple[str, ...]
    prompt_type: Literal["none", "src", "prev_output"] | None
    add_object: bool
    max_objects: int
    imagenet_normalization: bool
    max_source_tokens: int
    max_target_tokens: int
    prompts: dict[str, str]
    learned: tuple[str, ...]
    search: dict[str, bool | int | float]
    calibration: Calibration | None


class OFAConfig(_Frozen):
    """Dimensions and optional parts of an :class:`~ofa_core.OFAModel`. The defaults are those of the released models.

    Raises:
        OFAError: from :meth:`preset` and :meth:`from_json`, where the input is not a configuration.
    """

    embed_dim: int = Field(gt=0)
    ffn_dim: int = Field(gt=0)
    encoder_layers: int = Field(gt=0)
    decoder_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    #: Bottleneck blocks in the image stem's three stages.
    stem_depths: tuple[PositiveInt, PositiveInt, PositiveInt]
    vocab_size: int = Field(default=59457, gt=4)

    max_source_positions: int = Field(default=1024, gt=0)
    max_target_positions: int = Field(default=1024, gt=0)
    #: Half the number of relative text positions that have a bucket of their own.
    token_bucket_size: int = Field(default=256, gt=1)
    #: Rows and columns of the grid of patch positions: pictures of up to 42 × 16 pixels a side.
    image_bucket_size: int = Field(default=42, gt=0)
    attn_scale_factor: float = Field(default=2.0, gt=0)
    #: Side in pixels of the picture that image codes describe, 8 pixels a code.
    code_image_size: int = Field(default=128, gt=0)
    #: With ``interpolate_position``, larger pictures stretch the position vectors of this size's grid.
    orig_patch_image_size: int = Field(default=256, gt=0)
    interpolate_position: bool = False

    image_layernorm: bool = True  #: LayerNorm on the patches that enter the encoder
    code_layernorm: bool = True  #: a LayerNorm of its own for image codes that enter the decoder
    type_embedding: bool = True  #: a learned vector that tells text from patches
    scale_attn: bool = True  #: LayerNorm behind every attention
    scale_fc: bool = True  #: LayerNorm between the two linear layers of a feed-forward
    scale_heads: bool = True  #: a learned factor for every attention head
    scale_resids: bool = False  #: a learned factor on the feed-forward's residual path
    entangle_encoder_positions: bool = False  #: positions are added to the encoder's input too
    entangle_decoder_positions: bool = False  #: positions are added to the decoder's input too
    adapter_dim: int | None = Field(default=None, gt=0)  #: width of the bottleneck adapters, None where there are none
    encoder_prompt: PromptConfig | None = None
    decoder_prompt: PromptConfig | None = None
    classification_heads: dict[str, ClassificationHeadConfig] = Field(default_factory=dict)

    dropout: float = Field(default=0.0, ge=0, lt=1)
    attention_dropout: float = Field(default=0.0, ge=0, lt=1)
    activation_dropout: float = Field(default=0.0, ge=0, lt=1)
    pooler_dropout: float = Field(default=0.0, ge=0, lt=1)
    encoder_drop_path: float = Field(default=0.0, ge=0, lt=1)
    decoder_drop_path: float = Field(default=0.0, ge=0, lt=1)
    stem_drop_path: float = Field(default=0.0, ge=0, lt=1)

    task: TaskSettings = TaskSettings()

    @model_validator(mode="after")
    def _heads_divide_width(self) -> OFAConfig:
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")
        return self

    @model_validator(mode="after")
    def _within_memory(self) -> OFAConfig:
        try:
            check_limit(self._parameters(), MAX_PARAMETERS)
        except ValueError as error:
            raise ValueError(f"the sizes together make too many parameters: {error}") from None
        return self

    def _parameters(self) -> int:
        """About how many parameters the model has: all matrices, without vectors and the image stem."""
        dim, layers = self.embed_dim, self.encoder_layers + self.decoder_layers
        attention, feed_forward = 4 * dim**2, 2 * dim * (self.ffn_dim + (self.adapter_dim or 0))
        positions = self.max_source_positions + self.max_target_positions + 2 * self.image_bucket_size**2
        buckets = 2 * self.token_bucket_size + (2 * self.image_bucket_size) ** 2
        prompts = sum(
            (prompt.projection_dim or prompt.length) * 2 * dim * depth
            for prompt, depth in (
                (self.encoder_prompt, self.encoder_layers),
                (self.decoder_prompt, self.decoder_layers),
            )
            if prompt is not None
        )
        heads = sum((head.inner_dim or dim) * (head.num_classes + dim) for head in self.classification_heads.values())
        return (
            (layers + self.decoder_layers) * attention
            + layers * (feed_forward + buckets * self.num_heads)
            + (self.vocab_size + positions) * dim
            + prompts
            + heads
        )

    def get(self, name: str, default: Any = None) -> Any:
        """Return a field, as of a mapping, which is how peft reads a model's configuration.

        Args:
            name: the field's name.
            default: what is returned where there is no such field.

        Returns:
            The field's value.
        """
        return getattr(self, name) if name in type(self).model_fields else default

    @property
    def size(self) -> str | None:
        """The released size that has these dimensions; None where they are no released model's."""
        return next((size for size, row in PRESETS.items() if all(self.get(key) == row[key] for key in row)), None)

    @property
    def head_dim(self) -> int:
        """E, the width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def attention_scale(self) -> float:
        """The factor on every product of a query and a key, positions included: (E · attn_scale_factor)^-1/2."""
        return float((self.head_dim * self.attn_scale_factor) ** -0.5)

    @classmethod
    def preset(cls, size: str, **changes: Any) -> OFAConfig:
        """Return the configuration of a released size.

        Args:
            size: ``tiny``, ``medium``, ``base``, ``large`` or ``huge``.
            changes: fields with other values.

        Returns:
            The configuration.

        Raises:
            OFAError: there is no such size or field, or a value is out of range.
        """
        if size not in PRESETS:
            raise OFAError(f"there is no preset {size!r}; the presets are {', '.join(PRESETS)}")
        try:
            return cls(**{**PRESETS[size], **changes})
        except ValidationError as error:
            raise OFAError(f"preset {size}: {first_problem(error)}") from None

    @classmethod
    def from_json(cls, text: str, origin: str = "configuration") -> OFAConfig:
        """Read what :meth:`model_dump_json` wrote.

        Args:
            text: the JSON.
            origin: the name of its source in errors.

        Returns:
            The configuration.

        Raises:
            OFAError: it is none.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise OFAError(f"{origin} is not an OFA configuration: {first_problem(error)}") from None
