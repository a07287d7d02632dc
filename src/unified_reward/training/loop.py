"""The training loop, flat: plan, batch, loss over global counts, clip, step; log, validate, save, stop, resume.

It knows no model and no data, only an Objective. The same numbers come out at any world size, and after any kill.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.clip import clip_grad_norm
from fsdp_utils.context import DistContext
from fsdp_utils.metrics import peak_memory_bytes
from fsdp_utils.reduce import SumAndCount, all_sum, reduce_metrics
from fsdp_utils.sharding import fsdp_modules, reshard
from fsdp_utils.signals import EXIT_CODE, StopSignal
from fsdp_utils.training_state import model_tensors, snapshot
from unified_reward import progress
from unified_reward.config import TrainLoopConfig
from unified_reward.config.stages import Selection
from unified_reward.errors import UserError
from unified_reward.training.objective import Batch, Costed, Objective
from unified_reward.training.optim import build_optimizers, schedule, set_learning_rate
from unified_reward.training.parallel import flat, parallelise
from unified_reward.training.sampler import ElasticSampler, share_out

Metrics = dict[str, float]
Log = Callable[[int, Metrics], None]
Validate = Callable[[int], Metrics]
LOG_EVERY = 10  # steps: one all-reduce of all metrics each


@dataclass
class TrainResult:
    """What training did. history, validations: (steps done, metrics) in order, from the first step on, also after a resume.

    best_step: the step whose weights the model now holds: the best on validation when asked for, else the last.
    """

    steps: int
    best_step: int
    history: list[tuple[int, Metrics]] = field(default_factory=list)
    validations: list[tuple[int, Metrics]] = field(default_factory=list)
    resumed_at: int = 0
    seconds: float = 0.0

    @property
    def last(self) -> Metrics:
        """The last logged training metrics; empty when no step was run."""
        return self.history[-1][1] if self.history else {}


def train(
    objective: Objective,
    *,
    dataset_size: int,
    config: TrainLoopConfig,
    dist: DistContext,
    seed: int = 0,
    checkpoints: Checkpointer | None = None,
    log: Log | None = None,
    validate: Validate | None = None,
    select_by: str = "",
) -> TrainResult:
    """Train `objective.root` in place, sharded as the config says where it is not yet; every rank calls it.

    checkpoints: saved to every `checkpoint_every` steps and at SIGTERM (then SystemExit 143), resumed from when it holds
    any. log: called on rank 0 every LOG_EVERY steps with global means. validate(steps done) -> metrics: called on every
    rank while the parameters are whole and no collective is under way, so ranks may do unlike work; rank 0's numbers
    count. select_by: the validation metric, larger is better, that `config.select` "best" goes by.
    Raises UserError for an empty dataset, a batch smaller than the ranks, a loss that stops being finite, and a selection
    without a validation to select by.
    """
    _check(dataset_size, config, dist, validate, select_by)
    units = objective.shard_units()
    parallelise(objective.root, units=units, layers=flat(units), config=config, dist=dist)
    optimizers = build_optimizers(objective.root, config)
    run = _Run(objective, config, dist, optimizers, checkpoints, select_by, seed, dataset_size)
    started = time.perf_counter()
    run.resume()
    objective.root.train()
    stop = StopSignal()
    try:
        with _prefetched(run) as batches:
            for batch in batches:
                run.step(batch)
                if run.due(LOG_EVERY):
                    run.log(log)
                if validate is not None and config.validate_every and run.due(config.validate_every):
                    run.validate(validate, log)
                if stop.agreed(dist):
                    run.save()
                    raise SystemExit(EXIT_CODE)
                if run.due(config.checkpoint_every):
                    run.save()
        run.keep_best()
    finally:
        objective.root.eval()
        stop.close()
        if checkpoints is not None:
            checkpoints.wait()
    run.result.seconds = time.perf_counter() - started
    return run.result


@dataclass
class _Best:
    step: int = -1
    value: float = -math.inf
    weights: dict[str, Tensor] | None = None  # only where no checkpointer keeps them


class _Run:
    """The state of one call of `train`."""

    def __init__(
        self,
        objective: Objective,
        config: TrainLoopConfig,
        dist: DistContext,
        optimizers: Sequence[Optimizer],
        checkpoints: Checkpointer | None,
        select_by: str,
        seed: int,
        dataset_size: int,
    ) -> None:
        self.objective, self.config, self.dist = objective, config, dist
        self.optimizers, self.checkpoints = optimizers, checkpoints
        self.select_by = select_by if config.select is Selection.BEST else ""
        self.seed = seed
        self.sampler = ElasticSampler(dataset_size, config.global_batch, seed=seed)
        self.parameters = [p for p in objective.root.parameters() if p.requires_grad]
        self.done = 0
        self.best = _Best()
        self.result = TrainResult(steps=config.steps, best_step=config.steps)
        self._sums: dict[str, SumAndCount] = {}
        self._since, self._logged, self._saved = time.perf_counter(), 0, -1

    @property
    def finished(self) -> bool:
        return self.done >= self.config.steps

    def due(self, every: int) -> bool:
        return self.finished or self.done % every == 0

    def batch(self, ids: Sequence[int], step: int) -> list[Batch]:
        """This rank's share of a step, as micro-batches of like length; as many on every rank."""
        objective = self.objective
        costs = [objective.cost(int(i)) if isinstance(objective, Costed) else 1.0 for i in ids]
        share = share_out(ids, costs, self.dist.world_size)[self.dist.rank]
        step_seed = int(np.random.SeedSequence([self.seed & 0xFFFFFFFFFFFFFFFF, step]).generate_state(1)[0])
        whole_share = -(-len(ids) // self.dist.world_size)
        parts = -(-whole_share // (self.config.micro_batch or whole_share))
        return [objective.batch(part.tolist(), seed=step_seed) for part in np.array_split(np.asarray(share), parts)]

    def step(self, batches: Sequence[Batch]) -> None:
        """One optimizer step: the micro-batches' gradients add up, each divided by the count of the whole global batch.

        Every backward reduces its gradients into shards: more communication than one reduction at the end, but no rank
        ever holds the gradients of the whole model.
        """
        count = all_sum(sum(self.objective.normaliser(batch) for batch in batches), self.dist)
        if not 0 < count < math.inf:
            raise UserError(field="dataset", value=f"without a target in step {self.done}", why="there is nothing to learn",
                            fix="Give the examples targets with a weight above 0.")  # fmt: skip
        rate = self.config.learning_rate * schedule(self.done, self.config)
        set_learning_rate(self.optimizers, rate)
        total: Tensor | float = 0.0
        for batch in batches:
            loss = self.objective.loss(batch)
            torch.autograd.backward(loss.total / count)
            total = total + loss.total.detach()
            self._count(loss.metrics)
        norm = clip_grad_norm(self.parameters, self.config.clip_norm)
        self._require_finite(norm, total)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.done += 1
        share = 1.0 / self.dist.world_size  # known on every rank: a mean over ranks leaves them as they are
        self._count({"grad_norm": (norm * share, share), "learning_rate": (rate * share, share)})
        progress.report(self.done, self.config.steps, "steps", self._note())

    def _count(self, metrics: Mapping[str, SumAndCount]) -> None:
        for name, (total, number) in metrics.items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (before[0] + total, before[1] + number)

    def log(self, log: Log | None) -> None:
        """Global means of the metrics since the last log."""
        steps, now = self.done - self._logged, time.perf_counter()
        if not steps:
            return
        metrics = reduce_metrics(self._sums, self.dist)
        metrics["step_seconds"] = (now - self._since) / steps
        metrics["samples_per_second"] = self.config.global_batch * steps / (now - self._since)
        metrics["peak_memory_bytes"] = float(peak_memory_bytes(self.dist.device))
        self._sums, self._since, self._logged = {}, now, self.done
        self.result.history.append((self.done, metrics))
        if log is not None and self.dist.is_main:
            log(self.done, metrics)

    def validate(self, validate: Validate, log: Log | None) -> None:
        paused = time.perf_counter()
        with whole(self.objective.root):
            values = validate(self.done)
        metrics: Metrics = self.dist.broadcast_object(values)
        self._since += time.perf_counter() - paused
        self.result.validations.append((self.done, metrics))
        if log is not None and self.dist.is_main:
            log(self.done, {f"validation/{name}": value for name, value in metrics.items()})
        if not self.select_by:
            return
        if self.select_by not in metrics:
            raise UserError(field="select", value=self.select_by, why=f"validation gave only {', '.join(metrics) or 'nothing'}",
                            fix="Select by one of these.")  # fmt: skip
        if metrics[self.select_by] > self.best.value:
            self.best = _Best(self.done, metrics[self.select_by])
            if self.checkpoints is None:
                self.best.weights = snapshot(model_tensors(self.objective.root))
            else:
                self.save()

    def save(self) -> None:
        if self.checkpoints is None or self._saved == self.done:
            return
        self._saved = self.done
        extra = {
            "sampler": self.sampler_state(),
            "best": [self.best.step, self.best.value if self.best.step >= 0 else None],
            "history": self.result.history,
            "validations": self.result.validations,
        }
        protect = [self.best.step] if self.best.step >= 0 else []
        self.checkpoints.save(self.done, self.objective.root, self.optimizers, extra, protect=protect)

    def sampler_state(self) -> dict[str, int]:
        """Of the steps done; the sampler itself may be ahead, by the batch under way."""
        sampler = ElasticSampler(self.sampler.size, self.sampler.global_batch, seed=self.seed)
        sampler.advance(self.done)
        return sampler.state_dict()

    def resume(self) -> None:
        restored = None if self.checkpoints is None else self.checkpoints.load(self.objective.root, self.optimizers)
        if restored is None:
            return
        self.done = self._logged = self._saved = self.result.resumed_at = restored.step
        extra: dict[str, Any] = restored.extra
        self.sampler.load_state_dict(extra["sampler"])
        step, value = extra["best"]
        self.best = _Best(step, -math.inf if value is None else value)
        self.result.history = [(int(s), m) for s, m in extra["history"]]
        self.result.validations = [(int(s), m) for s, m in extra["validations"]]

    def keep_best(self) -> None:
        """Leave the best step's weights in the model, when that was asked for."""
        if not self.select_by or self.best.step < 0:
            return
        self.result.best_step = self.best.step
        if self.best.step == self.done:
            return
        if self.best.weights is not None:
            _restore(self.objective.root, self.best.weights)
        elif self.checkpoints is not None:
            self.checkpoints.load(self.objective.root, step=self.best.step)

    def _require_finite(self, norm: Tensor, total: Tensor | float) -> None:
        # The norm is global: where any rank's loss is NaN, it is NaN on all, and all leave together.
        if bool(torch.isfinite(norm)):
            return
        found = f"{float(total):g} with gradient norm {float(norm):g} in step {self.done}"
        raise UserError(field="loss", value=found, why="the numbers overflowed, and no further step can mend them",
                        fix=f"Lower learningRate (now {self.config.learning_rate:g}) or lengthen warmupSteps.")  # fmt: skip

    def _note(self) -> str:
        logged = self.result.last
        return f"loss {logged['loss']:.3f}" if "loss" in logged else ""


def _check(size: int, config: TrainLoopConfig, dist: DistContext, validate: Validate | None, select_by: str) -> None:
    if size < 1:
        raise UserError(field="dataset", value="empty", why="there is nothing to train on",
                        fix="Give at least one example.")  # fmt: skip
    if config.global_batch < dist.world_size:
        raise UserError(field="globalBatch", value=config.global_batch, why=f"{dist.world_size} processes need one example each",
                        fix=f"Use at least {dist.world_size}, or fewer processes.")  # fmt: skip
    if config.select is Selection.BEST and (validate is None or not config.validate_every or not select_by):
        raise UserError(field="select", value="best", why="this training has no validation to select by",
                        fix="Use last, or set validateEvery.")  # fmt: skip


@contextmanager
def _prefetched(run: _Run) -> Iterator[Iterator[list[Batch]]]:
    """The batches still to be trained on; the next one is made in a thread while the last is computed with."""
    pool = ThreadPoolExecutor(1, "batches")

    def submit(step: int) -> Future[list[Batch]] | None:
        return pool.submit(run.batch, run.sampler.next_batch().tolist(), step) if step < run.config.steps else None

    def batches() -> Iterator[list[Batch]]:
        upcoming = submit(run.done)
        for step in range(run.done, run.config.steps):
            assert upcoming is not None
            ready = upcoming.result()
            upcoming = submit(step + 1)
            yield ready

    try:
        yield batches()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def whole(root: nn.Module) -> Iterator[None]:
    """Within: parameters are gathered on every rank and the model is in evaluation mode, without gradients.

    Parts of `root` can be used by themselves and differently on each rank, since no forward gathers anything. Every rank
    enters and leaves.
    """
    modules = list(fsdp_modules(root))
    training = root.training
    for module in modules:
        module.set_reshard_after_forward(False, recurse=False)
        module.unshard()
    root.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        root.train(training)
        for number, module in enumerate(modules):
            module.set_reshard_after_forward(number > 0, recurse=False)  # as apply_fsdp left them
        reshard(root)


def _restore(root: nn.Module, weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for name, tensor in model_tensors(root).items():
            tensor.copy_(weights[name])
