"""The tables of a training run's settings, each of a class: what it reads, its loss, optimizer, adapter and so on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from ..data.read_options import BoxUnit, Language, ReadOptions


class Settings(BaseModel):
    """Settings that are checked whole, and refuse what they do not know."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid")

    #: Names that settings had in earlier versions, and their present ones.
    _RENAMED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _say_new_names(cls, given: Any) -> Any:
        for old, new in cls._RENAMED.items():
            if isinstance(given, Mapping) and old in given:
                raise ValueError(f"{old} is called {new} now")
        return given


#: The task of one's own, whose sources and targets are put together by templates.
CUSTOM = "custom"


class ReadSettings(Settings):
    """Settings of reading rows that no file tells by itself."""

    #: ``cn`` takes the Chinese dialogs of InViG.
    language: Language = "en"
    #: The unit of boxes; None: as rows tell.
    boxes: BoxUnit | None = None
    #: Keep the last pair of a dialog whose last agent turn asks nothing.
    keep_last_turn: bool = False
    #: The split of the data that is read, of several with commas between, or ``all``.
    split: str | None = None
    #: The text that is read in a task of one's own (``custom``), with columns in braces: ``what is {thing}?``.
    source: str | None = None
    #: The text that is said there; in either of them ``{box}`` stands for the bins of a row's box.
    target: str | None = None

    @model_validator(mode="after")
    def _templates_have_a_use(self) -> ReadSettings:
        task = getattr(self, "task", CUSTOM)
        given = next((name for name in ("source", "target") if getattr(self, name) is not None), None)
        if task != CUSTOM and given is not None:
            raise ValueError(f"{given} is for the task {CUSTOM!r} alone, and {task!r} has its own prompt")
        return self

    @property
    def read_options(self) -> ReadOptions:
        """The options with which rows are read."""
        return ReadOptions(self.language, self.boxes, self.keep_last_turn, self.split, self.source, self.target)


class DataSettings(ReadSettings):
    """One source of examples."""

    #: The task that is learned from it: a name of :data:`ofa_core.training.sources.LESSONS`, or ``shapes``.
    task: str
    #: The dataset file, in a format that the benchmarks read.
    path: Path | None = None
    #: A directory or archive with the pictures.
    images: Path | None = None
    #: Rows may name pictures outside of ``images``, or of the current directory where there are none.
    allow_outside: bool = False
    #: Share among all sources.
    weight: float = Field(default=1.0, gt=0)
    #: Columns of a TSV file in their order.
    columns: tuple[str, ...] | None = None
    #: Skip rows that are wrong instead of stopping at the first.
    skip_bad: bool = False
    #: A text file of answers, one a line: each target of this source is one of them, whatever other sources have.
    answers: Path | None = None
    #: A directory with all_captions.txt, object.txt and type2ans.json, of which pre-training draws what does not match.
    negatives: Path | None = None
    #: A model directory with a network of image codes, or the network's own .safetensors file, which makes the codes
    #: that ``image_gen`` and ``pretrain_image`` teach of pictures with captions, in place of rows that hold codes. The
    #: network goes with the models that are written.
    codes_from: Path | None = None
    #: A directory in which codes that were made are kept; None: in the cache.
    codes_cache: Path | None = None
    #: Share of the examples of ``image_gen`` whose text is left out, so that pictures can be drawn with ``guidance``.
    text_dropout: float = Field(default=0.0, ge=0, lt=1)
    #: Patches of each picture that the encoder sees, drawn anew for each example; None: all. The original pre-trains
    #: with 196 of each picture that comes with a text.
    sample_patch_num: PositiveInt | None = None
    #: Settings that only this task has.
    options: dict[str, Any] = Field(default_factory=dict)


class SelfCriticalSettings(Settings):
    """Settings of self-critical training of captions, whose reward is CIDEr-D (the original's second stage)."""

    #: Captions that are found for each picture and compared with each other.
    candidates: int = Field(default=5, ge=2)
    #: Draw the candidates from the model's probabilities, instead of the beam search that the original trains with.
    draw: bool = False


