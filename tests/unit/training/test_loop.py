"""The loop on a regression small enough to follow by hand, in one process. Several processes: tests/integration/training."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.context import DistContext
from unified_reward.config import TrainLoopConfig
from unified_reward.errors import UserError
from unified_reward.training.loop import train, whole
from unified_reward.training.objective import Batch, LossSum
from unified_reward.training.optim import BETAS, build_optimizers, schedule

SIZE = 12


class Regression:
    """y = 2 x - 1, with the examples that each step saw."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.root = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.seen: list[list[int]] = []
        self.seeds: list[int] = []

    def shard_units(self) -> list[nn.Module]:
        return [self.root[0]]

    def batch(self, indices: Sequence[int], *, seed: int) -> Batch:
        self.seen.append(list(indices))
        self.seeds.append(seed)
        x = torch.tensor(indices, dtype=torch.float32)[:, None] / SIZE
        return {"x": x, "y": 2 * x - 1}

    def normaliser(self, batch: Batch) -> float:
        return float(len(batch["x"]))

    def loss(self, batch: Batch) -> LossSum:
        total = (self.root(batch["x"]).float() - batch["y"]).square().sum()
        return LossSum(total, {"loss": (total.detach(), len(batch["x"]))})


def settings(**fields: Any) -> TrainLoopConfig:
    return TrainLoopConfig(**{"processes": 1, "global_batch": 4, "steps": 25, "optimizer": "adamw", **fields})


def test_it_learns_and_logs_means_at_intervals(alone: DistContext) -> None:
    objective, lines = Regression(), []
    result = train(
        objective, dataset_size=SIZE, config=settings(learning_rate=0.05), dist=alone,
        log=lambda step, metrics: lines.append((step, metrics)),
    )  # fmt: skip
    assert [step for step, _ in lines] == [10, 20, 25]
    assert lines == result.history
    assert lines[-1][1]["loss"] < 0.1 * lines[0][1]["loss"]
    assert {"grad_norm", "learning_rate", "step_seconds", "samples_per_second", "peak_memory_bytes"} <= set(result.last)
    assert result.best_step == 25
    assert not objective.root.training


def test_every_epoch_sees_each_example_once_and_every_step_has_its_own_seed(alone: DistContext) -> None:
    objective = Regression()
    train(objective, dataset_size=SIZE, config=settings(steps=6), dist=alone)
    for epoch in (objective.seen[:3], objective.seen[3:]):
        assert sorted(i for ids in epoch for i in ids) == list(range(SIZE))
    assert len(set(objective.seeds)) == 6


def test_the_loss_is_divided_by_the_global_count(alone: DistContext) -> None:
    """Two examples or the same two twice: the same step."""
    weights = []
    for batch, size in ((2, 2), (4, 2)):
        objective = Regression()
        train(objective, dataset_size=size, config=settings(steps=1, global_batch=batch), dist=alone)
        weights.append(torch.cat([p.flatten() for p in objective.root.parameters()]))
    torch.testing.assert_close(weights[0], weights[1])


@pytest.mark.parametrize("kept", ["memory", "checkpoints"])
def test_the_best_validated_weights_stay(alone: DistContext, tmp_path: Path, kept: str) -> None:
    objective, at_step = Regression(), {}

    def validate(step: int) -> dict[str, float]:
        assert not objective.root.training
        at_step[step] = torch.cat([p.detach().flatten().clone() for p in objective.root.parameters()])
        return {"score": {5: 0.1, 10: 0.9, 15: 0.9}.get(step, 0.2)}

    checkpoints = Checkpointer.local(tmp_path, alone, keep=1) if kept == "checkpoints" else None
    result = train(
        objective, dataset_size=SIZE, config=settings(validate_every=5, select="best", checkpoint_every=4), dist=alone,
        checkpoints=checkpoints, validate=validate, select_by="score",
    )  # fmt: skip
    assert result.best_step == 10, "the first of equals"
    assert [step for step, _ in result.validations] == [5, 10, 15, 20, 25]
    torch.testing.assert_close(torch.cat([p.flatten() for p in objective.root.parameters()]), at_step[10])
    if checkpoints is not None:
        assert checkpoints.steps() == [10, 25]


