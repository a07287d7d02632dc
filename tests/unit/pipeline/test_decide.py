"""The rules of `decide`, as tables and as invariants over random worlds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unified_reward.launch.causes import Cause
from unified_reward.pipeline.decide import Action, ActionKind, Limits, RunState, State, View, decide

LIMITS = Limits.default(slots=2)


def view(name: str, state: State = State.WAITING, *, needs: str = "", processes: int = 1, **more: object) -> View:
    return View(name, frozenset(needs.split()), processes, state, **more)  # type: ignore[arg-type]


def kinds(*views: View, cancelled: bool = False, now: float = 100.0) -> list[tuple[str, str]]:
    return [(a.kind.value, a.node) for a in decide(views, LIMITS, now=now, cancelled=cancelled).actions]


def test_a_stage_starts_when_what_it_needs_is_done() -> None:
    assert kinds(view("a"), view("b", needs="a")) == [("launch", "a")]
    assert kinds(view("a", State.DONE), view("b", needs="a")) == [("launch", "b")]


def test_a_committed_result_is_reused_without_a_slot() -> None:
    assert kinds(view("x", State.RUNNING, processes=2), view("a", committed=True)) == [("reuse", "a")]


def test_stages_share_the_slots_in_order() -> None:
    assert kinds(view("a"), view("b"), view("c")) == [("launch", "a"), ("launch", "b")]
    assert kinds(view("a", State.RUNNING), view("b", processes=2), view("c")) == [("launch", "c")]


def test_a_stage_wider_than_the_machine_runs_alone() -> None:
    assert kinds(view("a", processes=8)) == [("launch", "a")]
    assert kinds(view("x", State.RUNNING), view("a", processes=8)) == []


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ((Cause.USER,), "fail"),
        ((Cause.CRASHED,), "launch"),
        ((Cause.CRASHED, Cause.CRASHED), "fail"),
        ((Cause.MEMORY,), "launch"),
        ((Cause.MEMORY, Cause.MEMORY), "fail"),
        ((Cause.PREEMPTED,) * 20, "launch"),
        ((Cause.PREEMPTED,) * 21, "fail"),
    ],
)
def test_retries_are_bounded_by_cause(failures: tuple[Cause, ...], expected: str) -> None:
    assert kinds(view("a", failures=failures), now=1e9) == [(expected, "a")]


def test_an_attempt_waits_for_its_backoff() -> None:
    waiting = decide([view("a", failures=(Cause.CRASHED,), last_ended=99.5)], LIMITS, now=100.0)
    assert waiting.actions == ()
    assert waiting.next_look == pytest.approx(100.5)
    assert waiting.state is RunState.RUNNING


def test_a_failed_run_lets_what_runs_finish_and_starts_nothing_new() -> None:
    decision = decide([view("a", State.FAILED), view("b", State.RUNNING), view("c")], LIMITS, now=0.0)
    assert decision.actions == ()
    assert decision.state is RunState.RUNNING
    assert decide([view("a", State.FAILED), view("c")], LIMITS, now=0.0).state is RunState.FAILED


def test_cancel_stops_what_runs() -> None:
    decision = decide([view("a", State.RUNNING), view("b")], LIMITS, now=0.0, cancelled=True)
    assert decision.actions == (Action(ActionKind.STOP, "a"),)
    assert decision.state is RunState.CANCELLED


def test_a_suspended_run_stops_what_runs_starts_nothing_and_keeps_what_is_there() -> None:
    views = [view("a", State.RUNNING), view("b"), view("c", committed=True)]
    decision = decide(views, LIMITS, now=0.0, suspended=True)
    assert [(a.kind.value, a.node) for a in decision.actions] == [("reuse", "c"), ("stop", "a")]
    assert decision.state is RunState.SUSPENDED
    assert decide([view("a", State.DONE)], LIMITS, now=0.0, suspended=True).state is RunState.SUCCEEDED


def test_attempts_count_on_after_a_person_asked_to_try_again() -> None:
    (action,) = decide([view("a", earlier=2, failures=(Cause.CRASHED,))], LIMITS, now=1e9).actions
    assert (action.kind, action.attempt) == (ActionKind.LAUNCH, 4)


@st.composite
def worlds(draw: st.DrawFn) -> list[View]:
    views: list[View] = []
    for number in range(draw(st.integers(1, 7))):
        needs = draw(st.sets(st.sampled_from([v.id for v in views]), max_size=2)) if views else set()
        views.append(
            view(str(number), needs=" ".join(needs), processes=draw(st.integers(1, 3)), committed=draw(st.booleans()))
        )
    return views  # fmt: skip


@settings(max_examples=150)
@given(worlds(), st.randoms(use_true_random=False))
def test_every_run_ends_and_never_breaks_an_invariant(views: list[View], random: object) -> None:
    """A model of the executor: launched stages end well or badly, at random, until nothing is left to do."""
    world = {v.id: v for v in views}
    attempts: dict[str, int] = {}
    now, ended = 0.0, False
    for _ in range(400):
        now += 1000.0
        decision = decide(list(world.values()), LIMITS, now=now)
        assert decision == decide(list(world.values()), LIMITS, now=now)
        for action in decision.actions:
            target = world[action.node]
            assert target.state is State.WAITING
            assert all(world[need].state is State.DONE for need in target.needs)
            if action.kind is ActionKind.LAUNCH:
                assert action.attempt == attempts.get(action.node, 0) + 1
                attempts[action.node] = action.attempt
                world[action.node] = replace(target, state=State.RUNNING)
            else:
                end = State.DONE if action.kind is ActionKind.REUSE else State.FAILED
                world[action.node] = replace(target, state=end)
        busy = sum(min(v.processes, LIMITS.slots) for v in world.values() if v.state is State.RUNNING)
        assert busy <= LIMITS.slots
        if decision.state is not RunState.RUNNING:
            ended = True
            break
        for running in [v for v in world.values() if v.state is State.RUNNING]:
            cause = random.choice([None, None, *Cause])  # type: ignore[attr-defined]
            failed = replace(running, state=State.WAITING, failures=(*running.failures, cause), last_ended=now)
            world[running.id] = replace(running, state=State.DONE) if cause is None else failed
    assert ended
    again = decide(list(world.values()), LIMITS, now=now)
    assert again.actions == ()
    assert again.state is decision.state
