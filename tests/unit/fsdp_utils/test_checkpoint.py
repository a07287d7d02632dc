from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from fsdp_utils.checkpoint import Checkpointer
from fsdp_utils.checkpoint_reader import CheckpointError, _MetadataUnpickler
from fsdp_utils.context import DistContext
from fsdp_utils.storage import LocalDirectory


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.linear, self.unused = nn.Linear(width, width), nn.Linear(2, 2)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)


def made(value: float, width: int = 4) -> tuple[Net, list[Optimizer]]:
    """A net whose weights are `value`, and its optimizer after one step that leaves some parameters without state."""
    net = Net(width)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    optimizer = AdamW(net.parameters(), lr=value / 100, betas=(0.8, 0.9))
    net.linear(torch.ones(1, width)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    net.count.fill_(int(value))  # type: ignore[operator]
    return net, [optimizer]


def saved(checkpoints: Checkpointer, *steps: int) -> None:
    for step in steps:
        net, optimizers = made(float(step))
        checkpoints.save(step, net, optimizers, {"seen": step * 10})
    checkpoints.wait()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_everything_comes_back(context: DistContext, tmp_path: Path, asynchronous: bool) -> None:
    checkpoints = Checkpointer.local(tmp_path, context, asynchronous=asynchronous)
    net, optimizers = made(3.0)
    checkpoints.save(3, net, optimizers, {"seen": 30, "name": "ü"})
    expected = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with torch.no_grad():
        net.linear.weight.fill_(-1)  # what training does while the save is under way
    checkpoints.wait()
    other, others = made(8.0)
    restored = checkpoints.load(other, others)
    checkpoints.close()
    assert restored is not None
    assert (restored.step, restored.extra) == (3, {"seen": 30, "name": "ü"})
    assert all(torch.equal(expected[name], tensor) for name, tensor in other.state_dict().items())
    group = others[0].param_groups[0]
    assert (group["lr"], group["betas"]) == (0.03, (0.8, 0.9))
    for left, right in zip(
        optimizers[0].state_dict()["state"].values(), others[0].state_dict()["state"].values(), strict=True
    ):
        assert left.keys() == right.keys()
        assert all(torch.equal(left[key], right[key]) for key in left)
    assert others[0].state.get(other.unused.weight, {}) == {}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink], ids=["cut", "flipped", "gone"])
@pytest.mark.parametrize("name", ["__0_0.distcp", ".metadata", "extra.json"])
def test_a_damaged_step_is_passed_over_with_a_warning(
    context: DistContext, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], name: str
) -> None:
    checkpoints = Checkpointer.local(tmp_path, context)
    saved(checkpoints, 1, 2)
    damage(tmp_path / "step-000002" / name)
    net, optimizers = made(9.0)
    with caplog.at_level(logging.WARNING, "fsdp_utils"):
        restored = checkpoints.load(net, optimizers)
    assert restored is not None
    assert restored.step == 1
    assert f"CHECKPOINT step-000002 IS DAMAGED and is passed over: step-000002/{name} " in caplog.text
    with pytest.raises(CheckpointError, match=r"step-000002 is not whole.*Committed steps: \[1, 2\]"):
        checkpoints.load(net, optimizers, step=2)


def test_a_cut_commit_is_damage_and_a_missing_one_never_was(context: DistContext, tmp_path: Path) -> None:
    checkpoints = Checkpointer.local(tmp_path, context, keep=3)
    saved(checkpoints, 1, 2, 3)
    cut(tmp_path / "step-000003" / "COMMIT")
    (tmp_path / "step-000002" / "COMMIT").unlink()
    assert checkpoints.latest() == 1
    assert checkpoints.steps() == [1, 3]
    with pytest.raises(CheckpointError, match="never committed"):
        checkpoints.load(Net(), step=2)


def test_nothing_saved_is_none_but_all_damaged_is_an_error(context: DistContext, tmp_path: Path) -> None:
    checkpoints = Checkpointer.local(tmp_path, context)
    assert checkpoints.load(Net()) is None
    saved(checkpoints, 1)
    cut(tmp_path / "step-000001" / "__0_0.distcp")
    with pytest.raises(CheckpointError, match=r"none of the checkpoints \[1\] is whole"):
        checkpoints.load(Net())


