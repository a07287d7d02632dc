"""One rank of a Diffusion-DPO step: writes the loss, the metrics and the gathered gradients of its world (torchrun)."""

import sys

import numpy as np
import torch
from torch.distributed.tensor import DTensor

from fsdp_utils.context import DistContext
from fsdp_utils.sharding import ShardingPlan, apply_fsdp, reshard
from unified_reward.models.diffusion_sampler import DiffusionSampler, draw_images
from unified_reward.models.tiny_diffusion import tiny_image_policy
from unified_reward.training.diffusion_dpo import DiffusionDpo, ImagePair

PAIRS = 6


IMAGES = np.random.default_rng(0).integers(0, 256, (PAIRS, 2, 8, 8, 3), dtype=np.uint8)


def pairs() -> list[ImagePair]:
    return [ImagePair(f"a {'red' if i % 2 else 'blue'} ring", f"{i} 0", f"{i} 1") for i in range(PAIRS)]


def read(name: str) -> np.ndarray:
    pair, side = map(int, name.split())
    return IMAGES[pair, side]


def main(out: str) -> None:
    torch.set_num_threads(1)
    context = DistContext.init("cpu")
    torch.manual_seed(0)
    policy = tiny_image_policy(["a", "red", "blue", "ring"], side=8, patch=4, width=32, layers=2)
    objective = DiffusionDpo(policy, pairs(), read, beta=500.0)
    if context.world_size > 1:
        mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (context.world_size,))
        apply_fsdp(objective.root, ShardingPlan(mesh, objective.shard_units()))
    with torch.no_grad():  # away from the reference, by the same amount in every world
        for name, parameter in objective.root.named_parameters():
            parameter *= 1.0 + 0.1 * (len(name) % 3)
    share = list(range(PAIRS))[context.rank :: context.world_size]
    loss = objective.loss(objective.batch(share, seed=4))
    loss.total.backward()
    gradients = {
        name: p.grad.full_tensor() if isinstance(p.grad, DTensor) else p.grad
        for name, p in objective.root.named_parameters() if p.grad is not None
    }  # fmt: skip
    shown = next(draw_images(policy, ["a red ring"] * 2, [1, 2], DiffusionSampler(steps=3)))
    if context.world_size > 1:
        reshard(objective.root)
    total = torch.tensor([loss.total.item(), *(float(loss.metrics[key][0]) for key in sorted(loss.metrics))])
    torch.distributed.all_reduce(total)
    if context.is_main:
        torch.save({"total": total, "gradients": gradients, "images": torch.from_numpy(shown)}, out)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
