"""Settings of a training run: everything in one TOML file, checked before anything is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, PositiveInt, ValidationError, model_validator

from ..errors import OFAError, first_problem
from ..utils.toml_files import read_toml
from .recipe import ADDED, ORIGINAL, ORIGINAL_AUTOCAST, Recipe
from .setting_tables import (
    REFERENCES,
    CacheSettings,
    DataSettings,
    EvaluationSettings,
    LoraSettings,
    LossSettings,
    NewModelSettings,
    OptimizerSettings,
    Part,
    ReadSettings,
    Settings,
)


class TrainingSettings(Settings):
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
