from __future__ import annotations

import math
import os
import signal

import pytest
import torch
from torch import nn

from fsdp_utils.clip import clip_grad_norm
from fsdp_utils.context import DistContext
from fsdp_utils.reduce import all_sum, reduce_metrics
from fsdp_utils.signals import EXIT_CODE, StopSignal


@pytest.mark.parametrize("limit", [0.5, 1e6, math.inf])
def test_clip_equals_torch(limit: float) -> None:
    ours, theirs = ([nn.Parameter(torch.zeros(shape)) for shape in [(3, 4), (5,)]] for _ in range(2))
    for left, right in zip(ours, theirs, strict=True):
        left.grad = torch.randn(left.shape)
        right.grad = left.grad.clone()
    assert torch.allclose(clip_grad_norm(ours, limit), nn.utils.clip_grad_norm_(theirs, limit))
    for left, right in zip(ours, theirs, strict=True):
        assert torch.allclose(left.grad, right.grad, atol=1e-7)  # type: ignore[arg-type]


def test_a_norm_that_is_not_finite_is_returned_as_such() -> None:
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([math.inf, 1.0])
    assert not clip_grad_norm([parameter], 1.0).isfinite()


def test_no_gradients_have_norm_zero() -> None:
    assert clip_grad_norm([nn.Parameter(torch.zeros(2))], 1.0) == 0.0


def test_metrics_are_sums_over_counts(context: DistContext) -> None:
    found = reduce_metrics({"loss": (torch.tensor(6.0, requires_grad=True), 4), "never": (0.0, 0.0)}, context)
    assert found["loss"] == 1.5
    assert math.isnan(found["never"])
    assert reduce_metrics({}, context) == {}
    assert all_sum(3, context) == 3.0


def test_sigterm_sets_the_flag_and_is_given_back(context: DistContext) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stop = StopSignal()
    assert not stop.agreed(context)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.agreed(context)
    stop.close()
    assert signal.getsignal(signal.SIGTERM) is before
    assert EXIT_CODE == 143
