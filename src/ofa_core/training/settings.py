"""Settings of a training run: everything in one TOML file, checked before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, model_validator

from ..data.read_options import BoxUnit, Language, ReadOptions
from ..errors import OFAError, first_problem
from ..utils.toml_files import read_toml
from .recipe import ADDED, ORIGINAL, ORIGINAL_AUTOCAST, Recipe


class _Settings(BaseModel):
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


class OptimizerSettings(_Settings):
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


class CacheSettings(_Settings):
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

    #: ``ofa`` gives the original's numbers, ``modern`` those of torch's AdamW: a table of defaults, above which stands
    #: every setting that is given. None: ``ofa`` for a ``model``, ``modern`` for a ``new_model``.
    recipe: Recipe | None = None

    #: The model to begin with: a directory, anything that ``convert-ckpt`` reads, or a name that
    #: :func:`ofa_core.load` takes; or ``new_model``.
    model: Path | None = None
    #: A model that begins with random weights, in place of ``model``.
    new_model: NewModelSettings | None = None
    #: The run's directory: ``log.jsonl``, ``loss.svg``, ``state.safetensors``, the models ``last`` and ``best``; with
    #: ``lora`` their adapters are ``last-adapter`` and ``best-adapter``.
    out: Path
    #: A task whose fine-tuning settings the model takes on (picture side, cuts, decoder prompt): a name of
    #: :data:`ofa_core.heads.tasks.TASKS`; None keeps those that it has.
    task: str | None = None
    #: Sources that are learned from, mixed by weight.
    data: tuple[DataSettings, ...] = Field(min_length=1)
    #: Benchmarks that are run while training; the headline score of the first decides which model is ``best``.
    evaluation: tuple[EvaluationSettings, ...] = ()
    #: Rows that are not learned from, whose mean loss is told with every evaluation; without a benchmark the lowest
    #: decides which model is ``best``.
    held_out: tuple[DataSettings, ...] = ()
    #: The loss that is made smaller.
    loss: LossSettings = LossSettings()
    #: The optimizer and the schedule of its learning rate.
    optimizer: OptimizerSettings = OptimizerSettings()
    #: Fields of the model's configuration to change, such as ``dropout``, ``encoder_drop_path`` or ``adapter_dim``.
    config: dict[str, Any] = Field(default_factory=dict)
    #: Parts that are kept as they are. ``all_but_bitfit`` trains the biases that the original's BitFit trains;
    #: ``as_original`` freezes what the original does by itself: the token embedding of a model with adapters, and all
    #: but prompts and adapters of one with prompts.
    freeze: tuple[Part, ...] = ()
    #: Train a low-rank adapter alone, of a model that there is; the stem's statistics stay, too.
    lora: LoraSettings | None = None
    #: Keep the statistics of the stem's BatchNorm as they are.
    freeze_batch_norm: bool = False
    #: Keep the gains and biases of the stem's BatchNorm as they are too, where its statistics are kept.
    freeze_batch_norm_affine: bool = False

    #: Steps of the whole run; or ``epochs``.
    steps: PositiveInt | None = None
    #: Rounds through all rows of all sources that have files, in place of ``steps``.
    epochs: PositiveInt | None = None
    #: Rows of the dataset per process and pass; a row may give several examples.
    batch_size: PositiveInt = 8
    #: Passes whose gradients make one step.
    accumulate: PositiveInt = 1
    #: Examples of about one length that are computed at once; None: all of a batch.
    group_size: PositiveInt | None = None
    #: The beginning of all that is drawn: the order of rows, dropout, new weights.
    seed: int = 1
    #: Decay of the weights' moving average, which is then what is evaluated and stored; None: no average.
    ema: float | None = Field(default=None, gt=0, lt=1)
    #: The first step behind which weights are averaged; behind those before it the average is a copy. 0 averages with
    #: the weights that the run began with.
    ema_start: int = Field(default=2, ge=0)
    #: Times that the token embedding is averaged in a step; 3 in the original, which knows it by three names.
    ema_embedding: Literal[1, 3] = 1
    #: Compute products in this type; None: in float32.
    autocast: Literal["float16", "bfloat16"] | None = None
    #: Keep on the disk what the image stem makes of each picture, to read it in later epochs: a table, ``{}`` or with
    #: settings of ``[cache_features]``. It needs a stem that stays as it is, and pictures that do.
    cache_features: CacheSettings | None = None
    #: Recompute activations in the backward pass to save memory.
    checkpoint_activations: bool = False
    #: Keep the stem's weights in the order of memory in which convolutions are fastest. Its sums round in another order
    #: than the original's then, and in float32 a ReLU at its edge may fall to the other side.
    channels_last: bool = True
    #: The device to train on, such as ``cpu`` or ``cuda``.
    device: str = "cpu"
    #: Processes that prepare batches.
    workers: int = Field(default=1, ge=0)
    #: Shard parameters, gradients and optimizer state over the processes (FSDP2) instead of copying them (DDP).
    shard: bool = False
    #: Steps between two saves.
    save_every: PositiveInt = 500
    #: Steps between two evaluations; None: at the end alone.
    evaluate_every: PositiveInt | None = None
    #: Evaluations in a row without a better score, behind which the run ends; None: it goes to its last step.
    patience: PositiveInt | None = None
    #: Steps between two lines of the log.
    log_every: PositiveInt = 10
    #: Write what is logged, and a few samples of each evaluation with their boxes, for TensorBoard (``tensorboard`` in
    #: ``out``; the extra ``train``).
    tensorboard: bool = False
    #: Tell the same to this project of Weights & Biases, where its package ``wandb`` is installed.
    wandb: str | None = Field(default=None, min_length=1)

    @model_validator(mode="after")
    def _one_beginning(self) -> TrainingSettings:
        if (self.model is None) == (self.new_model is None):
            raise ValueError("one of model and new_model is needed")
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("one of steps and epochs is needed")
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
    def _patches_of_what_is_learned(self) -> TrainingSettings:
        """Keep draws of patches away from where they would have no effect, or another than is meant."""
        if any(data.sample_patch_num is not None for data in self.held_out):
            raise ValueError("sample_patch_num is for data that is learned from: held_out shows whole pictures")
        if self.loss.self_critical is not None and any(data.sample_patch_num is not None for data in self.data):
            raise ValueError("sample_patch_num does not go with self_critical, which searches whole pictures")
        return self

    @model_validator(mode="after")
    def _lora_alone(self) -> TrainingSettings:
        if self.lora is not None and self.new_model is not None:
            raise ValueError("lora adapts a model that there is: it goes with model, not with new_model")
        if self.lora is not None and self.freeze:
            raise ValueError("freeze says nothing beside lora, which keeps everything but the adapter as it is")
        return self

    @model_validator(mode="after")
    def _fill_in_recipe(self) -> TrainingSettings:
        """Give what is not set the values of the recipe."""
        if self.recipe is None:
            self._set("recipe", "ofa" if self.new_model is None else "modern")
        if self.recipe == "ofa":
            for path, value in (ORIGINAL_AUTOCAST if self.autocast else ORIGINAL).items():
                if path == "freeze" and self.lora is not None:
                    continue
                table, _, name = path.rpartition(".")
                part = getattr(self, table) if table else self
                if name not in part.model_fields_set:
                    self._set(*((table, part.model_copy(update={name: value})) if table else (name, value)))
        return self

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)  # how what is frozen completes itself

    @property
    def tells_trackers(self) -> bool:
        """True if the run is shown outside of its directory's own files."""
        return self.tensorboard or self.wandb is not None

    @property
    def total_steps(self) -> int:
        """The number of steps.

        Raises:
            OFAError: the run is told in epochs, and its data have not been read yet.
        """
        if self.steps is None:
            raise OFAError("a run of epochs has a number of steps only when its data are read")
        return self.steps

    def with_steps(self, per_epoch: int) -> TrainingSettings:
        """The same with the number of steps that ``epochs`` of ``per_epoch`` steps have."""
        return self if self.epochs is None else self.model_copy(update={"steps": self.epochs * per_epoch})

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
        from ..checkpoint.names import is_name  # behind which is torch, which help on settings does without

        if self.model is not None and there.model is not None and not there.model.exists() and is_name(str(self.model)):
            return there.model_copy(update={"model": self.model})
        return there

    def fingerprint(self) -> str:
        """Settings that must stay when a run is resumed, as JSON: all but where and how often things are written."""
        free = ("out", "device", "workers", "save_every", "log_every", "evaluate_every", "evaluation", "patience")
        exclude: dict[str, Any] = dict.fromkeys((*free, "held_out", "tensorboard", "wandb", "cache_features"), True)
        exclude |= {"optimizer": {"max_skipped"}, "data": {"__all__": {"allow_outside"}}}
        exclude["recipe"] = True  # what it sets tells
        told = self.model_dump(mode="json", exclude=exclude)
        defaults = setting_defaults()
        for path in ADDED:
            table, _, name = path.rpartition(".")
            part = told[table] if table else told
            if part[name] == defaults[path]:
                del part[name]
        for table in told["data"]:
            for name in (*ReadSettings.model_fields, "sample_patch_num"):
                # as in runs that began before there was such a setting
                if table[name] == DataSettings.model_fields[name].default:
                    del table[name]
        return json.dumps(told, sort_keys=True)


def setting_defaults() -> dict[str, Any]:
    """The defaults of all settings of a run and of its tables ``loss`` and ``optimizer``, as JSON has them."""
    found: dict[str, Any] = {}
    for prefix, model in (("", TrainingSettings), ("loss.", LossSettings), ("optimizer.", OptimizerSettings)):
        for name, info in model.model_fields.items():
            found[prefix + name] = json.loads(json.dumps(info.get_default(), default=str))
    return found
