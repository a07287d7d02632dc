"""Why an attempt ended without a result, and what its exit code says of that: on this machine and on a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from unified_reward.errors import EXIT_AWAY, EXIT_USER_ERROR

EXIT_KILLED, EXIT_STOPPED = 128 + 9, 128 + 15  # by SIGKILL, by SIGTERM, as a shell counts
FIRST_CAUSES = (EXIT_USER_ERROR, EXIT_AWAY)  # no process ends with these because it lost a peer


class Cause(StrEnum):
    """Why an attempt ended without a result."""

    USER = "UserError"  # exit 2: something a person must mend
    PREEMPTED = "Preempted"  # SIGTERM from outside (143), a lost node, a store that stayed away (75)
    MEMORY = "OutOfMemory"
    CRASHED = "Crashed"  # anything else


def cause_of(exit_code: int | None, *, stopped_by_us: bool = False) -> Cause:
    """The cause behind an exit code. None: it vanished without one (kill -9). 137: SIGKILL, as the kernel's OOM killer sends."""
    if stopped_by_us or exit_code in (EXIT_STOPPED, EXIT_AWAY):
        return Cause.PREEMPTED
    if exit_code == EXIT_USER_ERROR:
        return Cause.USER
    if exit_code == EXIT_KILLED:
        return Cause.MEMORY
    return Cause.CRASHED


RETRIED = {"preempted": Cause.PREEMPTED, "memory": Cause.MEMORY, "crashed": Cause.CRASHED}  # as a person names them


def written_counts(counts: Mapping[Cause, int]) -> str:
    """As an annotation of a job has them: `preempted=20,memory=1,crashed=0`."""
    return ",".join(f"{word}={counts[cause]}" for word, cause in RETRIED.items() if cause in counts)


def read_counts(text: str) -> dict[Cause, int]:
    """What `written_counts` wrote. Raises ValueError and KeyError."""
    pairs = (piece.partition("=") for piece in filter(None, text.split(",")))
    return {RETRIED[word.strip()]: int(count) for word, _, count in pairs}
