"""Elastic nodes, as Kubeflow's operator starts them: two entries, each with torchrun and a rank, over gloo."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.integration
RENDEZVOUS = "last_call_timeout=1"  # seconds for more nodes to come when there are enough


class Nodes:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, failing_rank: int = -1) -> subprocess.Popen[bytes]:
        """The environment is what the operator makes of `elasticPolicy`."""
        node = len(self.processes)
        command = [sys.executable, "-m", "unified_reward.launch.entry", "--elastic", "--", "-m", "elastic_rank"]
        variables = {
            "PET_NNODES": "1:2", "PET_MAX_RESTARTS": "3", "PET_RDZV_BACKEND": "c10d", "PET_RDZV_ID": "job",
            "PET_RDZV_ENDPOINT": f"127.0.0.1:{self.port}", "PET_RDZV_CONF": RENDEZVOUS, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "PYTHONPATH": str(Path(__file__).parent), "NODE": str(node), "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        with (self.directory / f"log-{node}").open("wb") as log:
            process = subprocess.Popen(
                [*command, str(self.directory), str(failing_rank)], env={**os.environ, **variables},
                stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.processes.append(process)
        return process

    def kill(self, node: int) -> None:
        """All of it at once, as a pod ends."""
        process = self.processes[node]
        if process.poll() is None:
            family = psutil.Process(process.pid)
            for member in [family, *family.children(recursive=True)]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.kill()
        process.wait()

    def starts(self, node: int) -> list[str]:
        """World size at each start of a node's rank."""
        file = self.directory / f"starts-{node}"
        return file.read_text().split() if file.exists() else []

    def until(self, node: int, fulfilled: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not fulfilled():
            assert time.monotonic() < deadline, (self.directory / f"log-{node}").read_text()
            time.sleep(0.1)

    def meets_others(self) -> bool:
        """Whether a node is there to whom the others come."""
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Nodes]:
    found = Nodes(tmp_path)
    yield found
    for node in range(len(found.processes)):
        found.kill(node)


def test_a_users_error_is_not_tried_again(nodes: Nodes) -> None:
    first, second = nodes.start(failing_rank=1), nodes.start(failing_rank=1)
    ended: list[int] = []
    deadline = time.monotonic() + 120
    while not ended:  # which of the two is rank 1 is torchrun's choice
        assert time.monotonic() < deadline
        ended = [number for number, process in enumerate((first, second)) if process.poll() == 2]
        time.sleep(0.1)
    assert nodes.starts(ended[0]).count("2") == 1  # perhaps after a start alone
    assert "the user has to mend this" in (nodes.directory / f"log-{ended[0]}").read_text()


def test_a_node_goes_on_without_one_that_is_killed(nodes: Nodes) -> None:
    nodes.start()
    nodes.until(0, nodes.meets_others)
    nodes.start()
    nodes.until(0, lambda: nodes.starts(0)[-1:] == ["2"])  # perhaps after a start alone
    nodes.until(1, lambda: nodes.starts(1)[-1:] == ["2"])
    nodes.kill(1)
    nodes.until(0, lambda: nodes.starts(0)[-1:] == ["1"])
    (nodes.directory / "end").touch()
    assert nodes.processes[0].wait(timeout=120) == 0
    assert nodes.starts(0)[-2:] == ["2", "1"]


def test_the_exit_code_is_that_of_the_rank() -> None:
    command = [sys.executable, "-m", "unified_reward.launch.entry", "--elastic", "--", "-m", "timeit"]
    assert subprocess.run([*command, "import os; os.kill(os.getpid(), 9)"], timeout=120).returncode == 137
