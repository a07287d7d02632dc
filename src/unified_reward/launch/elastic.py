"""torchrun for an elastic job: as PyTorch's, but a user's error is not tried again, and the exit code is that of a rank.

    python -m unified_reward.launch.elastic --nproc-per-node 2 -m -- MODULE ...

Restarts are what keeps the other nodes going when one is lost: their ranks fail with it and meet again without it. So they
cannot be turned off; they are forgone when a rank says (exit code 2) that a person has to mend something.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

from torch.distributed import run
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher import api

from unified_reward.errors import EXIT_USER_ERROR
from unified_reward.launch.causes import FIRST_CAUSES


class Agent(LocalElasticAgent):
    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result: RunResult = super()._monitor_workers(worker_group)
        if _told(result.failures) == EXIT_USER_ERROR:
            self._remaining_restarts = 0
        return result


def main(arguments: list[str] | None = None) -> int:
    """torchrun's arguments; the rest is in the variables (PET_*) that Kubeflow's operator sets."""
    api.LocalElasticAgent = Agent  # type: ignore[attr-defined]  # the launcher takes no other agent
    try:
        run.main(arguments)
    except ChildFailedError as error:
        print(error, file=sys.stderr, flush=True)
        told = _told(error.failures)
        if told is not None:
            return told
        code = error.get_first_failure()[1].exitcode
        return 128 - code if code < 0 else code
    return 0


def _told(failures: Mapping[int, ProcessFailure]) -> int | None:
    """The exit code that says why, of all ranks that ended: a peer that lost its connection may have ended first."""
    codes = {failure.exitcode for failure in failures.values()}
    return next((code for code in FIRST_CAUSES if code in codes), None)


if __name__ == "__main__":
    sys.exit(main())
