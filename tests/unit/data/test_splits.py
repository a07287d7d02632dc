"""A held-out split never parts what shares a prompt or a medium, however records hang together."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_reward.data.splits import GENERIC, held_out, leak_keys
from unified_reward.records import JudgeRecord, Task

KEYS = st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from("0123456789")), min_size=2, max_size=40)
SHARES = st.floats(0.05, 0.95)


def record(prompt: str, media: list[str], task: Task = Task.IMAGE_GENERATION_PAIR) -> JudgeRecord:
    return JudgeRecord(id="", task=task, split="", source="", prompt=prompt, media=media)


def sides(keys: list[tuple[str, str]], tests: list[bool]) -> tuple[set[str], set[str]]:
    return (
        {key for own, test in zip(keys, tests, strict=True) if test is side for key in own} for side in (True, False)
    )  # type: ignore[return-value]


@given(KEYS, SHARES, st.integers(0, 9))
def test_nothing_is_on_both_sides(keys: list[tuple[str, str]], share: float, seed: int) -> None:
    try:
        tests = held_out(keys, share, seed)
    except ValueError:  # all hang together
        return
    test, train = sides(keys, tests)
    assert not test & train
    assert 0 < sum(tests) < len(tests)
    assert tests == held_out(keys, share, seed)


@given(KEYS, SHARES, st.data())
def test_records_that_name_a_split_draw_those_that_hang_with_them(
    keys: list[tuple[str, str]], share: float, data: st.DataObject
) -> None:
    named = data.draw(st.lists(st.sampled_from(["", "", "", "train", "test"]), min_size=len(keys), max_size=len(keys)))
    try:
        tests = held_out(keys, share, 0, named)
    except ValueError:
        return
    assert all(test is (split == "test") for test, split in zip(tests, named, strict=True) if split)
    test, train = sides(keys, tests)
    assert not test & train


def test_named_splits_that_leak_are_refused() -> None:
    with pytest.raises(ValueError, match="records 1 and 2 share a prompt or a medium, but one is named train"):
        held_out([("p", "a"), ("q", "a"), ("r", "b")], 0.5, named=["train", "test", ""])


def test_the_share_is_kept_and_whole_sets_that_hang_together_are_refused() -> None:
    keys = [("p", "m")] * 60 + [(f"p{i}", f"m{i}") for i in range(40)]
    assert sum(held_out(keys, 0.25)) == 25
    with pytest.raises(ValueError, match="leaking"):
        held_out([("a", "b"), ("b", "c")], 0.5)


def test_prompts_are_one_whatever_their_case_and_spacing() -> None:
    first, second = leak_keys([record("A cat,\n running", ["a"]), record("a  CAT, running ", ["b"])])
    assert set(first) & set(second)


def test_a_question_asked_of_many_media_does_not_tie_them_together() -> None:
    task = Task.IMAGE_UNDERSTANDING_POINT
    few = leak_keys([record("Why?", [str(i)], task) for i in range(GENERIC)])
    many = leak_keys([record("Describe it.", [str(i)], task) for i in range(GENERIC + 1)])
    assert set(few[0]) & set(few[1])
    assert not set(many[0]) & set(many[1])
    assert many[0] == (("medium", "0"),)
