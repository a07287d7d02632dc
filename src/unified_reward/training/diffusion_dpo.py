"""Diffusion-DPO (2311.12908): the loss as a pure function, and the objective that feeds it pairs of images.

Both images of a pair get the same timestep and the same noise, drawn from (seed of the step, index of the pair): one
process or many, in any order, compute the same gradients.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unified_reward.errors import UserError
from unified_reward.models.diffusion import cast
from unified_reward.models.diffusion_policy import ImagePolicy, Pixels, PromptEmbeddings
from unified_reward.training.objective import Batch, LossSum, ShardUnit


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
    """A prompt with the names of the image to prefer and the one to avoid."""

    prompt: str
    chosen: str
    rejected: str


def trained_steps(count: int, noise_from: float = 0.0, noise_levels: int = 0) -> list[int]:
    """The places in a schedule of `count` steps that training draws from.

    noise_from: in [0, 1): from this share of the schedule up. noise_levels: only the ends of so many equal stretches, 0 =
    all: what a few-step model is drawn at (SDXL-Turbo with 4: 249, 499, 749, 999).
    Raises UserError when nothing is left.
    """
    places = [count * (k + 1) // noise_levels - 1 for k in range(noise_levels)] if noise_levels else range(count)
    kept = [place for place in places if place >= int(noise_from * count)]
    if noise_levels > count:
        raise UserError(field="noiseLevels", value=noise_levels, why=f"the policy's schedule has {count} steps",
                        fix=f"Use at most {count}, or 0 for all of them.")  # fmt: skip
    return kept


class DiffusionDpo:
    """The training objective: `root` is the policy's denoiser (all that is trained), `reference` a frozen copy of it.

    Images and prompts are encoded batch by batch where the policy is, so that neither latents nor embeddings of a large
    dataset need a place. The reference, the VAE and the text encoders are whole on every rank.
    """

    def __init__(
        self,
        policy: ImagePolicy,
        pairs: Sequence[ImagePair],
        read: Callable[[str], Pixels],
        beta: float,
        *,
        noise_from: float = 0.0,
        noise_levels: int = 0,
        compute: torch.dtype = torch.float32,
    ) -> None:
        """Takes over `policy`, before it is sharded: all but its denoiser is frozen.

        read: name of an image -> uint8 [H, W, 3]; called from a thread. compute: dtype that sharding will have the
        denoiser compute in, and that of the reference's weights: the two agree to the bit as long as nothing is learned.
        noise_from, noise_levels: see `trained_steps`. What a picture shows is decided where there is much noise; a policy
        that is to change that, and not how it renders, learns faster there.
        """
        self.policy = policy
        self.pairs = pairs
        self.read = read
        self.beta = beta
        self._steps = trained_steps(len(policy.schedule), noise_from, noise_levels)
        self.root: nn.Module = policy.denoiser
        for module in policy.denoiser.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0  # chosen and rejected, policy and reference must differ in nothing that is drawn
        # In training mode, as the root will be: diffusers' blocks then lay out memory otherwise, which rounds otherwise.
        self.reference = cast(copy.deepcopy(policy.denoiser), compute).train().requires_grad_(False)
        policy.compute_dtype = compute
        for module in policy.frozen:
            module.eval().requires_grad_(False)

    def shard_units(self) -> Sequence[ShardUnit]:
        return self.policy.shard_units()

    def batch(self, indices: Sequence[int], *, seed: int) -> Batch:
        """Pairs `indices` on the CPU: chosen, rejected [B, 3, H, W] in [-1, 1]; noise of what is denoised; steps, pairs
        [B] int64."""
        pairs = [self.pairs[index] for index in indices]
        draws = [self._draw(seed, index) for index in indices]
        return {
            "chosen": self._pixels([pair.chosen for pair in pairs]),
            "rejected": self._pixels([pair.rejected for pair in pairs]),
            "noise": torch.stack([noise for _, noise in draws]),
            "steps": torch.tensor([step for step, _ in draws], dtype=torch.long),
            "pairs": torch.tensor(indices, dtype=torch.long),
        }

    def normaliser(self, batch: Batch) -> float:
        """The number of pairs."""
        return float(len(batch["steps"]))

    def loss(self, batch: Batch) -> LossSum:
        """The summed loss of the batch's pairs, and what one watches. Metrics:

        loss; implicit_accuracy: share of pairs the policy prefers as labelled, more than the reference does; margin:
        the logit; model_mse, reference_mse: mean errors over both images; chosen_displacement: relative growth of the
        chosen images' error. A chosen image is to become likelier, so its error is to fall; growth above about 0.1 means
        that the policy only learns to destroy the rejected images faster: raise beta or lower the learning rate.
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
        policy, schedule = self.policy, self.policy.schedule
        moved = {key: value.to(policy.device) for key, value in batch.items()}
        noise, steps = moved["noise"].repeat(2, 1, 1, 1), moved["steps"].repeat(2)
        with torch.no_grad():
            clean = policy.to_latents(torch.cat([moved["chosen"], moved["rejected"]]))
            told = policy.encode_prompt([self.pairs[index].prompt for index in batch["pairs"].tolist()])
            prompts = PromptEmbeddings(told.hidden.repeat(2, 1, 1), told.pooled.repeat(2, 1))
            noisy, target = schedule.mix(clean, noise, steps), schedule.target(clean, noise, steps)
            times = schedule.times.to(policy.device)[steps]
            reference = squared_error(policy.predict(noisy, times, prompts, denoiser=self.reference), target)
        learned = squared_error(policy.predict(noisy, times, prompts, denoiser=self.root), target)
        return PairErrors(*learned.chunk(2), *reference.chunk(2))

    def _pixels(self, names: Sequence[str]) -> Tensor:
        images = [self.read(name) for name in names]
        height, width = self.policy.image_size
        for name, image in zip(names, images, strict=True):
            if image.shape != (height, width, 3):
                raise UserError(field=f"image {name[:12]}", value=" x ".join(map(str, image.shape)), why="the policy draws "
                                f"{height} x {width} pixels", fix="Align a policy with images of its own size.")  # fmt: skip
        return self.policy.to_pixels(np.stack(images))

    def _draw(self, seed: int, index: int) -> tuple[int, Tensor]:
        rng = np.random.default_rng([seed, index])
        step = self._steps[int(rng.integers(len(self._steps)))]
        return step, torch.from_numpy(rng.standard_normal(self.policy.shape, dtype=np.float32))
