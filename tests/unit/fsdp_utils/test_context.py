from __future__ import annotations

import pytest
import torch

from fsdp_utils.context import DistContext
from fsdp_utils.mesh import make_mesh, mesh_shape
from fsdp_utils.metrics import peak_memory_bytes
from fsdp_utils.precision import mixed_precision, parse_dtype


def test_a_process_alone_is_a_world_of_one(context: DistContext) -> None:
    assert (context.rank, context.world_size, context.is_main, context.device.type) == (0, 1, True, "cpu")
    assert context.broadcast_object({"a": 1}) == {"a": 1}
    assert context.gather_objects("x") == ["x"]
    context.barrier()
    assert make_mesh("cpu", 1).mesh_dim_names == ("shard",)


def test_half_of_torchruns_variables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError, match=r"MASTER_ADDR, MASTER_PORT not set though RANK, WORLD_SIZE is: .*torchrun"):
        DistContext.init("cpu")


def test_unknown_devices_are_refused() -> None:
    with pytest.raises(RuntimeError, match="device is tpu"):
        DistContext.init("tpu")


@pytest.mark.parametrize(
    ("world", "replicate", "expected"), [(8, 1, (1, 8)), (8, 2, (2, 4)), (8, 8, (8, 1)), (6, 3, (3, 2))]
)
def test_mesh_shape(world: int, replicate: int, expected: tuple[int, int]) -> None:
    assert mesh_shape(world, replicate) == expected


@pytest.mark.parametrize("replicate", [0, -1, 3, 16])
def test_copies_that_do_not_divide_the_world_are_refused(replicate: int) -> None:
    with pytest.raises(ValueError, match="Use one of 1, 2, 4, 8"):
        mesh_shape(8, replicate)


def test_precision_names() -> None:
    policy = mixed_precision(parse_dtype("bfloat16"))
    assert (policy.param_dtype, policy.reduce_dtype) == (torch.bfloat16, torch.float32)
    assert mixed_precision(torch.float32).param_dtype is None
    with pytest.raises(ValueError, match="float8"):
        parse_dtype("float8")


def test_peak_memory_counts_what_was_held() -> None:
    before = peak_memory_bytes(torch.device("cpu"))
    held = torch.ones(before // 4 + 5_000_000)
    assert peak_memory_bytes(torch.device("cpu")) >= held.numel() * 4
