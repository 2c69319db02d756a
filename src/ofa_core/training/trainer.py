"""The training loop: one page, everything it does in its order."""

from __future__ import annotations

import contextlib
import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from ..checkpoint.model_dir import PROVENANCE_FILE
from ..errors import OFAError
from ..model.ofa import OFAModel
from ..text import Tokenizer
from ..utils.distributed import Process
from ..utils.heap import keep_freed_memory
from ..utils.printable import printable
from ..utils.progress import progress
from ..utils.scratch import remove_leftovers, sole_writer
from ..utils.stopping import Stopped, check_stop, stop_at_safe_points, stop_requested
from .average import WeightAverage
from .batches import Batches
from .checkpointing import checkpoint_activations
from .collate import Batch
from .evaluation import Evaluation
from .fast_step import fast_step
from .held_out import HELD_OUT_LOSS
from .log import Log
from .losses import LossModule
from .optim import make_optimizer, make_schedule, scale_and_clip
from .parallel import Parallel
from .recipe import ORIGINAL
from .self_critical import SelfCriticalLoss
from .settings import TrainingSettings, setting_defaults
from .state import STATE_FILE, full_tensor, optimizer_tensors, read_state, restore_optimizer, save_state
from .stored import BEST, LAST, store_model, stored_names
from .trackers import make_trackers

#: An evaluation of a model at a step: names of scores and their values; the first decides which is best.
Evaluate = Callable[[OFAModel, int], dict[str, float]]


