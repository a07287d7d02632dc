"""Two gloo ranks against one process: gradients, clipping, Muon, loading, export, checkpoints. One start serves all tests."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.integration, pytest.mark.slow]
WORKER = Path(__file__).with_name("two_rank_worker.py")


def free_ports(count: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [str(server.getsockname()[1]) for server in sockets]
    for server in sockets:
        server.close()
    return ports


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two ranks measured."""
    folder, ports = tmp_path_factory.mktemp("ranks"), free_ports(2)
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    started = [
        subprocess.Popen(
            [sys.executable, str(WORKER), str(folder), *ports],
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"rank{rank}.log").open("wb"),
        )
        for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    logs = "\n".join((folder / f"rank{rank}.log").read_text()[-3000:] for rank in range(2))
    assert codes == [0, 0], logs
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize("case", ["even", "mixed", "tied", "hsdp", "remat", "offload", "kept"])
def test_gradients_equal_one_process(ranks: list[dict[str, Any]], case: str) -> None:
    for rank in ranks:
        assert rank["check_gradients"][case] < 1e-6


def test_clipping_equals_torch_on_one_process(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["check_clip"]["norm"] == pytest.approx(rank["check_clip"]["expected"], rel=1e-5)
        assert rank["check_clip"]["expected"] > 0.05  # so that it clipped
        assert rank["check_clip"]["difference"] < 1e-7
    assert ranks[0]["check_clip"]["norm"] == ranks[1]["check_clip"]["norm"]


def test_muon_equals_torch_on_one_process(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["check_muon"]["difference"] < 1e-5 < rank["check_muon"]["moved"]


def test_bfloat16_reduces_in_float32_and_keeps_frozen_parts_out(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        found = rank["check_precision"]
        assert found["dtypes"] == ["torch.float32"]
        assert found["frozen"] > 0
        assert found["frozen_with_gradient"] == []
        assert 0 < found["relative_error"] < 0.05


@pytest.mark.parametrize("tied", ["False", "True"])
def test_ranged_loading_equals_from_pretrained(ranks: list[dict[str, Any]], tied: str) -> None:
    for rank in ranks:
        found = rank["check_init"][tied]
        assert (found["weights"], found["buffers"], found["loss"]) == (0.0, 0.0, 0.0)
    assert sum(rank["check_init"][tied]["share_read"] for rank in ranks) == pytest.approx(1.0)


def test_export_is_what_from_pretrained_reads(ranks: list[dict[str, Any]]) -> None:
    found = ranks[0]["check_export"]
    assert found["difference"] == 0.0
    assert found["files"] > 1
    assert found["same_names"]
    assert found["same_total"]


def test_generate_gathers_parameters(ranks: list[dict[str, Any]]) -> None:
    assert all(rank["check_generate"]["equal"] for rank in ranks)


def test_ranks_with_other_metric_names_agree(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["check_sums"]["metrics"] == {"loss": (2.0 + 3.0) / 4.0, "pictures": 3.0}


def test_sigterm_on_one_rank_stops_all(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert (rank["check_sums"]["before"], rank["check_sums"]["after"]) == (False, True)


def test_a_rank_that_cannot_store_leaves_nothing_committed(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        found = rank["check_failed_store"]
        assert "rank 1" in found["message"]
        assert "No space left" in found["message"]
        assert found["before"] == []
        assert found["after"] == [1]


def test_checkpoint_of_two_ranks_loads_on_one(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["phase_save"]["steps"] == [1, 2]
    found = ranks[0]["phase_alone"]
    assert (found["step"], found["extra"], found["difference"]) == (2, {"consumed": 8}, 0.0)
    assert found["norm"] == pytest.approx(ranks[0]["phase_save"]["norm"], rel=1e-5)


def test_checkpoint_of_one_rank_resumes_on_two_as_if_never_stopped(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        found = rank["phase_again"]
        assert (found["step"], found["difference"], found["after"]) == (3, 0.0, 0.0)
        assert found["norm"] == rank["phase_save"]["norm"]
