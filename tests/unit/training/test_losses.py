"""Each loss against its formula written out for one pair in plain Python, and what training relies on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
import torch

from unified_reward.config.stages import Loss
from unified_reward.errors import UserError
from unified_reward.training.losses import LOSSES, SMOOTHED, PairLogProbs, dpo_loss

BETA = 0.3


def s(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Pair(NamedTuple):
    """One pair as plain numbers: policy and reference log-probs, token counts, beta, label smoothing."""

    pc: float
    pr: float
    rc: float
    rr: float
    nc: float
    nr: float
    be: float
    e: float


FORMULAS: dict[str, Callable[[Pair], float]] = {
    "sigmoid": lambda x: (
        -(1 - x.e) * math.log(s(x.be * (x.pc - x.rc - x.pr + x.rr)))
        - x.e * math.log(s(-x.be * (x.pc - x.rc - x.pr + x.rr)))
    ),
    "robust": lambda x: (
        (
            -(1 - x.e) * math.log(s(x.be * (x.pc - x.rc - x.pr + x.rr)))
            + x.e * math.log(1 - s(x.be * (x.pc - x.rc - x.pr + x.rr)))
        )
        / (1 - 2 * x.e)
    ),
    "ipo": lambda x: ((x.pc - x.rc) / x.nc - (x.pr - x.rr) / x.nr - 1 / (2 * x.be)) ** 2,
    "hinge": lambda x: max(0.0, 1 - x.be * (x.pc - x.pr - (x.rc - x.rr))),
    "exo_pair": lambda x: sum(
        q * math.log(q / p)
        for q, p in (
            (s(x.be * (x.pc - x.rc - x.pr + x.rr)), 1 - x.e),
            (s(x.be * (x.pr - x.rr - x.pc + x.rc)), x.e),
        )
    ),
    "nca_pair": lambda x: (
        -math.log(s(x.be * (x.pc - x.rc)))
        - 0.5 * math.log(s(x.be * (x.rc - x.pc)))
        - 0.5 * math.log(s(x.be * (x.rr - x.pr)))
    ),
    "sppo_hard": lambda x: (x.pc - x.rc - 0.5 / x.be) ** 2 + (x.pr - x.rr + 0.5 / x.be) ** 2,
    "apo_zero": lambda x: 1 - s(x.be * (x.pc - x.rc)) + s(x.be * (x.pr - x.rr)),
    "apo_down": lambda x: s(x.be * (x.pc - x.rc)) + 1 - s(x.be * (x.pc - x.rc - x.pr + x.rr)),
    "discopop": lambda x: (
        -math.log(s(x.be * (x.pc - x.rc - x.pr + x.rr))) * (1 - s(x.be * (x.pc - x.rc - x.pr + x.rr) / 0.05))
        + math.exp(-x.be * (x.pc - x.rc - x.pr + x.rr)) * s(x.be * (x.pc - x.rc - x.pr + x.rr) / 0.05)
    ),
    "sigmoid_norm": lambda x: -math.log(s(x.be * ((x.pc - x.rc) / x.nc - (x.pr - x.rr) / x.nr))),
    "sft": lambda x: -x.pc / x.nc,
}


def random_pairs(count: int = 16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.concatenate([rng.uniform(-9, -1, (4, count)), rng.integers(1, 8, (2, count))]).astype(np.float32)


def as_pairs(values: np.ndarray, requires_grad: bool = False) -> PairLogProbs:
    columns = [torch.tensor(column) for column in values]
    for column in columns[:4]:
        column.requires_grad_(requires_grad)
    return PairLogProbs(*columns)


def smoothing_of(name: str) -> list[float]:
    return [0.1] if name == "exo_pair" else [0.0, 0.1] if name in SMOOTHED else [0.0]


CASES = [(name, e) for name in LOSSES for e in smoothing_of(name)]


def test_the_table_is_covered() -> None:
    assert set(FORMULAS) == set(LOSSES) == set(Loss)


@pytest.mark.parametrize(("name", "smoothing"), CASES)
def test_equals_the_formula(name: str, smoothing: float) -> None:
    values = random_pairs()
    expected = [FORMULAS[name](Pair(*(float(v) for v in pair), BETA, smoothing)) for pair in values.T]
    result = dpo_loss(name, beta=BETA, label_smoothing=smoothing)(as_pairs(values))
    assert result.shape == (16,)
    np.testing.assert_allclose(result.numpy(), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "robust", "sigmoid_norm"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_ln_2_where_policy_and_reference_agree(name: str, smoothing: float) -> None:
    if smoothing and name not in SMOOTHED:
        return
    values = random_pairs()
    values[2:4] = values[0:2]
    loss = dpo_loss(name, beta=BETA, label_smoothing=smoothing)(as_pairs(values))
    torch.testing.assert_close(loss, torch.full((16,), math.log(2)))


@pytest.mark.parametrize("name", [n for n in LOSSES if n not in ("sft", "apo_down", "discopop")])
def test_a_step_down_the_gradient_widens_the_gap(name: str) -> None:
    """At agreement with the reference, descent raises log p(chosen) and lowers log p(rejected)."""
    values = random_pairs()
    values[2:4] = values[0:2]
    smoothing = smoothing_of(name)[-1]
    pairs = as_pairs(values, requires_grad=True)
    dpo_loss(name, beta=BETA, label_smoothing=smoothing)(pairs).sum().backward()
    assert pairs.policy_chosen.grad is not None
    assert pairs.policy_rejected.grad is not None
    assert (pairs.policy_chosen.grad < 0).all()
    assert (pairs.policy_rejected.grad > 0).all()


def test_apo_down_lowers_both_and_the_rejected_more() -> None:
    values = random_pairs()
    values[2:4] = values[0:2]
    pairs = as_pairs(values, requires_grad=True)
    dpo_loss("apo_down", beta=BETA)(pairs).sum().backward()
    assert pairs.policy_chosen.grad is not None
    assert pairs.policy_rejected.grad is not None
    torch.testing.assert_close(pairs.policy_chosen.grad, torch.zeros(16), atol=1e-7, rtol=0)
    assert (pairs.policy_rejected.grad > 0).all()


@pytest.mark.parametrize("start", [-0.3, 0.3])
def test_discopop_widens_the_gap_on_both_sides_of_its_ridge(start: float) -> None:
    gap = torch.tensor([start / BETA], requires_grad=True)
    zero, one = torch.zeros(1), torch.ones(1)
    dpo_loss("discopop", beta=BETA)(PairLogProbs(gap, zero, zero, zero, one, one)).sum().backward()
    assert gap.grad is not None
    assert gap.grad.item() < 0


def test_swapping_a_flipped_label_undoes_the_robust_bias() -> None:
    """E over flips with rate e of the robust loss is the clean loss (2403.00409, lemma 3.1)."""
    values, e = random_pairs(), 0.2
    flipped = values[[1, 0, 3, 2, 5, 4]]
    loss = dpo_loss("robust", beta=BETA, label_smoothing=e)
    noisy = (1 - e) * loss(as_pairs(values)) + e * loss(as_pairs(flipped))
    torch.testing.assert_close(noisy, dpo_loss("sigmoid", beta=BETA)(as_pairs(values)))


@pytest.mark.parametrize(
    ("name", "smoothing", "message"),
    [
        ("sigmod", 0.0, r"loss is sigmod: no such DPO loss\. Use one of sigmoid, robust"),
        ("hinge", 0.1, r"labelSmoothing is 0\.1: hinge has no smoothed form\. Set labelSmoothing to 0"),
        ("robust", 0.5, r"labelSmoothing is 0\.5: it is the share of wrong labels"),
        ("exo_pair", 0.0, r"labelSmoothing is 0\.0: exo_pair takes the logarithm of it"),
    ],
)
def test_what_cannot_be_is_refused_with_the_way_out(name: str, smoothing: float, message: str) -> None:
    with pytest.raises(UserError, match=message):
        dpo_loss(name, beta=BETA, label_smoothing=smoothing)


@pytest.mark.parametrize(("name", "smoothing"), CASES)
def test_extreme_gaps_stay_finite(name: str, smoothing: float) -> None:
    values = random_pairs()
    values[0], values[1] = -9000.0, -1.0
    pairs = as_pairs(values, requires_grad=True)
    loss = dpo_loss(name, beta=BETA, label_smoothing=smoothing)(pairs)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert pairs.policy_chosen.grad is not None
    assert torch.isfinite(pairs.policy_chosen.grad).all()