class Trainer:
    """A run of :class:`TrainingSettings` on a model: trains, logs, evaluates, saves, and goes on where it stopped."""

    def __init__(
        self,
        settings: TrainingSettings,
        model: OFAModel,
        tokenizer: Tokenizer,
        batches: Batches,
        loss: LossModule | SelfCriticalLoss,
        *,
        evaluate: Evaluate | None = None,
        process: Process | None = None,
        steps_per_epoch: int | None = None,
    ) -> None:
        self.settings = settings
        self.model = model
        self.tokenizer = tokenizer
        self.batches = batches
        self.evaluate = evaluate
        self.process = process or Process()
        self.device = torch.device(self.process.device(settings.device))
        torch.manual_seed(settings.seed + self.process.rank)  # other dropout on every process
        self.parallel = Parallel(self.process, settings.shard)
        self.measure = loss.measure
        if settings.channels_last and not settings.shard:  # which takes plain tensors only
            model.encoder.image_stem.to(memory_format=torch.channels_last)
        self.loss = self.parallel.wrap(loss.to(self.device))
        self.optimizer = make_optimizer(model, settings.optimizer)
        self.schedule = make_schedule(self.optimizer, settings.optimizer, settings.total_steps, steps_per_epoch)
        self.average = _average(model, settings)
        if settings.checkpoint_activations:
            checkpoint_activations(model)  # behind the average, a copy of which must not share them
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=settings.autocast == "float16")
        self.step = 0
        self.skipped = 0  # steps in a row whose gradient was not finite
        self.left_out = 0  # rows that could not be used, whose places others took
        self._told: set[str] = set()
        self._stopping = False  # a signal has reached one of the processes
        self._evaluated = True  # what was due behind the present step
        #: Scores of the latest evaluation of this process, and the step behind which it was.
        self._scores: tuple[int, Mapping[str, float]] = (0, {})
        self.best = float("-inf")  # of the first score, or of its negative where lower is better
        self.best_score: tuple[str, int] | None = None  # its name, and the step that had it
        self.waited = 0  # evaluations since then
        self.log = Log(settings.out, self.process.is_rank0, make_trackers(settings))

    def run(self) -> None:
        """Train from where the run stands to its last step.

        A signal (:mod:`~ofa_core.utils.stopping`) ends it behind the present step, with the state on the disk.
        """
        alone = sole_writer(self.settings.out) if self.process.is_rank0 else contextlib.nullcontext()
        heap = keep_freed_memory() if self.device.type == "cpu" else contextlib.nullcontext()
        with alone, stop_at_safe_points(), heap:
            try:
                self._resume()
                self._begin_cache()
                self._train()
            finally:
                self.log.close()

    def _begin_cache(self) -> None:
        """Show the stem to the cache of features: it has the weights of the whole run now."""
        if self.batches.cache is not None:
            way = (self.device.type, self.settings.autocast, self.settings.channels_last)
            self.batches.cache.begin(self.model, str(way))

    def _train(self) -> None:
        settings = self.settings
        micro_batches = self._micro_batches()
        with progress(settings.total_steps, self.step, "train", unit=" steps", shown=self.process.is_rank0) as bar:
            while not self.ended:
                started = time.perf_counter()
                loss, measured, norm = self._learn([next(micro_batches) for _ in range(settings.accumulate)])
                self.step += 1
                bar.update()
                if self._due(settings.log_every):
                    lr = float(self.schedule.get_last_lr()[0])
                    seconds = time.perf_counter() - started
                    row = {"loss": loss, self.measure: measured, "norm": norm, "lr": lr, "seconds": seconds}
                    bar.set_postfix_str(f"loss {loss:.3f}, {self.measure} {measured:.3f}", refresh=False)
                    left_out = {"left_out": self.left_out} if self.left_out else {}
                    self.log.write(self.step, row | left_out)
                self._end_step()

    def _end_step(self) -> None:
        """Do what is due behind a step: an evaluation, then what is saved.

        Raises:
            Stopped: a signal asks for it; the state tells whether the evaluation is still to be done.
        """
        self._evaluated = True
        if self.evaluate is not None and self._due(self.settings.evaluate_every):
            self._evaluated = not self._stopping and self._evaluate(self.evaluate)
        if self._stopping or self.ended or self._due(self.settings.save_every):
            self._save()
        if self._stopping:
            check_stop()
            raise Stopped(signal.SIGTERM)  # it was another process that the signal has reached

    @property
    def ended(self) -> bool:
        """True behind the last step, and where no evaluation was better for as long as ``patience`` says."""
        patience = self.settings.patience
        return self.step >= self.settings.total_steps or (patience is not None and self.waited >= patience)

    @property
    def headline(self) -> tuple[str, float, int] | None:
        """The best value of the score that decides, its name first, and the step that had it; None without scores."""
        if self.best_score is None:
            return None
        name, step = self.best_score
        return name, self.best * _sign(name), step

    def _due(self, every: int | None) -> bool:
        """Tell whether it is time for what is done ``every`` so many steps and at the end; None: at the end alone."""
        return self.step == self.settings.total_steps or (every is not None and self.step % every == 0)

    def _learn(self, micro_batches: list[Batch]) -> tuple[float, float, float]:
        """One step: loss per target token and what is measured, over all processes, and the norm of the gradient."""
        self.model.train()
        if self.settings.freeze_batch_norm or self.settings.lora is not None:  # an adapter holds no statistics
            _freeze_batch_norm(self.model)
        # loss, what it is divided by, target tokens, right ones, loss without smoothing, rows left out, processes that
        # a signal has reached
        totals = torch.zeros(7, dtype=torch.float64, device=self.device)
        for number, batch in enumerate(micro_batches):
            last = number == len(micro_batches) - 1
            with self.parallel.gradient_sync(self.loss, last), self._faster():
                with self._autocast():
                    loss, counts = self.loss(self._seen(batch.to(self.device)), self.step)
                self.scaler.scale(loss).backward()
            totals[:5] += torch.cat([loss.detach()[None].double(), counts])
            totals[5] += len(batch.failures)
            self._tell(batch.failures)
        totals[6] = stop_requested()
        totals = self.parallel.sum_over_processes(totals)
        self.left_out += int(totals[5])
        self._stopping = bool(totals[6] > 0)
        self.scaler.unscale_(self.optimizer)
        value = float(totals[0] / totals[1].clamp(min=1))
        if not math.isfinite(value) and not self.scaler.is_enabled():
            raise OFAError(f"the loss of step {self.step + 1} is {value}; a smaller lr or another autocast may help")
        # The gradient of the sum of losses, as an average over processes, becomes that of the mean over tokens.
        norm = self._update(self.process.world_size / max(1.0, float(totals[1])))
        return value, float(totals[3] / totals[2].clamp(min=1)), norm

    def _seen(self, batch: Batch) -> Batch:
        """``batch`` with the features of its pictures, where there is a cache of them."""
        cache = self.batches.cache
        if cache is None:
            return batch
        pairs = zip(batch.pixels, batch.known, strict=True)
        features = tuple(cache.complete(pixels, known, self.model) for pixels, known in pairs)
        return replace(batch, pixels=(), known=(), features=features)

    def _tell(self, failures: Iterable[str]) -> None:
        """Say once of each row that is left out why."""
        for failure in failures:
            if failure not in self._told:
                self._told.add(failure)
                tqdm.write(printable(f"skipped: {failure}"), file=sys.stderr)

    def _update(self, factor: float) -> float:
        """Move the weights by ``factor`` times the gradients there are, unless one of them is not finite.

        Returns:
            The norm of these gradients before clipping.
        """
        length = scale_and_clip(self.model.parameters(), factor, self.settings.optimizer.clip_norm)
        if math.isfinite(length):
            self.skipped = 0
            self.scaler.step(self.optimizer)
            if self.average is not None:
                self.average.update(self.model)
        else:
            self._skip()
        self.scaler.update()  # which makes the scale smaller where gradients overflowed
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        return length

    def _skip(self) -> None:
        """Count a step whose gradient is not finite; a scale that is still on its way down costs steps by design."""
        self.skipped += not self.scaler.is_enabled() or self.scaler.get_scale() <= 1
        if self.skipped < self.settings.optimizer.max_skipped:
            return
        gradients = {name: p.grad for name, p in self.model.named_parameters() if p.grad is not None}
        first = next((name for name, g in gradients.items() if not full_tensor(g).isfinite().all()), "none by itself")
        raise OFAError(
            f"the gradient was not finite in {self.skipped} steps in a row, up to step {self.step + 1}; the first such "
            f"parameter is {first}. No weight was moved by it; a smaller lr or another autocast may help"
        )

    def _micro_batches(self) -> Iterator[Batch]:
        """The batches of this process from the present step on, prepared by workers ahead of time."""
        settings = self.settings
        remaining = range(self.step * settings.accumulate, settings.total_steps * settings.accumulate)
        loader = DataLoader(
            self.batches,
            batch_size=None,
            sampler=remaining,
            num_workers=settings.workers,
            prefetch_factor=4 if settings.workers else None,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # of its own, so that making it changes nothing
        )
        return iter(loader)

    def _faster(self) -> contextlib.AbstractContextManager[None]:
        """Equal gradients in less time; a model in parts is computed as it is."""
        return contextlib.nullcontext() if self.settings.shard else fast_step(self.model)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.settings.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.settings.autocast))

    @property
    def result(self) -> OFAModel:
        """The model to use: the moving average where there is one."""
        return self.model if self.average is None else self.average.module

    def _evaluate(self, evaluate: Evaluate) -> bool:
        """Evaluate the model; False where a signal came in between, and it is to be done again."""
        try:
            scores = evaluate(self.result.eval(), self.step)
        except Stopped:
            if self.process.world_size > 1:  # the others are at another place, and no state can be put together
                raise
            self._stopping = True
            return False
        self.log.write(self.step, scores)
        if isinstance(evaluate, Evaluation):
            for name, pictures in evaluate.pictures.items():
                self.log.show(self.step, name, pictures)
        self._scores = (self.step, scores)
        if scores:
            name, score = next(iter(scores.items()))
            self.waited += 1
            if score * _sign(name) > self.best:
                self.best, self.best_score, self.waited = score * _sign(name), (name, self.step), 0
                self._write_model(BEST)
        return True

    def _write_model(self, name: str) -> None:
        """Store the model as a directory that everything else loads."""
        state = {key: full_tensor(tensor).cpu() for key, tensor in self.result.state_dict().items()}
        if self.process.is_rank0:
            store_model(name, state, self.model.config, self.tokenizer, self.settings, self.step, self._scores)

    def _save(self) -> None:
        """Write the state of the run, the plot and the model."""
        groups = {
            "model": {name: full_tensor(tensor) for name, tensor in self.model.state_dict().items()},
            "optimizer": optimizer_tensors(self.model, self.optimizer),
            "random": self.parallel.random_states(self.device),
        }
        if self.average is not None:
            groups["average"] = {name: full_tensor(tensor) for name, tensor in self.average.state_dict().items()}
        facts = {
            "step": self.step,
            "best": self.best,
            "best_score": self.best_score,
            "waited": self.waited,
            "skipped": self.skipped,
            "left_out": self.left_out,
            "evaluated": self._evaluated,
            "scaler": self.scaler.state_dict(),
            "settings": self.settings.fingerprint(),
        }
        if self.process.is_rank0:
            self.log.flush()  # before the state, behind which nothing is told again
            save_state(self.settings.out / STATE_FILE, groups, facts)
            self.log.plot()
        self._write_model(LAST)

    def _resume(self) -> None:
        """Take up the state of an earlier run of the same settings, if there is one."""
        path = self.settings.out / STATE_FILE
        remains = [path, self.log.path, *(self.settings.out.resolve() / name for name in stored_names(self.settings))]
        for target in remains if self.process.is_rank0 else ():
            remove_leftovers(target)
        if not path.is_file():
            self._cut(0, evaluated=0)
            return
        groups, facts = read_state(path)
        if facts["settings"] != (now := self.settings.fingerprint()):
            what = _difference(json.loads(facts["settings"]), json.loads(now))
            raise OFAError(f"{path.parent} holds a run with other settings ({what}); choose another out, or remove it")
        self.parallel.load(self.model, groups["model"])
        if self.average is not None:
            self.average.load_state_dict(groups["average"])
        restore_optimizer(self.model, self.optimizer, groups.get("optimizer", {}))
        self.step, self.best, self.skipped = facts["step"], facts["best"], facts.get("skipped", 0)
        best_score = facts.get("best_score")
        self.best_score = None if best_score is None else (best_score[0], best_score[1])
        self.waited = facts.get("waited", 0)
        self.schedule.last_epoch = self.step
        for group, base in zip(self.optimizer.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * self.schedule.lr_lambdas[0](self.step)
        self.schedule._last_lr = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler.load_state_dict(facts["scaler"])
        self.parallel.restore_random(groups["random"], self.device)
        self.left_out = facts.get("left_out", 0)
        evaluated = facts.get("evaluated", True)
        self._cut(self.step, evaluated=self.step - (not evaluated))
        if self.process.broadcast_from_rank0(self._stored_step) != str(self.step):
            self._write_model(LAST)  # the run was killed between the state and the model
        if not evaluated:
            self._end_step()

    def _cut(self, step: int, evaluated: int) -> None:
        """Forget what was logged behind ``step`` and what behind ``evaluated``: it will be done again."""
        self.log.cut(step)
        self.log.plot()
        if isinstance(self.evaluate, Evaluation):
            self.evaluate.cut(evaluated)

    def _stored_step(self) -> str:
        """The step of the model :data:`LAST`; empty where it is not there."""
        try:
            provenance = json.loads((self.settings.out / LAST / PROVENANCE_FILE).read_text())
        except (OSError, ValueError):
            return ""
        return str(provenance.get("trained_for")) if isinstance(provenance, dict) else ""


def _average(model: OFAModel, settings: TrainingSettings) -> WeightAverage | None:
    """The moving average of a model's weights and statistics."""
    if settings.ema is None:
        return None
    if settings.shard:
        raise OFAError("a moving average (ema) cannot be kept of a model that is sharded (shard)")
    return WeightAverage(model, settings.ema, start=settings.ema_start, embedding=settings.ema_embedding)


def _sign(score: str) -> int:
    """1 for a score that is better where it is higher, -1 for a loss."""
    return -1 if score == HELD_OUT_LOSS else 1


def _freeze_batch_norm(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _difference(old: dict[str, Any], new: dict[str, Any]) -> str:
    """The first setting that differs between two runs; what one does not tell has its default."""
    before, now = _flat(old), _flat(new)
    defaults = setting_defaults()
    for name in [*now, *(name for name in before if name not in now)]:
        was, is_now = (told.get(name, defaults.get(name)) for told in (before, now))
        if was != is_now:
            other = ', as recipe = "modern" has it' if name in ORIGINAL and was == defaults[name] else ""
            return f"{name} was {was!r}{other}, is {is_now!r}"
    return "in another form"


def _flat(told: dict[str, Any]) -> dict[str, Any]:
    """Settings with those of the tables ``loss`` and ``optimizer`` under dotted names."""
    tables = {name: told[name] for name in ("loss", "optimizer")}
    rest = {name: value for name, value in told.items() if name not in tables}
    return rest | {f"{table}.{name}": value for table, part in tables.items() for name, value in part.items()}
