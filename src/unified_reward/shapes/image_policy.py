"""The image policy one starts from: learns to draw the world's train scenes, then to mistrust captions.

    python -m unified_reward.shapes.image_policy --out DIR

First its text encoder learns to tell captions apart (as CLIP is trained before a diffusion model), then the denoiser
learns to draw, from right captions; last, from captions in which each fact may be wrong, so that it draws clear pictures
which often show something else than was asked. Short captions of the validation and test splits, and their pictures, are
in none of this: what the model draws for them it composes of facts seen elsewhere, in other sizes and places.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unified_reward.models.diffusion import save_image_policy
from unified_reward.models.diffusion_pixels import PixelPolicy
from unified_reward.models.diffusion_policy import ImagePolicy, Pixels
from unified_reward.models.diffusion_sampler import DiffusionSampler, draw_images
from unified_reward.models.tiny_diffusion import TEXT_WIDTH, tiny_image_policy
from unified_reward.records import Prompt
from unified_reward.shapes.dataset import image_prompts
from unified_reward.shapes.language import caption
from unified_reward.shapes.render import Look, render_scene
from unified_reward.shapes.scenes import (
    SCENE_FACTS,
    SHORT_FACTS,
    VALUES,
    Scene,
    changed,
    scenes_of,
    short_triples,
)
from unified_reward.shapes.truth import grade_image

Facts = dict[str, str]

SHORT_SHARE = 0.3  # of the pictures drawn in pretraining: large, centered, with a short caption
LOOKS = 16  # renderings kept of each scene
LEARNING_RATE = 4e-3
BATCH = 32


@dataclass(frozen=True)
class Phase:
    """steps of `BATCH` pictures; wrong: the chance of each of color, shape and background to be another in the caption."""

    steps: int
    learning_rate: float
    decay: float
    wrong: float


PHASES = (Phase(2400, LEARNING_RATE, 0.3, 0.0), Phase(900, LEARNING_RATE / 2, 0.4, 0.22))


def vocabulary() -> list[str]:
    words = {word for scene in scenes_of("train") for word in caption(scene.facts()).split()}
    short = {word for triple in short_triples("train") for word in caption(_named(triple)).split()}
    return sorted(words | short)


def pretrain(seed: int, phases: Sequence[Phase] = PHASES) -> PixelPolicy:
    """The base image policy. Same seed, same machine: same weights."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    policy = tiny_image_policy(vocabulary())
    lessons = _Lessons(rng)
    _learn_text(policy, lessons.facts, rng)
    policy.denoiser.train()
    for number, phase in enumerate(phases, start=1):
        _learn_to_draw(policy, lessons, phase, f"phase {number}/{len(phases)}")
    policy.denoiser.eval()
    return policy


