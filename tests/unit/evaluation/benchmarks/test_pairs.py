"""Benchmarks of pairs: words, scores, joins, orders and ties, by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import score_verdicts, tie_calibrated_accuracy

ONE, TWO, SAME = "Video 1 is better.", "Video 2 is better.", "Both videos are equally good."


def lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def scored(benchmark: str, verdicts: Path, data: Path | None = None) -> dict[str, Any]:
    return score_verdicts(benchmark, verdicts, data).as_json()


def test_words_with_ties_and_unread_by_hand(tmp_path: Path) -> None:
    """Six pairs: A right, A said tie, B right, B unread, same right, same said A. 3 of 6; without ties 2 of 4."""
    said = [("A", ONE), ("A", SAME), ("B", TWO), ("B", "no idea"), ("same", SAME), ("same", ONE)]
    rows = [{"Overall": gold, "output": text} for gold, text in said]
    found = scored("videogen-rewardbench", lines(tmp_path / "v.jsonl", rows))
    assert (found["accuracy"], found["n"], found["unparsed"]) == (3 / 6, 6, 1)
    assert (found["metrics"]["with_ties"], found["metrics"]["without_ties"]) == (3 / 6, 2 / 4)
    by_label = {name: (one["accuracy"], one["n"], one["unparsed"]) for name, one in found["groups"].items()}
    assert by_label == {"label/first": (0.5, 2, 0), "label/second": (0.5, 2, 1), "label/tie": (0.5, 2, 0)}
    assert found["metrics"]["macro"] == 0.5
    assert found["metrics"]["first_place_rate"] == 2 / 3  # of three decided votes
    assert found["metrics"]["unread"] == [{"at": "line 4", "answer": "no idea"}]
    # UnifiedReward's scripts take what they cannot read as a tie, here to no effect
    assert found["metrics"]["as_published"]["unified-reward"] == {"with_ties": 3 / 6, "without_ties": 2 / 4}
    assert "26,500" in found["notes"][0]


def test_a_swapped_row_names_the_item_of_the_data(tmp_path: Path) -> None:
    data = table(tmp_path / "d.csv", [
        {"path_A": f"{n}a.mp4", "path_B": f"{n}b.mp4", "prompt": "p", "Overall": gold, "VQ": gold, "MQ": "A", "TA": "A"}
        for n, gold in enumerate(("A", "B"))
    ])  # fmt: skip
    rows = [
        {"path_A": "1a.mp4", "path_B": "1b.mp4", "model_output": ONE, "swapped": True},
        {"path_A": "0a.mp4", "path_B": "0b.mp4", "model_output": ONE, "swapped": False},
    ]
    found = scored("videogen-rewardbench", lines(tmp_path / "v.jsonl", rows), data)
    assert found["accuracy"] == 1.0
    assert found["metrics"]["first_place_rate"] == 1.0
    assert found["notes"] == ["2 items; the published rows are of about 26,500, so they do not compare."]


def test_votes_of_one_item_and_both_orders(tmp_path: Path) -> None:
    """Item 0: one, one, two -> first. Item 1: one of two: no majority, and the orders contradict each other."""
    rows = [
        {"id": "0", "label": "A", "outputs": [ONE, ONE, TWO]},
        {"id": "1", "label": "A", "output": ONE, "order": [0, 1]},
        {"id": "1", "label": "A", "output": ONE, "order": [1, 0]},
    ]
    found = scored("react-video", lines(tmp_path / "v.jsonl", rows))
    assert (found["accuracy"], found["n"], found["unparsed"]) == (0.5, 2, 1)
    assert found["metrics"]["both_orders"] == {"n": 1, "consistent": 0.0}


def test_rows_of_unified_rewards_client(tmp_path: Path) -> None:
    """Its numbers start again in each batch, `answer` is right in the order shown, and a failed request is unread."""
    rows = [
        {"idx": "0", "problem": "p0", "answer": "Video 1 is better", "model_output": ONE, "success": True},
        {"idx": "0", "problem": "p1", "answer": "Video 2 is better", "model_output": ONE, "success": True},
        {"idx": "1", "question": "p2", "answer": "Video 2 is better", "error": "timeout", "success": False},
    ]
    found = scored("videogen-rewardbench", lines(tmp_path / "v.jsonl", rows))
    assert (found["accuracy"], found["n"], found["unparsed"]) == (1 / 3, 3, 1)


def test_an_answer_beside_a_label_is_the_judges(tmp_path: Path) -> None:
    rows = [{"label": "A", "answer": ONE}, {"label": "A", "answer": TWO}]
    assert scored("react-video", lines(tmp_path / "v.jsonl", rows))["accuracy"] == 0.5


def test_scores_as_video_align_writes_them(tmp_path: Path) -> None:
    """The example in VideoAlign's calc_accuracy.py, whose output is 0.666... with ties and 0.833... without."""
    gold = ["A", "B", "same"] * 3
    a, b = [0.9, -0.7, 0.1, 0.8, -0.6, 0.2, 0.7, -0.5, 0.3], [0.1, -0.8, 0.5, 0.5, -0.3, 0.3, 0.4, -0.4, 0.4]
    rows = [
        {"path_A": f"{n}a", "path_B": f"{n}b", "Overall": label, "VQ": label, "MQ": "A", "TA": "",
         "reward_Overall_A": a[n], "reward_Overall_B": b[n], "reward_VQ_A": b[n], "reward_VQ_B": a[n],
         "reward_MQ_A": 1, "reward_MQ_B": 0, "reward_TA_A": 1, "reward_TA_B": 0}
        for n, label in enumerate(gold)
    ]  # fmt: skip
    found = scored("videogen-rewardbench", table(tmp_path / "out_pair.csv", rows))
    overall = found["metrics"]["scores"]["Overall"]
    assert (found["accuracy"], overall["with_ties"], overall["without_ties"]) == (6 / 9, 6 / 9, 5 / 6)
    assert found["metrics"]["scores"]["VQ"]["without_ties"] == 1 / 6
    assert found["groups"]["aspect/MQ"]["accuracy"] == 1.0
    assert "aspect/TA" not in found["groups"]  # no label of it
    assert "as_published" not in found["metrics"]