def test_a_damaged_step_can_be_saved_again(context: DistContext, tmp_path: Path) -> None:
    checkpoints = Checkpointer.local(tmp_path, context)
    saved(checkpoints, 1, 2)
    cut(tmp_path / "step-000002" / "__0_0.distcp")
    saved(checkpoints, 2)
    assert checkpoints.latest() == 2


def test_keep_and_protect(context: DistContext, tmp_path: Path) -> None:
    checkpoints = Checkpointer.local(tmp_path, context, keep=2)
    for step in range(1, 6):
        net, optimizers = made(float(step))
        checkpoints.save(step, net, optimizers, {}, protect=[2])
    assert checkpoints.steps() == [2, 4, 5]
    assert sorted(path.name for path in tmp_path.glob("step-*")) == ["step-000002", "step-000004", "step-000005"]
    with pytest.raises(ValueError, match="keep is 0"):
        Checkpointer.local(tmp_path, context, keep=0)


class FullDisk(LocalDirectory):
    def put_file(self, local: Path, key: str) -> None:
        if key.startswith("step-000002") and key.endswith("COMMIT"):
            raise OSError(28, "No space left on device")
        super().put_file(local, key)


def test_an_asynchronous_failure_is_raised_by_the_next_call(context: DistContext, tmp_path: Path) -> None:
    checkpoints = Checkpointer(FullDisk(tmp_path), context, asynchronous=True, staging=tmp_path / ".staging")
    saved(checkpoints, 1)
    net, optimizers = made(2.0)
    checkpoints.save(2, net, optimizers, {})
    with pytest.raises(CheckpointError, match="No space left on device"):
        checkpoints.save(3, net, optimizers, {})
    assert checkpoints.latest() == 1
    checkpoints.close()


def test_another_model_or_optimizer_is_refused_before_anything_changes(context: DistContext, tmp_path: Path) -> None:
    checkpoints = Checkpointer.local(tmp_path, context)
    saved(checkpoints, 1)
    wide, _ = made(5.0, width=6)
    with pytest.raises(CheckpointError, match=r"linear\.weight is \(4, 4\) in step-000001, but \(6, 6\)"):
        checkpoints.load(wide)
    bigger = Net()
    bigger.more = nn.Linear(1, 1)
    with pytest.raises(CheckpointError, match=r"lacks 2 tensors of this model, first model\.more\.bias"):
        checkpoints.load(bigger)
    net, _ = made(5.0)
    before = net.linear.weight.clone()
    with pytest.raises(CheckpointError, match="same optimizer settings"):
        checkpoints.load(net, [AdamW(net.linear.parameters()), AdamW(net.unused.parameters())])
    with pytest.raises(CheckpointError, match=r"state without a place: \['optimizer\.0\.linear\.bias"):
        checkpoints.load(net, [AdamW([net.linear.weight])])
    assert torch.equal(net.linear.weight, before)


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return exec, ("raise SystemExit('code ran')",)


def test_metadata_that_would_run_code_is_refused(context: DistContext, tmp_path: Path) -> None:
    checkpoints = Checkpointer.local(tmp_path, context)
    saved(checkpoints, 1)
    path, commit = tmp_path / "step-000001/.metadata", tmp_path / "step-000001/COMMIT"
    path.write_bytes(pickle.dumps(Evil()))
    document = json.loads(commit.read_text())
    document["files"][".metadata"] = {
        "size": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }
    commit.write_text(json.dumps(document))
    with pytest.raises(CheckpointError, match=r"refers to builtins\.exec"):
        checkpoints.load(Net())


def test_enum_members_are_read_as_older_pythons_write_them_and_nothing_else_is() -> None:
    from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING

    def written_as_getattr(owner: object, name: str) -> io.BytesIO:
        class Written:
            def __reduce__(self) -> tuple[object, ...]:
                return getattr, (owner, name)

        return io.BytesIO(pickle.dumps(Written()))

    wanted = _MEM_FORMAT_ENCODING.TORCH_PRESERVE_FORMAT
    assert _MetadataUnpickler(written_as_getattr(_MEM_FORMAT_ENCODING, wanted.name)).load() is wanted
    with pytest.raises(CheckpointError, match="no part of a checkpoint"):
        _MetadataUnpickler(written_as_getattr(_MEM_FORMAT_ENCODING, "mro")).load()
    with pytest.raises(CheckpointError, match="no part of a checkpoint"):
        _MetadataUnpickler(written_as_getattr(torch.Size, "__subclasses__")).load()