class _Lessons:
    """Pictures of every train scene and every train short caption, and the captions told with them."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        full = [scene.facts() for scene in scenes_of("train")]
        short = [_named(triple) for triple in short_triples("train")]
        self.facts: list[Facts] = full + short
        weights = np.r_[
            np.full(len(full), (1 - SHORT_SHARE) / len(full)), np.full(len(short), SHORT_SHARE / len(short))
        ]
        self.cumulative = weights.cumsum() / weights.sum()
        self.allowed = {tuple(facts.values()) for facts in self.facts}
        pictures = [render_scene(_scene(facts), self._look()) for facts in self.facts for _ in range(LOOKS)]
        self.pictures = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1

    def batch(self, wrong: float) -> tuple[Tensor, list[str]]:
        """BATCH pictures [B, 3, 32, 32] in [-1, 1] and their captions."""
        rows = np.searchsorted(self.cumulative, self.rng.random(BATCH), side="right")
        looks = self.rng.integers(LOOKS, size=BATCH)
        captions = [caption(self._told(self.facts[row], wrong)) for row in rows]
        return self.pictures[torch.from_numpy(rows * LOOKS + looks)], captions

    def _told(self, facts: Facts, wrong: float) -> Facts:
        """The facts as told: never those of a held-out scene."""
        while wrong:
            false = [fact for fact in SHORT_FACTS if self.rng.random() < wrong]
            told = changed(facts, false, self.rng)
            if tuple(told.values()) in self.allowed:
                return told
        return facts

    def _look(self) -> Look:
        dx, dy = self.rng.uniform(-1, 1, 2)
        return Look(dx=dx, dy=dy)


def _learn_text(policy: PixelPolicy, facts: Sequence[Facts], rng: np.random.Generator) -> None:
    """Train the text encoder so that a linear map reads every fact off the pooled embedding."""
    defaults = {"size": "large", "position": "center"}
    values = [VALUES[fact] for fact in SCENE_FACTS]
    truth = torch.tensor(
        [[v.index((defaults | f)[name]) for name, v in zip(SCENE_FACTS, values, strict=True)] for f in facts]
    )
    captions = [caption(f) for f in facts]
    encoder = policy.text_encoder.train()
    reader = nn.Linear(TEXT_WIDTH, sum(map(len, values)))
    optimizer = torch.optim.AdamW([*encoder.parameters(), *reader.parameters()], lr=2e-3)
    for _ in range(400):
        rows = rng.integers(len(facts), size=4 * BATCH)
        logits = reader(policy.encode_prompt([captions[row] for row in rows]).pooled).split(
            [len(v) for v in values], dim=1
        )
        answers = truth[torch.from_numpy(rows)]
        loss = torch.stack([cross_entropy(part, answers[:, n]) for n, part in enumerate(logits)]).sum()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if loss.item() < 0.02:
            break
    encoder.eval()


def _learn_to_draw(policy: PixelPolicy, lessons: _Lessons, phase: Phase, name: str) -> None:
    """Denoising with the clean picture as the target; the text encoder learns along."""
    parameters = [*policy.denoiser.parameters(), *policy.text_encoder.parameters()]
    optimizers = _optimizers(policy, phase.learning_rate)
    peaks = [optimizer.param_groups[0]["lr"] for optimizer in optimizers]
    losses = []
    started = time.process_time()
    for step in range(phase.steps):
        factor = min(1.0, (step + 1) / 50, max(0.02, (phase.steps - step) / (phase.decay * phase.steps)))
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            optimizer.param_groups[0]["lr"] = peak * factor
        clean, captions = lessons.batch(phase.wrong)
        noise, steps = torch.randn_like(clean), torch.randint(len(policy.schedule), (len(clean),))
        noisy = policy.schedule.mix(clean, noise, steps)
        output = policy.predict(noisy, policy.schedule.times[steps], policy.encode_prompt(captions))
        loss = (output - policy.schedule.target(clean, noise, steps)).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        losses.append(loss.item())
        if (step + 1) % 200 == 0 or step + 1 == phase.steps:
            spent = time.process_time() - started
            print(
                f"{name} step {step + 1}/{phase.steps} loss {np.mean(losses[-200:]):.4f} {spent:.0f} cpu-s", flush=True
            )


def _optimizers(policy: PixelPolicy, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the blocks' matrices, AdamW at half its rate for the rest."""
    named = list(policy.denoiser.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and name.startswith("transformer_blocks.")]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen] + list(policy.text_encoder.parameters())
    return [
        torch.optim.Muon(matrices, lr=learning_rate, momentum=0.95, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=learning_rate / 2, betas=(0.9, 0.98), weight_decay=0.01),
    ]


@dataclass(frozen=True)
class Drawn:
    """Images of some captions with the truth of each: facts[i, k] whether image i shows fact k as asked."""

    prompts: list[Prompt]
    images: Pixels
    facts: NDArray[np.bool_]

    @property
    def all_right(self) -> float:
        """Share of images in which every asked fact is right."""
        return float(self.facts.all(1).mean())


def draw_and_grade(
    policy: ImagePolicy, prompts: Sequence[Prompt], per_prompt: int, sampler: DiffusionSampler, seed: int
) -> Drawn:
    """`per_prompt` images for each prompt, graded by the pixel matcher. Facts in the order of SHORT_FACTS."""
    rows = [prompt for prompt in prompts for _ in range(per_prompt)]
    seeds = np.random.default_rng(seed).integers(2**62, size=len(rows)).tolist()
    images = np.concatenate(list(draw_images(policy, [prompt.text for prompt in rows], seeds, sampler)))
    grades = [grade_image(prompt, image) for prompt, image in zip(rows, images, strict=True)]
    return Drawn(rows, images, np.array([[grade[fact] for fact in SHORT_FACTS] for grade in grades]))


def _report(policy: ImagePolicy) -> Iterator[str]:
    for split in ("train", "validation", "test"):
        prompts = image_prompts(split)
        drawn = draw_and_grade(policy, prompts, 480 // len(prompts), DiffusionSampler(), seed=0)
        facts = ", ".join(f"{name} {share:.3f}" for name, share in zip(SHORT_FACTS, drawn.facts.mean(0), strict=True))
        yield f"{split}: all asked facts right {drawn.all_right:.3f} ({facts})"


def _named(triple: Sequence[str]) -> Facts:
    return dict(zip(SHORT_FACTS, triple, strict=True))


def _scene(facts: Mapping[str, str]) -> Scene:
    return Scene(**({"size": "large", "position": "center"} | dict(facts)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Pretrain the shapes world's image policy and save it.")
    parser.add_argument("--out", type=Path, required=True, help="directory to write the diffusers model to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    policy = pretrain(options.seed)
    save_image_policy(policy, options.out, dtype=torch.bfloat16)
    for line in _report(policy):
        print(line)


if __name__ == "__main__":
    main()
