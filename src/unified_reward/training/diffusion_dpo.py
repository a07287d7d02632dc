"""Diffusion-DPO (2311.12908): the loss as a pure function, and the objective that feeds it pairs of images.

Both images of a pair get the same timestep and the same noise, drawn from (seed of the step, index of the pair): one
process or many, in any order, compute the same gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unified_reward.models.diffusion import ImagePolicy, Pixels, PromptEmbeddings, denoise
from unified_reward.training.objective import Batch, LossSum, ShardUnit

# A chosen image is to become likelier, so its error is to fall. Relative growth above this means that the policy only
# learns to destroy the rejected images faster ("likelihood displacement"): raise beta or lower the learning rate.
DISPLACEMENT_ALERT = 0.10


@dataclass(frozen=True)
class PairErrors:
    """Mean squared errors of the denoiser for B pairs at one shared (timestep, noise) per pair; [B] float32 each."""

    policy_chosen: Tensor
    policy_rejected: Tensor
    reference_chosen: Tensor
    reference_rejected: Tensor

    @property
    def gap(self) -> Tensor:
        """(chosen - rejected) of the policy minus the same of the reference: negative when the policy prefers chosen."""
        return (self.policy_chosen - self.policy_rejected) - (self.reference_chosen - self.reference_rejected)


def squared_error(prediction: Tensor, target: Tensor) -> Tensor:
    """[B] float32: the mean over all dims but the first, so that beta means the same at any image or video size."""
    return (prediction.float() - target.float()).square().flatten(1).mean(1)


def diffusion_dpo_loss(errors: PairErrors, beta: float) -> Tensor:
    """[B] float32, one loss per pair (2311.12908, eq. 14, with T * omega(lambda_t) folded into beta).

    loss = -log sigmoid(-beta / 2 * [(E_pol(w) - E_pol(l)) - (E_ref(w) - E_ref(l))]), E the mean squared error between
    the denoiser's output and its target (eps, v, x0 or flow) at x_t, t and eps being the same for w (chosen) and l
    (rejected). The sum of squares in the paper is a mean here, as in its authors' code: betas of 2000 to 5000 are on
    that scale for eps-prediction.
    """
    return -logsigmoid(-0.5 * beta * errors.gap)


@dataclass(frozen=True)
class ImagePair:
    """A prompt with the image to prefer and the one to avoid, uint8 [H, W, 3]."""

    prompt: str
    chosen: Pixels
    rejected: Pixels


class DiffusionDpo:
    """The training objective: `root` is the policy's denoiser (all that is trained), `reference` a frozen copy of it.

    Prompts are encoded once, here, by the frozen text encoder. The reference is a whole copy on every rank.
    """

    def __init__(
        self, policy: ImagePolicy, pairs: Sequence[ImagePair], beta: float, *, noise_from: float = 0.0
    ) -> None:
        """Takes over `policy`: its text encoder is frozen and its denoiser set to training mode.

        noise_from: in [0, 1): timesteps are drawn from this share of the schedule up. What a picture shows is decided
        where there is much noise; a policy that is to change that, and not how it renders, learns faster there.
        """
        self.policy = policy
        self.pairs = pairs
        self.beta = beta
        self._first_step = int(noise_from * len(policy.schedule))
        self.root: nn.Module = policy.denoiser
        self.reference = copy.deepcopy(policy.denoiser).eval().requires_grad_(False)
        policy.text_encoder.requires_grad_(False)
        self._row = {text: i for i, text in enumerate(dict.fromkeys(pair.prompt for pair in pairs))}
        with torch.no_grad():
            prompts = policy.encode_prompt(list(self._row)) if self._row else None
        self._prompts = prompts

    def shard_units(self) -> Sequence[ShardUnit]:
        return self.policy.shard_units()

    def batch(self, indices: Sequence[int], *, seed: int) -> Batch:
        """Pairs `indices` on the CPU: chosen, rejected, noise [B, C, H, W]; steps [B] int64; hidden [B, L, D]; pooled."""
        assert self._prompts is not None
        pairs = [self.pairs[index] for index in indices]
        draws = [self._draw(seed, index) for index in indices]
        prompts = self._prompts.rows(torch.tensor([self._row[pair.prompt] for pair in pairs], dtype=torch.long))
        return {
            "chosen": self.policy.encode_images(np.stack([pair.chosen for pair in pairs])),
            "rejected": self.policy.encode_images(np.stack([pair.rejected for pair in pairs])),
            "noise": torch.stack([noise for _, noise in draws]),
            "steps": torch.tensor([step for step, _ in draws], dtype=torch.long),
            "hidden": prompts.hidden,
            "pooled": prompts.pooled,
        }

    def normaliser(self, batch: Batch) -> float:
        """The number of pairs."""
        return float(len(batch["steps"]))

    def loss(self, batch: Batch) -> LossSum:
        """The summed loss of the batch's pairs, and what one watches. Metrics:

        loss; implicit_accuracy: share of pairs the policy prefers as labelled, more than the reference does; margin:
        the logit; model_mse, reference_mse: mean errors over both images; chosen_displacement: relative growth of the
        chosen images' error (see DISPLACEMENT_ALERT).
        """
        errors = self.errors(batch)
        losses = diffusion_dpo_loss(errors, self.beta)
        count = torch.tensor(float(len(losses)))
        with torch.no_grad():
            margin = -0.5 * self.beta * errors.gap
            grown = errors.policy_chosen - errors.reference_chosen
            metrics = {
                "loss": (losses.sum(), count),
                "implicit_accuracy": ((margin > 0).float().sum(), count),
                "margin": (margin.sum(), count),
                "model_mse": ((errors.policy_chosen + errors.policy_rejected).sum() / 2, count),
                "reference_mse": ((errors.reference_chosen + errors.reference_rejected).sum() / 2, count),
                "chosen_displacement": (grown.sum(), errors.reference_chosen.sum()),
            }
        return LossSum(losses.sum(), {name: (total.detach(), n.detach()) for name, (total, n) in metrics.items()})

    def errors(self, batch: Batch) -> PairErrors:
        """Policy and reference on the same noisy images, chosen and rejected in one forward each."""
        device = self.policy.device
        moved = {key: value.to(device) for key, value in batch.items()}
        clean = torch.cat([moved["chosen"], moved["rejected"]])
        noise, steps = moved["noise"].repeat(2, 1, 1, 1), moved["steps"].repeat(2)
        prompts = PromptEmbeddings(moved["hidden"].repeat(2, 1, 1), moved["pooled"].repeat(2, 1))
        schedule = self.policy.schedule
        noisy, target = schedule.mix(clean, noise, steps), schedule.target(clean, noise, steps)
        times = schedule.times.to(device)[steps]
        with torch.no_grad():
            reference = squared_error(denoise(self.reference, noisy, times, prompts), target)
        policy = squared_error(denoise(self.root, noisy, times, prompts), target)
        return PairErrors(*policy.chunk(2), *reference.chunk(2))

    def _draw(self, seed: int, index: int) -> tuple[int, Tensor]:
        rng = np.random.default_rng([seed, index])
        step = int(rng.integers(self._first_step, len(self.policy.schedule)))
        return step, torch.from_numpy(rng.standard_normal(self.policy.shape, dtype=np.float32))
