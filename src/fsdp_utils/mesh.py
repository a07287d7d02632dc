"""The grid of ranks: whole copies of the model along `replicate`, pieces of one copy along `shard` (HSDP)."""

from __future__ import annotations

from torch.distributed.device_mesh import DeviceMesh, init_device_mesh


def mesh_shape(world_size: int, replicate: int = 1) -> tuple[int, int]:
    """(replicate, shard) with replicate * shard = world_size. Raises ValueError where that cannot be."""
    if replicate < 1 or world_size % replicate:
        divisors = ", ".join(str(n) for n in range(1, world_size + 1) if world_size % n == 0)
        raise ValueError(
            f"replicate is {replicate}: {world_size} ranks cannot form that many equal copies. Use one of {divisors}."
        )
    return replicate, world_size // replicate


def make_mesh(device_type: str, world_size: int, replicate: int = 1) -> DeviceMesh:
    """A mesh with dims ("replicate", "shard"), or ("shard",) alone when there is one copy.

    Ranks of one copy are neighbours, so that with replicate = number of machines a copy stays inside a machine.
    """
    copies, shards = mesh_shape(world_size, replicate)
    if copies == 1:
        return init_device_mesh(device_type, (shards,), mesh_dim_names=("shard",))
    return init_device_mesh(device_type, (copies, shards), mesh_dim_names=("replicate", "shard"))