class LossSettings(Settings):
    """Settings of the loss."""

    #: Train captions on their scores, in place of a loss against targets: with the lesson ``caption_references`` alone.
    self_critical: SelfCriticalSettings | None = None

    #: Share of the probability that goes to all tokens alike.
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    #: First id and end of the ids that targets are made of, besides the control ids.
    constraint_range: tuple[int, int] | None = None
    #: A text file of answers, one a line: targets are answers, and only tokens that continue one have a probability.
    answers: Path | None = None
    #: Weight of R-drop's regulariser; 0 is without, and saves half the work.
    rdrop: float = Field(default=0.0, ge=0)
    #: ``original`` divides R-drop's regulariser by the tokens of both passes, so that its weight counts half, and sends
    #: pictures through the stem in either pass; ``mean`` adds all of it to the mean of both losses and sends them once.
    rdrop_rule: Literal["original", "mean"] = "mean"
    #: Share of the largest token losses that is left out, which may be wrongly labelled.
    drop_worst: float = Field(default=0.0, ge=0, lt=1)
    #: The step, counted from 0, from which on they are left out.
    drop_worst_after: int = Field(default=0, ge=0)
    #: ``original`` leaves losses out behind the step ``drop_worst_after``, and beside R-drop by the first pass's loss
    #: alone; ``mean`` from that step on, by the mean of both passes and the divergence.
    drop_worst_rule: Literal["original", "mean"] = "mean"
    #: Add the encouraging loss, which makes what is likely already still likelier: the probability from which on its
    #: reward grows along a line, 0.75 or 0.5 to begin with. None: without it, as all published scripts of OFA train.
    encouraging: float | None = Field(default=None, gt=0, le=1)
    #: Leave the last token, ``</s>``, out of the loss.
    ignore_eos: bool = False
    #: Leave the first tokens behind ``<s>`` out of the loss, as many as this (a decoder prompt's are never in it).
    ignore_prefix_size: int = Field(default=0, ge=0)
    #: Divide a step's gradient by the number of its examples instead of its tokens.
    per_sentence: bool = False
    #: Standard deviation, in bins, of a Gaussian around each target bin; 0 for one-hot bins as in the original.
    bin_sigma: float = Field(default=0.0, ge=0)
    #: Weight of a bin's loss beside that of a word.
    bin_weight: float = Field(default=1.0, gt=0)

    @model_validator(mode="after")
    def _self_critical_alone(self) -> LossSettings:
        others = sorted(self.model_fields_set - {"self_critical"})
        if self.self_critical is not None and others:
            raise ValueError(f"self_critical is a loss of its own, in which {others[0]} has no meaning: leave it out")
        return self


#: The task whose targets are all captions of a picture, of which only scores are made.
REFERENCES = "caption_references"

#: Parts that can be kept as they are.
Part = Literal[
    "stem",
    "embeddings",
    "encoder",
    "decoder",
    "all_but_biases",
    "all_but_bitfit",
    "all_but_adapters",
    "all_but_prompts",
    "as_original",
]


class OptimizerSettings(Settings):
    """Settings of the optimizer and its schedule."""

    _RENAMED: ClassVar[Mapping[str, str]] = {"rate": "lr"}

    #: Learning rate behind the warm-up.
    lr: float = Field(default=3e-5, gt=0)
    #: Adam's decays of the gradient's and of its square's moving average.
    betas: tuple[float, float] = (0.9, 0.999)
    #: A small number that keeps Adam from dividing by zero.
    eps: float = Field(default=1e-8, gt=0)
    #: ``corrected`` adds ``eps`` behind Adam's bias correction, as torch does; ``uncorrected`` before it, as the
    #: original does, where it counts eps / sqrt(1 - beta2^t) at step t.
    eps_rule: Literal["corrected", "uncorrected"] = "corrected"
    #: Share of the learning rate by which weights shrink in a step.
    weight_decay: float = Field(default=0.01, ge=0)
    #: Weights that shrink: ``all``, or ``matrices`` alone, without biases, norms and scales.
    decay: Literal["all", "matrices"] = "matrices"
    #: Share of all steps in which the learning rate rises.
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)
    #: Steps in which the learning rate rises, in place of ``warmup_ratio``.
    warmup_steps: int | None = Field(default=None, ge=0)
    #: The first step has the learning rate 0 instead of the first share of the way to ``lr``.
    warmup_from_zero: bool = False
    #: The learning rate at the end, as a share of ``lr``.
    end: float = Field(default=0.0, ge=0, le=1)
    #: The power of the learning rate's way to its end; 1 is a line.
    power: float = Field(default=1.0, gt=0)
    #: The learning rate at the end as it is, in place of ``end``.
    end_lr: float | None = Field(default=None, ge=0)
    #: The epoch, counted from 1, from which on each begins its fall anew from the learning rate that it finds.
    force_anneal: int | None = Field(default=None, ge=2)
    #: Largest norm of a step's gradient; 0 does not clip.
    clip_norm: float = Field(default=1.0, ge=0)
    #: Steps in a row whose gradient is not finite, behind which the run stops; such a step moves no weight.
    max_skipped: PositiveInt = 10


