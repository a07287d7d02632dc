"""How training mixes data and noise, read from a diffusers scheduler: one form for DDPM-like and flow-matching models."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from unified_reward.errors import UserError


class Prediction(StrEnum):
    """What the denoiser puts out; the names are diffusers' `prediction_type`, and `flow` for flow matching."""

    EPSILON = "epsilon"
    SAMPLE = "sample"
    VELOCITY = "v_prediction"
    FLOW = "flow"


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = signal[i] * x0 + sigma[i] * eps for i in 0 .. T-1, more noise the larger i. All tensors are [T] float32.

    times: what the denoiser is told of step i (0..999 for DDPM-like models, 1000 * sigma for flow matching).
    """

    signal: Tensor
    sigma: Tensor
    times: Tensor
    prediction: Prediction

    @classmethod
    def of(cls, scheduler: Any) -> NoiseSchedule:
        """From a diffusers scheduler. Raises UserError for one that is neither DDPM-like nor flow matching."""
        if hasattr(scheduler, "alphas_cumprod"):
            kept = scheduler.alphas_cumprod.float()
            return cls(kept.sqrt(), (1 - kept).sqrt(), torch.arange(len(kept)).float(), _prediction(scheduler))
        if type(scheduler).__name__.startswith("FlowMatch"):
            fresh = type(scheduler).from_config(scheduler.config)  # a sampler's set_timesteps overwrites sigmas
            times = fresh.timesteps.float().flip(0)
            sigma = times / fresh.config.num_train_timesteps
            return cls(1 - sigma, sigma, times, Prediction.FLOW)
        raise UserError(
            field="model.scheduler", value=type(scheduler).__name__, why="its noise schedule is not known here",
            fix="Use a DDPM, DDIM, Euler, DPM-Solver or FlowMatch scheduler.",
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.signal)

    def mix(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """x_t: [B, ...]. clean, noise: [B, ...]; steps: [B] int64 in 0 .. T-1."""
        return _rows(self.signal, steps, clean) * clean + _rows(self.sigma, steps, clean) * noise

    def target(self, clean: Tensor, noise: Tensor, steps: Tensor) -> Tensor:
        """What the denoiser should have put out for x_t: [B, ...].

        epsilon: eps; sample: x0; v_prediction: signal * eps - sigma * x0 (2202.00512, eq. 11); flow: eps - x0
        (2210.02747 with straight paths).
        """
        if self.prediction is Prediction.EPSILON:
            return noise
        if self.prediction is Prediction.SAMPLE:
            return clean
        if self.prediction is Prediction.FLOW:
            return noise - clean
        return _rows(self.signal, steps, clean) * noise - _rows(self.sigma, steps, clean) * clean


def _prediction(scheduler: Any) -> Prediction:
    name = scheduler.config.prediction_type
    try:
        return Prediction(name)
    except ValueError:
        known = ", ".join(p.value for p in Prediction if p is not Prediction.FLOW)
        raise UserError(
            field="model.scheduler.prediction_type",
            value=name,
            why="no such target is known",
            fix=f"Use one of {known}.",
        ) from None


def _rows(table: Tensor, steps: Tensor, like: Tensor) -> Tensor:
    return table.to(like.device)[steps].to(like.dtype).view(-1, *[1] * (like.ndim - 1))
