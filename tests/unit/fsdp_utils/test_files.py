"""Safetensors files, written in a stream and read by range, against the safetensors library."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from fsdp_utils.context import DistContext
from fsdp_utils.export import export_safetensors
from fsdp_utils.init import DirectoryReader, InitError, init_from_files
from fsdp_utils.safetensors_file import header_length, parse_header


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.scale = nn.Linear(3, 5), nn.Parameter(torch.tensor(2.0))
        self.empty, self.tied = nn.Parameter(torch.zeros(0, 4)), nn.Linear(3, 5, bias=False)
        self.tied.weight = self.linear.weight
        self.register_buffer("ids", torch.arange(4))
        self.register_buffer("table", torch.arange(3.0), persistent=False)


def identity(net: nn.Module) -> dict[str, str]:
    return {name: name for name in net.state_dict() if name != "tied.weight"}


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_the_library_reads_what_we_write(context: DistContext, tmp_path: Path, dtype: torch.dtype | None) -> None:
    net = Net()
    (path,) = export_safetensors(net, tmp_path, context, names=identity(net), dtype=dtype)
    found = load_file(path)
    assert found.keys() == identity(net).keys()
    for name, tensor in found.items():
        expected = net.state_dict()[name]
        assert torch.equal(tensor, expected.to(dtype) if dtype and expected.is_floating_point() else expected)


def test_we_read_what_the_library_writes_and_make_buffers_again(context: DistContext, tmp_path: Path) -> None:
    net = Net()
    stored = {
        name: tensor.half() if name == "scale" else tensor
        for name, tensor in net.state_dict().items()
        if name != "linear.weight"
    }
    stored["stray"] = torch.ones(1)
    save_file(stored, tmp_path / "model.safetensors")
    with torch.device("meta"):
        empty = Net()
    empty.tied.weight = empty.linear.weight

    def remake(module: nn.Module) -> None:
        module.get_buffer("table").copy_(torch.arange(3.0))

    loaded = init_from_files(empty, DirectoryReader(tmp_path), context.device, remake=remake)
    assert loaded.unexpected == ["stray"]
    assert all(torch.equal(tensor, net.state_dict()[name]) for name, tensor in empty.state_dict().items())
    assert torch.equal(empty.get_buffer("table"), torch.arange(3.0))


def test_a_buffer_without_a_value_is_an_error(context: DistContext, tmp_path: Path) -> None:
    net = Net()
    export_safetensors(net, tmp_path, context, names=identity(net))
    with torch.device("meta"):
        empty = Net()
    with pytest.raises(InitError, match="the buffer table is in no file and was not made again"):
        init_from_files(empty, DirectoryReader(tmp_path), context.device)


def test_files_that_do_not_fit_are_named(context: DistContext, tmp_path: Path) -> None:
    with pytest.raises(InitError, match="neither"):
        init_from_files(Net(), DirectoryReader(tmp_path), context.device)
    net = Net()
    names = identity(net)
    (path,) = export_safetensors(net, tmp_path, context, names=names)
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(InitError, match="cut off"):
        init_from_files(net, DirectoryReader(tmp_path), context.device)
    path.write_bytes(b"not safetensors at all")
    with pytest.raises(InitError, match="cannot be read"):
        init_from_files(net, DirectoryReader(tmp_path), context.device)
    export_safetensors(net, tmp_path, context, names=names | {"scale": "other"})
    with pytest.raises(InitError, match="scale is in none of the files"):
        init_from_files(net, DirectoryReader(tmp_path), context.device)
    path.write_bytes(whole)
    net.scale = nn.Parameter(torch.ones(3))
    with pytest.raises(InitError, match=r"scale is \(\) in .*, but \(3,\) in the model"):
        init_from_files(net, DirectoryReader(tmp_path), context.device)


@pytest.mark.parametrize("text", [b"{", b'{"a": {"dtype": "F3", "shape": [1], "data_offsets": [0, 4]}}',
                                  b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}'])  # fmt: skip
def test_malformed_headers_are_refused(text: bytes) -> None:
    with pytest.raises(ValueError):
        parse_header(text)
    with pytest.raises(ValueError):
        header_length((1 << 40).to_bytes(8, "little"))
