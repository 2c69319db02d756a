"""From settings to a trained model: what ``ofa-core train`` does."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Sequence

import torch
from tqdm import tqdm

from ..api import model_directory
from ..checkpoint.model_dir import empty_model, load_model, load_tokenizer
from ..config import merged
from ..errors import OFAError
from ..generation.trie import Trie
from ..heads.pipeline import Pipeline
from ..heads.tasks import fine_tuned_settings
from ..inference import onednn
from ..model.ofa import OFAModel
from ..model.position_bias import PATCH_SIZE
from ..text import Tokenizer
from ..utils.distributed import Process, process_group
from ..utils.printable import printable
from ..vision.transform import ImageTransform
from .batches import Batches, Source
from .checks import check_cached, check_files
from .evaluation import Evaluation
from .feature_cache import FeatureCache, room_text
from .held_out import HeldOutLoss
from .init import make_config, make_model
from .lora import add_lora, remove_lora
from .losses import LossModule
from .optim import freeze
from .self_critical import CaptionReward, SelfCriticalLoss
from .setting_tables import DataSettings
from .settings import TrainingSettings
from .sources import FileSource, answers_in, learned_tasks, make_source
from .trackers import check_trackers
from .trainer import Trainer


def make_trainer(settings: TrainingSettings, process: Process | None = None) -> Trainer:
    """Everything a run needs, ready to :meth:`~Trainer.run`; ``process`` is this one among several."""
    process = process or Process()
    check_trackers(settings)
    check_files(settings)
    _warn_of_slow_autocast(settings, process)
    torch.manual_seed(settings.seed)  # the same new weights on every process
    model, tokenizer = _begin(settings)
    freeze(model, settings)
    if settings.lora is not None:
        add_lora(model, settings.lora)
    task = model.config.task
    transform = ImageTransform(task.image_size, task.imagenet_normalization)
    # Workers prepare batches with this; they need no weights.
    pipeline = Pipeline(empty_model(model.config), tokenizer, transform)
    cache = _feature_cache(settings, model, process)
    sources = [_source(data, pipeline, settings.seed) for data in settings.data]
    per_epoch = steps_per_epoch(settings, sources, process.world_size)
    settings = settings if per_epoch is None else settings.with_steps(per_epoch)
    if cache is not None and process.is_rank0:
        tqdm.write(printable(_room(cache, sources)), file=sys.stderr)
    batches = Batches(
        sources,
        [data.weight for data in settings.data],
        tokenizer,
        transform,
        batch_size=settings.batch_size,
        group_size=settings.group_size,
        patch_counts=[data.sample_patch_num for data in settings.data],
        cache=cache,
        rank=process.rank,
        world=process.world_size,
    )
    loss = _loss(settings, model, tokenizer, batches)
    answers = loss.answers if isinstance(loss, LossModule) else None
    held_out = _held_out(settings, pipeline, answers, process)
    evaluate = None
    if settings.evaluation or held_out is not None:
        evaluate = Evaluation(settings.evaluation, tokenizer, settings.out, process, held_out, settings.tells_trackers)
    return Trainer(
        settings, model, tokenizer, batches, loss, evaluate=evaluate, process=process, steps_per_epoch=per_epoch
    )


def _warn_of_slow_autocast(settings: TrainingSettings, process: Process) -> None:
    """Say where autocast makes steps slower: on a CPU that computes in float32 alone."""
    on_cpu = torch.device(process.device(settings.device)).type == "cpu"
    if settings.autocast and on_cpu and not onednn.computes_bfloat16() and process.is_rank0:
        warnings.warn(
            f'this CPU has no instructions for bfloat16: steps with autocast = "{settings.autocast}" take several '
            "times as long as without autocast",
            stacklevel=2,
        )


def _source(data: DataSettings, pipeline: Pipeline, seed: int) -> Source:
    """The source of a table.

    Raises:
        OFAError: its settings or rows are wrong, or its pictures have fewer patches than are to be drawn of them.
    """
    source = make_source(data, pipeline, seed)
    own = source.pipeline if isinstance(source, FileSource) else pipeline
    if data.sample_patch_num is not None and data.sample_patch_num > _patches(own):
        side = own.transform.size
        raise OFAError(
            f"sample_patch_num is {data.sample_patch_num}, and pictures of {side} × {side} pixels have {_patches(own)} "
            "patches"
        )
    return source


def _feature_cache(settings: TrainingSettings, model: OFAModel, process: Process) -> FeatureCache | None:
    """The cache of what the stem makes of pictures, where the settings ask for one.

    Raises:
        OFAError: the stem or the pictures do not stay as they are.
    """
    told = settings.cache_features
    if told is None:
        return None
    check_cached(settings, model)
    narrow = "float16" if told.dtype == "float16" else settings.autocast
    return FeatureCache(
        told.directory or settings.out / "features",
        narrow=None if narrow is None else getattr(torch, narrow),
        exact=told.dtype == "exact",
        max_bytes=None if told.max_gib is None else int(told.max_gib * 2**30),
        processes=process.world_size,
    )


def _room(cache: FeatureCache, sources: Sequence[Source]) -> str:
    """Say what a run may keep of its sources' pictures, at most one a row, and the room that there is."""
    files = [source for source in sources if isinstance(source, FileSource)]
    pictures = [(len(source.rows), _patches(source.pipeline)) for source in files]
    there = next(place for place in (cache.directory, *cache.directory.resolve().parents) if place.is_dir())
    return room_text(cache, pictures, shutil.disk_usage(there).free)