class LoraSettings(Settings):
    """Settings of a low-rank adapter (LoRA, arXiv 2106.09685): what of a model is trained instead of its weights."""

    #: Rank of the change of each layer.
    rank: PositiveInt = 8
    #: The change is scaled with ``alpha / rank``.
    alpha: float = Field(default=16.0, gt=0, allow_inf_nan=False)
    #: Names of linear layers, or ends of them; by default those of queries and values in every attention, as in the
    #: paper.
    targets: tuple[str, ...] = Field(default=("q_proj", "v_proj"), min_length=1)
    #: Dropout before the change.
    dropout: float = Field(default=0.0, ge=0, lt=1)


class CacheSettings(Settings):
    """Settings of the cache of what the image stem makes of pictures."""

    #: The directory, which several runs may share; None: ``features`` in the run's.
    directory: Path | None = None
    #: ``exact`` keeps features as the stem gives them; ``float16`` in half the room, rounded to three digits.
    dtype: Literal["exact", "float16"] = "exact"
    #: The most that is kept, in GiB; what has no room is computed every time. None: as much as the disk holds.
    max_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)


class EvaluationSettings(ReadSettings):
    """A benchmark that is run while training."""

    #: The benchmark: a task of ``ofa-core bench``.
    task: str
    #: The dataset file.
    path: Path
    #: A directory or archive with the pictures.
    images: Path | None = None
    #: Rows may name pictures outside of ``images``, or of the current directory where there are none.
    allow_outside: bool = False
    #: The most samples that are asked; None: all.
    limit: int | None = Field(default=None, gt=0)
    #: Samples that are asked at once.
    batch_size: PositiveInt = 16
    #: No answer has more tokens than this; ``grefcoco`` says more than one box where these are more than four. None:
    #: each task's own limit.
    max_new_tokens: PositiveInt | None = None
    #: Further files of rows, whose scores stand beside those of the whole.
    more: tuple[Path, ...] = ()
    #: A text file of the only answers, or classes, one a line.
    answers: Path | None = None


class NewModelSettings(Settings):
    """A model that begins with random weights."""

    _RENAMED: ClassVar[Mapping[str, str]] = {"alike_attend": "keys_from_queries"}

    #: A directory with the vocabulary files, or ``small`` for the package's own.
    vocabulary: str = "small"
    #: Fields of :class:`~ofa_core.OFAConfig`; the vocabulary's size follows from its files.
    config: dict[str, Any]
    #: Standard deviation of the new weights of linear layers and embeddings. BERT's 0.02 suits wide models; for one of
    #: width D, D to the power -1/2 learns much sooner.
    init_std: float = Field(default=0.02, gt=0)
    #: A safetensors file with the weights of an image stem that has learned to see already. Where it also has weights
    #: ``words``, patches begin as the words for what they show.
    stem: Path | None = None
    #: Begin with keys that are as queries are, so that what is alike attends to each other.
    keys_from_queries: bool = False
    #: Begin with bins whose neighbours are alike, so that a nearby box is a small mistake from the start.
    smooth_bins: bool = False
    #: Begin with position vectors of patches that are alike along rows and columns, of this standard deviation. Where
    #: positions are entangled with patches, they should be about as large as these (1 or so).
    smooth_positions: float | None = Field(default=None, gt=0)
