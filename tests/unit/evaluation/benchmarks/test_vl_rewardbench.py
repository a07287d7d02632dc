"""VL-RewardBench: both group maps, orders, votes and readings, by hand and on the benchmark's own pairs."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import score_verdicts
from unified_reward.evaluation.benchmarks.vl_rewardbench import (
    MAPS,
    group_of,
    read_official,
    read_verdict,
    shown_swapped,
)

REAL = Path(__file__).parents[5] / "shared" / "data" / "vl_rewardbench" / "data.json.gz"
ONE, TWO = "Overall Judgment: Answer 1 is better.", "Overall Judgment: Answer 2 is better."
IDS = ("hallucination_pair-1", "RLAIF-V_2", "mathverse_3", "wildvision-4")


def pair(item_id: str, ranking: tuple[int, int] = (0, 1)) -> dict[str, Any]:
    return {
        "id": item_id,
        "query": "?",
        "response": ["good " + item_id, "bad " + item_id],
        "human_ranking": list(ranking),
    }


def scored(tmp_path: Path, rows: list[dict[str, Any]], data: list[dict[str, Any]] | None) -> dict[str, Any]:
    (tmp_path / "v.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if data is not None:
        (tmp_path / "data.json").write_text(json.dumps(data))
    return score_verdicts("vl-rewardbench", tmp_path / "v.jsonl", tmp_path / "data.json" if data else None).as_json()


def test_groups_by_hand(tmp_path: Path) -> None:
    """Right: hallucination_pair and mathverse; RLAIF wrong; wildvision unparsed, which is wrong, but left out officially."""
    rows = [
        {"id": IDS[0], "output": ONE, "order": [0, 1]},
        {"id": IDS[1], "output": ONE, "order": [1, 0]},
        {"id": IDS[2], "output": TWO, "order": 1},
        {"id": IDS[3], "output": "Both are fine.", "order": 0},
    ]
    found = scored(tmp_path, rows, [pair(item_id) for item_id in IDS])
    assert (found["accuracy"], found["n"], found["unparsed"]) == (0.5, 4, 1)
    groups = {name: (one["accuracy"], one["n"], one["unparsed"]) for name, one in found["groups"].items()}
    assert groups == {
        "official/general": (0.0, 1, 1), "official/hallucination": (0.5, 2, 0), "official/reasoning": (1.0, 1, 0),
        "unified-reward/general": (0.5, 2, 1), "unified-reward/hallucination": (0.0, 1, 0),
        "unified-reward/reasoning": (1.0, 1, 0),
    }  # fmt: skip
    metrics = found["metrics"]
    assert metrics["macro"] == {"official": 0.5, "unified-reward": 0.5}
    official = metrics["as_published"]["official"]
    assert (official["overall"], official["left_out"], official["general"], official["macro"]) == (2 / 3, 1, None, None)
    assert metrics["as_published"]["unified-reward"]["overall"] == 0.5
    assert (metrics["missing"], metrics["order_assumed"]) == (1246, 0)


def test_the_second_response_may_be_the_better_one(tmp_path: Path) -> None:
    data = [pair("svit-1", (1, 0)), pair("svit-2", (1, 0))]
    rows = [{"id": "svit-1", "output": TWO, "order": 0}, {"id": "svit-2", "output": TWO, "order": 1}]
    assert scored(tmp_path, rows, data)["accuracy"] == 0.5


def test_votes_are_a_majority_with_unparsed_ones_among_them(tmp_path: Path) -> None:
    """a: 2 of 3 right; b: 1 right, 1 wrong, 1 unparsed is none; c: 2 wrong. With one vote a is wrong, b right, c unparsed."""
    data = [pair("mmmu_a"), pair("mmmu_b"), pair("mmmu_c")]
    rows = [
        {"id": "mmmu_a", "outputs": [TWO, ONE, ONE], "order": 0},
        {"id": "mmmu_b", "outputs": [ONE, TWO, "no"], "order": 0},
        {"id": "mmmu_c", "outputs": [None, TWO, TWO], "order": 0},
    ]
    found = scored(tmp_path, rows, data)
    assert (found["accuracy"], found["unparsed"]) == (1 / 3, 1)
    votes = {k: (one["overall"], one["left_out"]) for k, one in found["metrics"]["votes"].items()}
    assert votes == {"1": (1 / 2, 1), "3": (1 / 2, 1)}


def test_results_of_the_benchmarks_own_inference(tmp_path: Path) -> None:
    """Three samples of one pair, two of them right, in both orders; the second pair failed once."""

    def sample(item_id: str, text: str, number: int) -> dict[str, Any]:
        row = pair(item_id)
        return {**row, "ranking": row.pop("human_ranking"), "meta": {"filter_choice": text, "random_number": number}}

    rows = [sample("mmmu_a", ONE, 0), sample("mmmu_a", TWO, 1), sample("mmmu_a", ONE, 1), sample("RLHF-b", ONE, 1)]
    found = scored(tmp_path, rows, None)
    assert (found["accuracy"], found["n"]) == (0.5, 2)
    assert found["metrics"]["both_orders"] == {"n": 1, "consistent": 1.0}
    wrapped = scored(tmp_path, [{"0": row} for row in rows] + [{"0": None}], None)
    assert wrapped == found


@pytest.mark.parametrize(("text", "ours", "official"), [
    ("Overall Judgment:\n**Answer 1** is better.", 1, 1),
    ("Therefore, Answer 2 is the slightly better one", 2, 2),
    ("Therefore, Answer 2 wins", 2, None),
    ("Answer 2 is better.", 2, None),
    ("Answer 1 is better in detail. Answer 2 is better in truth.", None, None),
    ("Answer 1 is better in detail. Overall Judgment: Answer 2 is better.", 2, 2),
    ("<think>Answer 1 is better at first</think><answer>Answer 2 is better</answer>", 2, None),
    ("<think>Answer 1 is better</think><answer>neither</answer>", None, None),
    ("Overall Judgment: Answer 3 is better", None, 3),
    ("", None, None),
])  # fmt: skip
def test_readings(text: str, ours: int | None, official: int | None) -> None:
    assert (read_verdict(text), read_official(text)) == (ours, official)


def test_published_rules_keep_their_defects(tmp_path: Path) -> None:
    """Both sentences are right for the one script; an answer that was not shown agrees for the other. Ours takes neither."""
    rows = [
        {"id": "mmmu_a", "output": "Answer 1 is better. Answer 2 is better", "order": 0},
        {"id": "mmmu_b", "output": "Therefore Answer 3 is better", "order": 0},
    ]
    found = scored(tmp_path, rows, [pair("mmmu_a"), pair("mmmu_b")])
    assert (found["accuracy"], found["unparsed"]) == (0.0, 2)
    assert found["metrics"]["as_published"]["unified-reward"]["reasoning"] == 0.5
    assert (
        found["metrics"]["as_published"]["official"]["reasoning"],
        found["metrics"]["as_published"]["official"]["left_out"],
    ) == (1.0, 1)


def test_orders_not_given_are_those_of_the_published_scripts(tmp_path: Path) -> None:
    random.seed(0)
    assert shown_swapped(50) == [not random.random() < 0.5 for _ in range(50)]
    data = [pair(f"mmmu_{place}") for place in range(50)]
    rows = [
        {"id": f"mmmu_{place}", "output": TWO if swapped else ONE} for place, swapped in enumerate(shown_swapped(50))
    ]
    found = scored(tmp_path, rows[::-1], data)  # the order follows the place in the data, not in the file
    assert (found["accuracy"], found["metrics"]["order_assumed"]) == (1.0, 50)
    assert "seed 0" in " ".join(found["notes"])


def test_ids_that_stand_twice(tmp_path: Path) -> None:
    data = [pair("mmmu_a"), pair("mmmu_a", (1, 0))]
    row = {"id": "mmmu_a", "output": ONE, "order": 0}
    assert scored(tmp_path, [row, row], data)["accuracy"] == 0.5
    assert scored(tmp_path, [row | {"index": 1}, row | {"index": 0}, row | {"index": 0}], data)["accuracy"] == 0.5
    with pytest.raises(UserError, match="2 pairs of the data have this id"):
        scored(tmp_path, [row], data)


@pytest.mark.parametrize(("row", "words"), [
    ({"id": "other", "output": ONE}, "is not in the data"),
    ({"id": "mmmu_a"}, "it has none of outputs, model_output"),
    ({"id": "mmmu_a", "output": [1, 0]}, "output is no text"),
    ({"id": "mmmu_a", "outputs": []}, "outputs is no text"),
    ({"id": "mmmu_a", "output": ONE, "order": "CA"}, "order is 'CA'"),
    ({"idx": "9", "output": ONE}, "idx 9"),
    ({"id": "mmmu_a", "response": 1, "ranking": [2, 1], "meta": {}}, "human ranking is"),
    ({"id": "mmmu_a", "output": ONE, "index": 4}, "index 4"),
    ({"id": "mmmu_a", "ranking": [0, 1], "meta": {}}, "random_number"),
    ({"id": "mmmu_a", "ranking": [0, 1], "meta": {"random_number": [0]}}, "random_number"),
    ({"0": None, "id": "mmmu_a"}, "null"),
    ({"id": "mmmu_a", "ranking": [2, 1], "meta": {}}, "human ranking is"),
])  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=r"v\.jsonl") as caught:
        scored(tmp_path, [row], [pair("mmmu_a")])
    assert words in str(caught.value)


def test_data_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"v\.jsonl, line 1 .*none of meta, human_ranking, ranking.*with --data"):
        scored(tmp_path, [{"id": "mmmu_a", "output": ONE}], None)


def test_the_published_pairs(tmp_path: Path) -> None:
    """Group sizes of both definitions; who always says what is right is right, and always "Answer 1" is near one half."""
    if not REAL.is_file():
        pytest.skip("the benchmark's pairs are not here (shared/data/vl_rewardbench)")
    data = json.loads(gzip.decompress(REAL.read_bytes()))
    sizes = {name: Counter(group_of(one["id"], chosen) for one in data) for name, chosen in MAPS.items()}
    assert sizes == {"official": {"general": 183, "hallucination": 749, "reasoning": 318},
                     "unified-reward": {"general": 631, "hallucination": 301, "reasoning": 318}}  # fmt: skip
    swaps = shown_swapped(len(data))
    right = [{"id": one["id"], "output": TWO if swap != (one["human_ranking"][0] == 1) else ONE}
             for one, swap in zip(data, swaps, strict=True)]  # fmt: skip
    found = scored(tmp_path, right, data)
    assert (found["accuracy"], found["n"], found["metrics"]["missing"]) == (1.0, 1250, 0)
    assert {name: one["n"] for name, one in found["groups"].items()} == {
        f"{name}/{group}": count for name, groups in sizes.items() for group, count in groups.items()
    }
    assert found["metrics"]["as_published"]["official"]["macro"] == 1.0
    always = scored(tmp_path, [row | {"output": ONE} for row in right], data)
    firsts = sum(swap == (one["human_ranking"][0] == 1) for one, swap in zip(data, swaps, strict=True))
    assert always["accuracy"] == firsts / 1250
    assert 0.45 < always["accuracy"] < 0.55


def test_rows_that_bring_the_right_sentence_need_no_data(tmp_path: Path) -> None:
    path = tmp_path / "v.jsonl"
    rows = [{"id": "mmmu_1", "answer": "Answer 2 is better", "model_output": TWO},
            {"id": "mmmu_2", "answer": "Answer 1 is better", "model_output": TWO}]  # fmt: skip
    path.write_text("\n".join(map(json.dumps, rows)))
    found = score_verdicts("vl-rewardbench", path)
    assert (found.overall.accuracy, found.groups["official/reasoning"].n) == (0.5, 2)


def test_scores_are_of_the_responses_in_the_data(tmp_path: Path) -> None:
    data = [pair("mmmu_1"), pair("mmmu_2", (1, 0)), pair("mmmu_3"), pair("mmmu_4")]
    rows = [{"id": "mmmu_1", "scores": [0.9, 0.1]}, {"id": "mmmu_2", "scores": [0.9, 0.1]},
            {"id": "mmmu_3", "scores": [0.5, 0.5]}, {"id": "mmmu_4", "score_A": None, "score_B": 1}]  # fmt: skip
    (tmp_path / "d.json").write_text(json.dumps(data))
    (tmp_path / "v.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = score_verdicts("vl-rewardbench", tmp_path / "v.jsonl", tmp_path / "d.json")
    assert (found.overall.accuracy, found.overall.unparsed) == (0.25, 2)


def test_rows_of_the_data_with_an_answer_need_no_data(tmp_path: Path) -> None:
    """Two items of one id, the second asked in reverse and three times; without an order, that of the published scripts."""
    twin = pair("mmmu_1") | {"query": "another"}
    rows = [pair("mmmu_1") | {"output": ONE, "order": [0, 1]}] + [
        twin | {"output": said, "order": 1} for said in (ONE, TWO, TWO)
    ]
    found = scored(tmp_path, rows, None)
    assert (found["accuracy"], found["n"], found["metrics"]["order_assumed"]) == (1.0, 2, 0)
    items = [pair(f"mmmu_{number}") for number in range(30)]
    shown = [one | {"response": TWO if swap else ONE} for one, swap in zip(items, shown_swapped(30), strict=True)]
    by_data = [
        {"idx": str(number), "problem": "?", "model_output": row["response"]} for number, row in enumerate(shown)
    ]
    assert scored(tmp_path, by_data[::-1], items)["accuracy"] == 1.0
    assert scored(tmp_path, [{"text": row["response"], "pred": [0, 1]} for row in shown], items)["accuracy"] == 1.0
    assert (
        scored(tmp_path, [one | {"output": row["response"]} for one, row in zip(items, shown, strict=True)], None)[
            "accuracy"
        ]
        == 1.0
    )


def test_logs_of_lmms_eval(tmp_path: Path) -> None:
    """Its order is reversed where the two responses have an odd number of characters together."""
    even, odd = (pair("RLAIF_1") | {"response": responses} for responses in (["ab", "cd"], ["ab", "cde"]))
    rows = [
        {"doc_id": 0, "doc": even, "resps": [[ONE]], "filtered_resps": [ONE]},
        {"doc_id": 1, "doc": odd, "resps": [[TWO]]},
    ]
    found = scored(tmp_path, rows, None)
    assert (found["accuracy"], found["n"]) == (1.0, 2)
    assert found["metrics"]["as_published"]["official"]["overall"] == 1.0