def _patches(pipeline: Pipeline) -> int:
    """Patches of a picture as a pipeline takes it."""
    return (-(-pipeline.transform.size // PATCH_SIZE)) ** 2


def steps_per_epoch(settings: TrainingSettings, sources: Sequence[Source], world: int) -> int | None:
    """The steps in which as many rows are read as all files hold; None where there are none and nothing asks.

    Raises:
        OFAError: ``epochs`` or ``force_anneal`` is set, and no source has an end.
    """
    rows = sum(len(source.rows) for source in sources if isinstance(source, FileSource))
    if rows:
        return -(-rows // (settings.batch_size * settings.accumulate * world))
    for name, value in (("epochs", settings.epochs), ("optimizer.force_anneal", settings.optimizer.force_anneal)):
        if value is not None:
            raise OFAError(f"{name} needs data with files; what is drawn has no end, so steps says how long the run is")
    return None


def _loss(
    settings: TrainingSettings, model: OFAModel, tokenizer: Tokenizer, batches: Batches
) -> LossModule | SelfCriticalLoss:
    own = settings.loss.self_critical
    if own is None:
        return LossModule(model, tokenizer.vocabulary, settings.loss, _answers(settings, tokenizer))
    rows = [source.rows for source in batches.sources if isinstance(source, FileSource)]
    reward = CaptionReward(references for source in rows for references in source.references)
    return SelfCriticalLoss(model, tokenizer, own, reward)


def train(settings: TrainingSettings) -> OFAModel:
    """Train, or go on where an earlier run in the same ``out`` stopped; the result is the model to use."""
    return remove_lora(trained(settings).result)


def trained(settings: TrainingSettings) -> Trainer:
    """The trainer of a run, which stands behind its last step."""
    with process_group() as process:
        trainer = make_trainer(settings, process)
        trainer.run()
        return trainer


def _held_out(
    settings: TrainingSettings, pipeline: Pipeline, answers: Trie | None, process: Process
) -> HeldOutLoss | None:
    """The loss of the rows that are not learned from.

    Raises:
        OFAError: they are drawn, so that there are no rows.
    """
    sources = []
    for data in settings.held_out:
        source = make_source(data, pipeline, settings.seed)
        if not isinstance(source, FileSource):
            raise OFAError(f"held_out needs data with files, and {data.task!r} is drawn")
        sources.append(source)
    if not sources:
        return None
    return HeldOutLoss(
        sources,
        pipeline.tokenizer,
        pipeline.transform,
        settings.loss,
        answers,
        batch_size=settings.batch_size,
        process=process,
    )


def _begin(settings: TrainingSettings) -> tuple[OFAModel, Tokenizer]:
    """The model to start from, with the changes that the settings make to its configuration."""
    if settings.new_model is not None:
        model, tokenizer = make_model(settings.new_model, settings.config)
        _note_learned(model, settings)
        return model, tokenizer
    directory = model_directory(settings.model)  # type: ignore[arg-type]  # one of both is there
    model = load_model(directory, dtype=torch.float32)
    if settings.task is not None:
        task = fine_tuned_settings(settings.task, model.config.task)
        model.config = model.config.model_copy(update={"task": task})
    if settings.config:
        changed = OFAModel(make_config(merged(model.config.model_dump(), settings.config)))
        _take_over(changed, model)
        if settings.lora is not None and len(changed.state_dict()) > len(model.state_dict()):
            raise OFAError("with lora the rest of the model stays as it is: config can add no adapters and no prompts")
        model = changed
    _note_learned(model, settings)
    # with the configuration as it will be stored: what is trained can be loaded again
    return model.requires_grad_(True), load_tokenizer(directory, model.config)


def _note_learned(model: OFAModel, settings: TrainingSettings) -> None:
    """Add what the run teaches to what the model's settings say that it has learned."""
    learned = {*model.config.task.learned, *learned_tasks(settings)}
    task = model.config.task.model_copy(update={"learned": tuple(sorted(learned))})
    model.config = model.config.model_copy(update={"task": task})


def _take_over(changed: OFAModel, model: OFAModel) -> None:
    """Load the weights of ``model``; only adapters and prompts may be new."""
    outcome = changed.load_state_dict(model.state_dict(), strict=False)
    odd = [name for name in outcome.missing_keys if ".adapter." not in name and ".prompt." not in name]
    if odd or outcome.unexpected_keys:
        name = (odd + outcome.unexpected_keys)[0]
        raise OFAError(f"the changed configuration does not fit the model's weights: {name}")


def _answers(settings: TrainingSettings, tokenizer: Tokenizer) -> Trie | None:
    """The tree of allowed answers."""
    return None if settings.loss.answers is None else answers_in(settings.loss.answers, tokenizer)
