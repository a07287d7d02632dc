"""What an exit code says of an end."""

from __future__ import annotations

import pytest

from unified_reward.launch.causes import Cause, cause_of


@pytest.mark.parametrize(
    ("code", "cause"),
    [(2, Cause.USER), (143, Cause.PREEMPTED), (137, Cause.MEMORY), (1, Cause.CRASHED), (None, Cause.CRASHED), (139, Cause.CRASHED)],
)  # fmt: skip
def test_the_cause_behind_an_exit_code(code: int | None, cause: Cause) -> None:
    assert cause_of(code) is cause


def test_what_we_stopped_is_no_crash_whatever_its_code() -> None:
    assert cause_of(1, stopped_by_us=True) is Cause.PREEMPTED
