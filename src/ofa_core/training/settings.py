"""Settings of a training run: everything in one TOML file, checked before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from ..checkpoint.names import is_name
from ..data.read_options import BoxUnit, Language, ReadOptions
from ..errors import OFAError, first_problem
from ..utils.toml_files import read_toml


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    #: Names that settings had in earlier versions, and their present ones.
    _RENAMED: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _say_new_names(cls, given: Any) -> Any:
        for old, new in cls._RENAMED.items():
            if isinstance(given, Mapping) and old in given:
                raise ValueError(f"{old} is called {new} now")
        return given


class ReadSettings(_Settings):
    """Settings of reading rows that no file tells by itself."""

    #: ``cn`` takes the Chinese dialogs of InViG.
    language: Language = "en"
    #: The unit of boxes; None: as rows tell.
    boxes: BoxUnit | None = None
    #: Keep the last pair of a dialog whose last agent turn asks nothing.
    keep_last_turn: bool = False
    #: The split of the data that is read, of several with commas between, or ``all``.
    split: str | None = None

    @property
    def read_options(self) -> ReadOptions:
        """The options with which rows are read."""
        return ReadOptions(self.language, self.boxes, self.keep_last_turn, self.split)


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
    #: Settings that only this task has.
    options: dict[str, Any] = Field(default_factory=dict)


class SelfCriticalSettings(_Settings):
    """Settings of self-critical training of captions, whose reward is CIDEr-D (the original's second stage)."""

    #: Captions that are found for each picture and compared with each other.
    candidates: int = Field(default=5, ge=2)
    #: Draw the candidates from the model's probabilities, instead of the beam search that the original trains with.
    draw: bool = False


class LossSettings(_Settings):
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
    #: Share of the largest token losses that is left out, and the step from which on.
    drop_worst: float = Field(default=0.0, ge=0, lt=1)
    drop_worst_after: int = Field(default=0, ge=0)
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
Part = Literal["stem", "embeddings", "encoder", "decoder", "all_but_biases", "all_but_adapters", "all_but_prompts"]


class OptimizerSettings(_Settings):
    """Settings of the optimizer and its schedule."""

    _RENAMED: ClassVar[Mapping[str, str]] = {"rate": "lr"}

    #: Learning rate behind the warm-up.
    lr: float = Field(default=3e-5, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    #: Share of all steps in which the learning rate rises.
    warmup_ratio: float = Field(default=0.06, ge=0, lt=1)
    #: The learning rate at the end, as a share of ``lr``, and the power of the way there; 1 is a line.
    end: float = Field(default=0.0, ge=0, le=1)
    power: float = Field(default=1.0, gt=0)
    #: Largest norm of a step's gradient; 0 does not clip.
    clip_norm: float = Field(default=1.0, ge=0)
    #: Steps in a row whose gradient is not finite, behind which the run stops; such a step moves no weight.
    max_skipped: PositiveInt = 10


class LoraSettings(_Settings):
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


class EvaluationSettings(ReadSettings):
    """A benchmark that is run while training."""

    task: str
    path: Path
    images: Path | None = None
    allow_outside: bool = False
    limit: int | None = Field(default=None, gt=0)
    batch_size: PositiveInt = 16
    #: Further files of rows, whose scores stand beside those of the whole.
    more: tuple[Path, ...] = ()
    #: A text file of the only answers, or classes, one a line.
    answers: Path | None = None


class NewModelSettings(_Settings):
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


class TrainingSettings(_Settings):
    """A training run; see the fields. Relative paths are relative to the TOML file."""

    #: The model to begin with: a directory, anything that ``convert-ckpt`` reads, or a name that
    #: :func:`ofa_core.load` takes; or ``new_model``.
    model: Path | None = None
    new_model: NewModelSettings | None = None
    #: The run's directory: ``log.jsonl``, ``loss.svg``, ``state.safetensors``, the models ``last`` and ``best``; with
    #: ``lora`` their adapters are ``last-adapter`` and ``best-adapter``.
    out: Path
    #: A task whose fine-tuning settings the model takes on (picture side, cuts, decoder prompt): a name of
    #: :data:`ofa_core.heads.tasks.TASKS`; None keeps those that it has.
    task: str | None = None
    data: tuple[DataSettings, ...] = Field(min_length=1)
    evaluation: tuple[EvaluationSettings, ...] = ()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    #: Fields of the model's configuration to change, such as ``dropout``, ``encoder_drop_path`` or ``adapter_dim``.
    config: dict[str, Any] = Field(default_factory=dict)
    freeze: tuple[Part, ...] = ()
    #: Train a low-rank adapter alone, of a model that there is; the stem's statistics stay, too.
    lora: LoraSettings | None = None
    #: Keep the statistics of the stem's BatchNorm as they are.
    freeze_batch_norm: bool = False

    steps: PositiveInt
    #: Rows of the dataset per process and pass; a row may give several examples.
    batch_size: PositiveInt = 8
    #: Passes whose gradients make one step.
    accumulate: PositiveInt = 1
    #: Examples of about one length that are computed at once; None: all of a batch.
    group_size: PositiveInt | None = None
    seed: int = 1
    #: Decay of the weights' moving average, which is then what is evaluated and stored; None: no average.
    ema: float | None = Field(default=None, gt=0, lt=1)
    autocast: Literal["float16", "bfloat16"] | None = None
    #: Recompute activations in the backward pass to save memory.
    checkpoint_activations: bool = False
    device: str = "cpu"
    workers: int = Field(default=1, ge=0)
    #: Shard parameters, gradients and optimizer state over the processes (FSDP2) instead of copying them (DDP).
    shard: bool = False
    save_every: PositiveInt = 500
    evaluate_every: PositiveInt | None = None
    log_every: PositiveInt = 10

    @model_validator(mode="after")
    def _one_beginning(self) -> TrainingSettings:
        if (self.model is None) == (self.new_model is None):
            raise ValueError("one of model and new_model is needed")
        return self

    @model_validator(mode="after")
    def _captions_for_scores(self) -> TrainingSettings:
        """Keep targets that are several captions away from a loss that would learn to say them all."""
        scored = self.loss.self_critical is not None
        odd = [data.task for data in self.data if (data.task == REFERENCES) != scored]
        if odd:
            raise ValueError(f"the task {REFERENCES} and loss.self_critical go together, and with no other: {odd[0]}")
        if scored and self.shard:
            raise ValueError("self_critical searches with the whole model, which shard takes apart: leave shard out")
        return self

    @model_validator(mode="after")
    def _lora_alone(self) -> TrainingSettings:
        if self.lora is not None and self.new_model is not None:
            raise ValueError("lora adapts a model that there is: it goes with model, not with new_model")
        if self.lora is not None and self.freeze:
            raise ValueError("freeze says nothing beside lora, which keeps everything but the adapter as it is")
        return self

    @classmethod
    def from_toml(cls, path: Path) -> TrainingSettings:
        """Read a TOML file.

        Raises:
            OFAError: it cannot be read, or a setting is missing, wrong or unknown.
        """
        content = read_toml(path)
        try:
            return cls.model_validate(content).beside(path.parent)
        except ValidationError as error:
            raise OFAError(f"{path}: {first_problem(error, show_input=False)}") from None

    def beside(self, directory: Path) -> TrainingSettings:
        """The same with relative paths taken as relative to ``directory``; names of models stay what they are."""

        def placed(value: Any) -> Any:
            if isinstance(value, Path):
                return directory / value
            if isinstance(value, BaseModel):
                return value.model_copy(update={name: placed(part) for name, part in value})
            return tuple(map(placed, value)) if isinstance(value, tuple) else value

        there: TrainingSettings = placed(self)
        if self.model is not None and there.model is not None and not there.model.exists() and is_name(str(self.model)):
            return there.model_copy(update={"model": self.model})
        return there

    def fingerprint(self) -> str:
        """Settings that must stay when a run is resumed, as JSON: all but where and how often things are written."""
        free = ("out", "device", "workers", "save_every", "log_every", "evaluate_every", "evaluation")
        exclude: dict[str, Any] = dict.fromkeys(free, True)
        exclude |= {"optimizer": {"max_skipped"}, "data": {"__all__": {"allow_outside"}}}
        told = self.model_dump(mode="json", exclude=exclude)
        if self.lora is None:  # as in runs that began before there was such a setting
            del told["lora"]
        if self.loss.self_critical is None:
            del told["loss"]["self_critical"]
        for table in told["data"]:
            for name, info in ReadSettings.model_fields.items():
                if table[name] == info.default:  # as in runs that began before there was such a setting
                    del table[name]
        return json.dumps(told, sort_keys=True)