def test_a_missing_score_is_unread_and_wrong(tmp_path: Path) -> None:
    rows = [{"path1": "a", "path2": "b", "reward_1": 2.0, "reward_2": 1.0},
            {"path1": "c", "path2": "d", "reward_1": None, "reward_2": 1.0},
            {"path1": "e", "path2": "f", "reward_1": 1.0, "reward_2": 1.0}]  # fmt: skip
    found = scored("hpdv3", lines(tmp_path / "v.jsonl", rows))
    assert (found["accuracy"], found["n"], found["unparsed"]) == (1 / 3, 3, 1)


def test_hpdv3_in_words_needs_the_order_shown(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"path1": f"{n}", "path2": f"{n}x", "output": "Image 1 is better"} for n in range(2)]
    found = scored("hpdv3", lines(tmp_path / "v.jsonl", rows))
    assert found["accuracy"] == 1.0
    assert "always names one place" in found["notes"][0]
    rows[0]["swapped"] = True
    found = scored("hpdv3", lines(tmp_path / "v.jsonl", rows))
    assert (found["accuracy"], found["notes"]) == (0.5, [])


def test_sharegptvideo_joins_by_place(tmp_path: Path) -> None:
    """Its data have no ids. 1000 items are the published number, so a note tells that this is not it."""
    data = tmp_path / "data.json"
    data.write_text(json.dumps([
        {"prompt": "q", "images": ["f1"], "responses": ["x", "y"], "answer": "Response 1 is better than Response 2."},
        {"prompt": "q", "images": ["f1"], "responses": ["x", "y"], "answer": "Response 2 is better than Response 1."},
    ]))  # fmt: skip
    said = ["Accuracy: Answer 2 is better. Overall Judgment: Answer 1 is better than Answer 2. Good.", ""]
    found = scored("sharegptvideo-1k", lines(tmp_path / "v.jsonl", [{"output": text} for text in said]), data)
    assert (found["accuracy"], found["n"], found["unparsed"]) == (0.5, 2, 1)
    with pytest.raises(UserError, match=r"no row of .*data\.json is this item"):
        scored("sharegptvideo-1k", lines(tmp_path / "v.jsonl", [{"output": "x"}]), data)


def test_ties_are_called_at_the_best_threshold() -> None:
    """Against the definition, tried at every threshold."""
    draw = np.random.default_rng(3)
    for _ in range(20):
        difference, gold = draw.integers(-4, 5, 30) / 4, draw.integers(-1, 2, 30)
        tried = [
            np.mean(np.where(np.abs(difference) <= e, 0, np.sign(difference)) == gold) for e in (0, *abs(difference))
        ]
        assert tie_calibrated_accuracy(difference, gold).accuracy == pytest.approx(max(tried))


