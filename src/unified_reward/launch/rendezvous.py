"""The environment of each rank: torchrun's variables, from what a node knows of itself.

On a cluster a node has UR_NODE_RANK (its replica index) and UR_MASTER (worker 0 of its job, HOST:PORT).
"""

from __future__ import annotations

import os
import socket
import sys
import time

from unified_reward.errors import UserError
from unified_reward.names import MASTER, NODE_RANK

RESOLVE_SECONDS = 600.0  # a peer's node may have to be started first


def environments(processes: int, nodes: int) -> list[dict[str, str]]:
    """The environment of each rank on this node; a single process needs no rendezvous.

    Raises OSError when worker 0 cannot be found, UserError where several nodes are asked for and this is none of them.
    """
    if processes * nodes == 1:
        return [dict(os.environ)]
    node = 0
    if nodes == 1:
        address, port = "127.0.0.1", _free_port()
    else:
        if NODE_RANK not in os.environ or MASTER not in os.environ:
            raise UserError(field="nodes", value=nodes, why="this machine is alone",
                            fix="Use --nodes 1, or a scheduler that has several (-s pytorchjob).")  # fmt: skip
        node = int(os.environ[NODE_RANK])
        address, _, port = os.environ[MASTER].partition(":")
        address = "127.0.0.1" if node == 0 else _resolvable(address)
    shared = {"MASTER_ADDR": address, "MASTER_PORT": port, "WORLD_SIZE": str(processes * nodes),
              "LOCAL_WORLD_SIZE": str(processes), "GROUP_RANK": str(node)}  # fmt: skip
    return [
        {**os.environ, **shared, "RANK": str(node * processes + local), "LOCAL_RANK": str(local)}
        for local in range(processes)
    ]


def elastic_command(processes: int, words: list[str]) -> list[str]:
    """torchrun around the ranks: the nodes' number and meeting point are in the variables that Kubeflow's operator sets.

    words: `-m MODULE ...`. The -- keeps torchrun from reading the module's options as abbreviations of its own.
    """
    return [
        sys.executable, "-m", "unified_reward.launch.elastic", "--nproc-per-node", str(processes), words[0], "--", *words[1:]
    ]  # fmt: skip


def _resolvable(host: str) -> str:
    """Wait until `host` has an address: its Service is there when its pod is."""
    deadline = time.monotonic() + RESOLVE_SECONDS
    while True:
        try:
            socket.getaddrinfo(host, None)
            return host
        except socket.gaierror as error:
            if time.monotonic() > deadline:
                raise OSError(f"worker 0 ({host}) has no address after {RESOLVE_SECONDS:.0f} s: {error}") from error
            time.sleep(0.5)


def _free_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
