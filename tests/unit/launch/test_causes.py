"""What an exit code says of an end, and how causes are counted in an annotation."""

from __future__ import annotations

import pytest

from unified_reward.launch.causes import Cause, cause_of, read_counts, written_counts


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        (2, Cause.USER), (143, Cause.PREEMPTED), (75, Cause.PREEMPTED), (137, Cause.MEMORY), (1, Cause.CRASHED),
        (None, Cause.CRASHED), (139, Cause.CRASHED),
    ],
)  # fmt: skip
def test_the_cause_behind_an_exit_code(code: int | None, cause: Cause) -> None:
    assert cause_of(code) is cause


def test_what_we_stopped_is_no_crash_whatever_its_code() -> None:
    assert cause_of(1, stopped_by_us=True) is Cause.PREEMPTED


def test_counts_are_read_as_they_are_written_in_the_order_a_person_knows() -> None:
    counts = {Cause.CRASHED: 0, Cause.PREEMPTED: 20}
    assert written_counts(counts) == "preempted=20,crashed=0"
    assert read_counts(written_counts(counts)) == counts
    assert read_counts("") == {}


@pytest.mark.parametrize("text", ["preempted", "preempted=many", "user=1"])
def test_counts_that_cannot_be_are_no_zeros(text: str) -> None:
    with pytest.raises((ValueError, KeyError)):
        read_counts(text)