@pytest.mark.parametrize(("row", "words"), [
    ({"output": ONE}, "no field says which is better"),
    ({"Overall": "C++", "output": ONE}, "Overall is 'C++'"),
    ({"Overall": "A"}, "neither an answer nor scores"),
    ({"Overall": "A", "score_A": "high", "score_B": 1}, "score_A is no number"),
    ({"Overall": "A", "output": [[]]}, "output is no text"),
    ({"Overall": "A", "output": ONE, "swapped": "maybe"}, "swapped is 'maybe'"),
])  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=r"v\.jsonl, line 1") as caught:
        scored("videogen-rewardbench", lines(tmp_path / "v.jsonl", [row]))
    assert words in str(caught.value)


def test_an_empty_field_of_a_table_is_an_empty_answer(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("path_A,path_B,Overall,output,score_A\na,b,A,Video 1 is better,\nc,d,A,,\n")
    found = score_verdicts("videogen-rewardbench", tmp_path / "v.csv")
    assert (found.overall.accuracy, found.overall.n, found.overall.unparsed) == (0.5, 2, 1)


def test_scores_of_single_items_are_joined_with_the_pairs(tmp_path: Path) -> None:
    """VideoAlign's out_single.csv; d.mp4 is not scored, and the last pair not at all."""
    (tmp_path / "d.csv").write_text(
        "path_A,path_B,prompt,VQ,Overall\na.mp4,b.mp4,p,A,A\nb.mp4,a.mp4,p,B,A\na.mp4,d.mp4,p,A,A\nx.mp4,y.mp4,p,A,A\n"
    )
    (tmp_path / "v.csv").write_text("path,prompt,reward_VQ,reward_Overall\na.mp4,p,1,2.5\nb.mp4,p,0.5,1.5\n")
    found = score_verdicts("videogen-rewardbench", tmp_path / "v.csv", tmp_path / "d.csv")
    assert (found.overall.accuracy, found.overall.n, found.overall.unparsed) == (1 / 3, 3, 1)
    assert (found.groups["aspect/VQ"].accuracy, found.metrics["missing"]) == (2 / 3, 1)
    (tmp_path / "other.csv").write_text("path,reward_Overall\nz.mp4,1\n")
    with pytest.raises(UserError, match=r"other\.csv, line 2 .*its path is in no pair"):
        score_verdicts("videogen-rewardbench", tmp_path / "other.csv", tmp_path / "d.csv")


def test_hpdv3_rows_carry_their_pair_or_name_it(tmp_path: Path) -> None:
    rows = [{"reward_1": 2.0, "reward_2": 1.0, "info": {"path1": "a", "path2": "b", "prompt": "p"}},
            {"reward_1": 1.0, "reward_2": 1.0, "info": {"path1": "a", "path2": "c", "prompt": "p"}}]  # fmt: skip
    assert scored("hpdv3", lines(tmp_path / "v.jsonl", rows))["accuracy"] == 0.5
    with pytest.raises(UserError, match=r"no field says which is better \(path1, path2\)"):
        scored("hpdv3", lines(tmp_path / "v.jsonl", [{"id": 1, "output": ONE}]))


@pytest.mark.parametrize("output", [
    [["Video 1 is better"]], {"role": "assistant", "content": "Video 1 is better"}, {"winner": "A"},
])  # fmt: skip
def test_answers_however_they_are_nested(tmp_path: Path, output: object) -> None:
    verdicts = lines(tmp_path / "v.jsonl", [{"Overall": "A", "output": output}])
    assert scored("videogen-rewardbench", verdicts)["accuracy"] == 1.0


def test_rows_with_an_empty_label_are_counted_apart(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text(
        "path_A,path_B,VQ,Overall,output\na,b,A,A,Video 1 is better\nc,d,B,,Video 1 is better\n"
    )
    found = scored("videogen-rewardbench", tmp_path / "v.csv")
    assert (found["accuracy"], found["n"], found["metrics"]["unlabelled"]) == (1.0, 1, 1)
    assert "1 rows have an empty label and are not counted." in found["notes"]
    with pytest.raises(UserError, match=r"line 1 .*Overall is None"):
        scored("videogen-rewardbench", lines(tmp_path / "v.jsonl", [{"Overall": None, "output": ONE}]))
