"""From settings to a trained model: what ``ofa-core train`` does."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from ..api import model_directory
from ..config import OFAConfig
from ..distributed import Process, joined
from ..errors import OFAError, first_problem
from ..generation.trie import Trie
from ..heads.pipeline import Pipeline
from ..model import OFAModel
from ..text import Tokenizer, small_vocabulary_dir
from ..vision.transform import ImageTransform
from ..weights import empty_model, load_model, load_tokenizer, read_safetensors
from .batches import Batches
from .evaluation import Evaluation
from .losses import LossModule
from .optimization import freeze
from .settings import NewModelSettings, TrainingSettings
from .sources import make_source
from .trainer import Trainer


def make_trainer(settings: TrainingSettings, process: Process | None = None) -> Trainer:
    """Everything a run needs, ready to :meth:`~Trainer.run`; ``process`` is this one among several."""
    process = process or Process()
    torch.manual_seed(settings.seed)  # the same new weights on every process
    model, tokenizer = _begin(settings)
    freeze(model, settings.freeze)
    task = model.config.task
    transform = ImageTransform(task.image_size, task.imagenet_normalization)
    # Workers prepare batches with this; they need no weights.
    pipeline = Pipeline(empty_model(model.config), tokenizer, transform)
    batches = Batches(
        [make_source(data, pipeline, settings.seed) for data in settings.data],
        [data.weight for data in settings.data],
        tokenizer,
        transform,
        batch_size=settings.batch_size,
        group_size=settings.group_size,
        rank=process.rank,
        world=process.count,
    )
    loss = LossModule(model, tokenizer.vocabulary, settings.loss, _answers(settings, tokenizer))
    benchmarks = settings.evaluation
    evaluate = Evaluation(benchmarks, tokenizer, settings.out, process) if benchmarks else None
    return Trainer(settings, model, tokenizer, batches, loss, evaluate=evaluate, process=process)


def train(settings: TrainingSettings) -> OFAModel:
    """Train, or go on where an earlier run in the same ``out`` stopped; the result is the model to use."""
    with joined() as process:
        trainer = make_trainer(settings, process)
        trainer.run()
        return trainer.result


def _begin(settings: TrainingSettings) -> tuple[OFAModel, Tokenizer]:
    """The model to start from, with the changes that the settings make to its configuration."""
    if settings.new_model is not None:
        return _new_model(settings.new_model, settings.config)
    directory = model_directory(settings.model)  # type: ignore[arg-type]  # one of both is there
    model = load_model(directory, dtype=torch.float32)
    tokenizer = load_tokenizer(directory, model.config)
    if settings.config:
        changed = OFAModel(_config({**model.config.model_dump(), **settings.config}))
        _take_over(changed, model)
        model = changed
    return model.requires_grad_(True), tokenizer


def _take_over(changed: OFAModel, model: OFAModel) -> None:
    """Load the weights of ``model``; only adapters and prompts may be new."""
    outcome = changed.load_state_dict(model.state_dict(), strict=False)
    odd = [name for name in outcome.missing_keys if ".adapter." not in name and ".prompt." not in name]
    if odd or outcome.unexpected_keys:
        name = (odd + outcome.unexpected_keys)[0]
        raise OFAError(f"the changed configuration does not fit the model's weights: {name}")


def _new_model(new: NewModelSettings, changes: dict[str, object]) -> tuple[OFAModel, Tokenizer]:
    directory = small_vocabulary_dir() if new.vocabulary == "small" else new.vocabulary
    fields = {**new.config, **changes}
    task = fields.get("task", {})
    tokenizer = Tokenizer.from_dir(
        directory, code_dict_size=task.get("code_dict_size", 8192), num_bins=task.get("num_bins", 1000)
    )
    model = OFAModel(_config({**fields, "vocab_size": len(tokenizer)}))
    model.initialize(new.init_std)
    if new.stem is not None:
        _load_stem(model, new.stem)
    if new.smooth_bins:
        smooth_bins(model, tokenizer)
    if new.smooth_positions is not None:
        smooth_positions(model, new.smooth_positions)
    return model, tokenizer


def _load_stem(model: OFAModel, path: Path) -> None:
    state = read_safetensors(path)
    try:
        model.encoder.image_stem.load_state_dict(state)
    except RuntimeError as error:
        raise OFAError(f"{path} is no stem of this model: {' '.join(str(error).split())[:200]}") from None


def _config(fields: dict[str, object]) -> OFAConfig:
    try:
        return OFAConfig.model_validate(fields)
    except ValidationError as error:
        raise OFAError(f"the model's configuration is wrong: {first_problem(error)}") from None


@torch.no_grad()
def smooth_bins(model: OFAModel, tokenizer: Tokenizer) -> None:
    """Embed the bins as mixtures of slow waves along the axis, as large as other embeddings are."""
    vocabulary = tokenizer.vocabulary
    vectors = _slow_waves(vocabulary.num_bins, model.config.embed_dim)
    weight = model.token_embedding.weight
    weight[vocabulary.bin_start : vocabulary.bin_end] = vectors * weight.std()


@torch.no_grad()
def smooth_positions(model: OFAModel, std: float) -> None:
    """Make one half of each patch's position vector say its row and the other its column, as mixtures of slow waves."""
    side, dim = model.config.image_bucket_size, model.config.embed_dim
    rows, columns = _slow_waves(side, dim // 2), _slow_waves(side, dim - dim // 2)
    grid = torch.cat([rows[:, None].expand(-1, side, -1), columns[None].expand(side, -1, -1)], dim=2)
    model.encoder.image_positions.weight[1:] = grid.flatten(0, 1) * std


def _slow_waves(count: int, dim: int, waves: int = 16) -> Tensor:
    """Vectors [count, dim] of variance 1 that change slowly from one to the next."""
    place = torch.linspace(0, math.pi, count)[:, None]
    number = torch.arange(1, waves + 1)
    basis = torch.cat([torch.cos(number * place) / number, torch.sin(number * place) / number], dim=1)
    vectors = basis @ torch.randn(2 * waves, dim)
    return vectors / vectors.std()


def _answers(settings: TrainingSettings, tokenizer: Tokenizer) -> Trie | None:
    """The tree of allowed answers."""
    path = settings.loss.answers
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise OFAError(f"{path} cannot be read: {error}") from None
    return Trie([tokenizer.encode(f" {line.strip()}") for line in lines if line.strip()])
