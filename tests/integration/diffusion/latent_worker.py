"""One rank that aligns a tiny SDXL through the training loop and exports it: losses, an image, and the directory (torchrun)."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from fsdp_utils.context import DistContext
from fsdp_utils.precision import parse_dtype
from unified_reward.config import DpoTrainConfig
from unified_reward.models.diffusion import load_image_policy
from unified_reward.models.diffusion_sampler import DiffusionSampler, draw_images
from unified_reward.stages import trained
from unified_reward.training.diffusion_dpo import DiffusionDpo, ImagePair
from unified_reward.training.loop import train
from unified_reward.training.parallel import flat, parallelise

PAIRS = 12
TEXTS = ["a red ring", "a blue square on white"]
SAMPLER = DiffusionSampler(steps=2, guidance=0.0)


def main(base: str, out: str, options: str) -> None:
    torch.set_num_threads(1)
    dist = DistContext.init("cpu")
    config = DpoTrainConfig.model_validate(
        {"steps": 10, "global_batch": 4, "learning_rate": 1e-3, "optimizer": "adamw", "warmup_steps": 0, "beta": 200.0,
         "noise_levels": 4, "shard_units": "blocks", "processes": 1, **json.loads(options)}
    )  # fmt: skip
    policy = load_image_policy(base)
    images = np.random.default_rng(0).integers(0, 256, (PAIRS, 2, 32, 32, 3), dtype=np.uint8)
    store = {f"{i}/{side}": images[i, side] for i in range(PAIRS) for side in range(2)}
    pairs = [ImagePair(TEXTS[i % 2], f"{i}/0", f"{i}/1") for i in range(PAIRS)]
    objective = DiffusionDpo(
        policy,
        pairs,
        store.__getitem__,
        config.beta,
        noise_levels=config.noise_levels,
        compute=parse_dtype(config.precision),
    )
    units = objective.shard_units()
    parallelise(objective.root, units=units, layers=flat(units), config=config, dist=dist, cast_inputs=False)

    told: list[Any] = []  # (dtype of the latents, timesteps) as the U-Net itself sees them
    forward = type(policy.denoiser).forward

    def spied(self: Any, sample: torch.Tensor, timestep: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        told.append((str(sample.dtype), timestep.tolist()))
        return forward(self, sample, timestep, *args, **kwargs)

    type(policy.denoiser).forward = spied  # type: ignore[method-assign]
    losses = []
    step = objective.loss

    def loss(batch: dict[str, torch.Tensor]) -> Any:
        done = step(batch)
        total = done.total.detach().clone()
        torch.distributed.all_reduce(total)
        losses.append(float(total))
        return done

    objective.loss = loss  # type: ignore[method-assign]
    drawn: list[np.ndarray] = []

    def validate(done: int) -> dict[str, float]:  # noqa: ARG001  (the loop's signature)
        drawn.append(next(draw_images(policy, TEXTS, [1, 2], SAMPLER)))
        return {"seen": 1.0}

    train(objective, dataset_size=PAIRS, config=config, dist=dist, validate=validate)
    published: dict[str, Any] = {}

    def publish(context: Any, name: str, directory: Path, meta: Any) -> None:  # noqa: ARG001
        published["files"] = sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())
        directory.rename(Path(out) / "export")
        directory.mkdir()

    trained._publish = publish  # type: ignore[assignment]
    Path(out).mkdir(parents=True, exist_ok=True)
    trained.export_image_policy(SimpleNamespace(dist=dist, work_dir=Path(out)), "policy", policy, Path(base), meta={})  # type: ignore[arg-type]
    if dist.is_main:
        if drawn:
            np.save(Path(out) / "drawn.npy", drawn[-1])
        result = {"losses": losses, "told": told, **published}
        (Path(out) / "result.json").write_text(json.dumps(result))
    dist.barrier()
    dist.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