def test_a_finished_training_is_not_repeated(alone: DistContext, tmp_path: Path) -> None:
    first, second = Regression(), Regression()
    for objective in (first, second):
        result = train(
            objective, dataset_size=SIZE, config=settings(), dist=alone, checkpoints=Checkpointer.local(tmp_path, alone)
        )
    assert result.resumed_at == 25
    assert second.seen == []
    assert [step for step, _ in result.history] == [10, 20, 25]
    for ours, theirs in zip(second.root.parameters(), first.root.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_bfloat16_compute_trains_float32_weights(alone: DistContext) -> None:
    objective = Regression()
    result = train(
        objective, dataset_size=SIZE, dist=alone,
        config=settings(learning_rate=0.05, shard_units="blocks", precision="bfloat16"),
    )  # fmt: skip
    assert result.last["loss"] < 0.3 * result.history[0][1]["loss"]
    assert all(p.dtype == torch.float32 for p in objective.root.parameters())
    with whole(objective.root):
        assert objective.root[2](objective.root[1](torch.ones(1, 8, dtype=torch.bfloat16))).dtype == torch.bfloat16


def test_progress_is_reported(alone: DistContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UR_PROGRESS_FILE", str(tmp_path / "progress.json"))
    train(Regression(), dataset_size=SIZE, config=settings(), dist=alone)
    report = json.loads((tmp_path / "progress.json").read_text())
    assert (report["done"], report["total"], report["unit"]) == (25, 25, "steps")


def test_a_diverged_loss_names_the_way_out(alone: DistContext) -> None:
    objective = Regression()
    with torch.no_grad():
        objective.root[0].weight.fill_(float("inf"))
    with pytest.raises(
        UserError, match=r"loss is nan with gradient norm nan in step 0: .* Lower learningRate \(now 0\.\d+\)"
    ):
        train(objective, dataset_size=SIZE, config=settings(), dist=alone)


def test_what_cannot_be_trained_is_refused(alone: DistContext) -> None:
    with pytest.raises(UserError, match="dataset is empty"):
        train(Regression(), dataset_size=0, config=settings(), dist=alone)
    best = settings(select="best", validate_every=5)
    with pytest.raises(UserError, match="no validation to select by"):
        train(Regression(), dataset_size=SIZE, config=best, dist=alone)
    with pytest.raises(UserError, match="select is accuracy: validation gave only score"):
        train(
            Regression(), dataset_size=SIZE, config=best, dist=alone, validate=lambda _: {"score": 1.0},
            select_by="accuracy",
        )  # fmt: skip


def test_the_schedule_warms_up_holds_and_decays() -> None:
    config = settings(steps=10, warmup_steps=2, decay_fraction=0.4)
    assert [schedule(step, config) for step in range(10)] == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    flat = settings(steps=10, warmup_steps=0, decay_fraction=0.0)
    assert {schedule(step, flat) for step in range(10)} == {1.0}


def test_muon_takes_hidden_matrices_and_adamw_the_rest() -> None:
    root = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4), nn.LayerNorm(4))
    muon, adamw = build_optimizers(root, settings(optimizer="muon", weight_decay=0.01))
    assert [p.shape for p in muon.param_groups[0]["params"]] == [(4, 4)]
    assert len(adamw.param_groups[0]["params"]) == 4
    assert adamw.param_groups[0]["betas"] == BETAS
    assert muon.param_groups[0]["weight_decay"] == 0.01
    (only,) = build_optimizers(root, settings(optimizer="adamw"))
    assert len(only.param_groups[0]["params"]) == 5


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_micro_batches_are_the_step_in_pieces(alone: DistContext, micro_batch: int) -> None:
    results = []
    for size in (0, micro_batch):
        objective = Regression()
        result = train(objective, dataset_size=SIZE, config=settings(micro_batch=size), dist=alone)
        results.append((result.last, objective.root.state_dict()))
        pieces = {len(ids) for ids in objective.seen}
        assert pieces == ({4} if not size else {1} if size == 1 else {2})
    (whole_metrics, whole_weights), (metrics, weights) = results
    for name in ("loss", "grad_norm"):
        assert metrics[name] == pytest.approx(whole_metrics[name], abs=1e-5)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, whole_weights[name], atol=1e-5, rtol=0)
