"""GenAI-Bench: labels as the published scorer reads them, accuracies by hand, and the published numbers from real files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import score_verdicts
from unified_reward.evaluation.benchmarks.genai_bench import read_label

REAL = Path(__file__).parents[5] / "shared" / "data" / "genai_bench"


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows(*pairs: tuple[str, str | None]) -> list[dict[str, Any]]:
    return [{"idx": i, "response": text, "human_vote": human} for i, (human, text) in enumerate(pairs)]


@pytest.mark.parametrize(("benchmark", "name", "percent", "tau", "diff", "n", "unparsed"), [
    ("genai-bench-image", "image_generation_gpt4o", 45.59, 0.4795, 0.5544, 1735, 11),
    ("genai-bench-video", "video_generation_gpt4o", 48.46, 0.4977, 0.6886, 1069, 0),
])  # fmt: skip
def test_published_numbers(
    benchmark: str, name: str, percent: float, tau: float, diff: float, n: int, unparsed: int
) -> None:
    path = REAL / f"{name}.jsonl.gz"
    if not path.is_file():
        pytest.skip("the benchmark's result files are not here (shared/data/genai_bench)")
    found = score_verdicts(benchmark, path).as_json()
    assert round(100 * found["accuracy"], 2) == percent
    assert (round(found["metrics"]["tau"], 4), round(found["metrics"]["diff"], 4)) == (tau, diff)
    assert (found["n"], found["unparsed"], found["metrics"]["missing"], found["notes"]) == (n, unparsed, 0, [])
    stored = [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]
    assert [read_label(row["response"]) for row in stored] == [row["model_vote"] for row in stored]


@pytest.mark.parametrize(("text", "label"), [
    ("so [[A>B]].", "[[A>B]]"),
    ("**[[B>A]]**\nor [[A>B]]", "[[B>A]]"),  # the first line that has one
    ("[[A>B]] or [[B>A]]", None),  # two on a line are none
    ("[[a>b]]", None),
    ("[[A > B]]", None),
    ("[[Tie]]", None),
    ("[[A=B]]", "[[A=B]]"),
    ("A>B", None),
    ("", None),
    (None, None),
])  # fmt: skip
def test_labels_are_those_of_the_published_scorer(text: str | None, label: str | None) -> None:
    assert read_label(text) == label


def test_accuracies_by_hand(tmp_path: Path) -> None:
    """Nine items, 5 right 4-way. 3-way: the good and the bad tie are one, so 6; of the five decided, 2."""
    judged = rows(
        ("leftvote", "x\n[[A>B]]"), ("leftvote", "[[A=B=Good]]"), ("leftvote", None),
        ("rightvote", "[[B>>A]]"), ("rightvote", "both [[A>B]] and [[B>A]]"),
        ("tievote", "[[A=B=Good]]"), ("tievote", "[[A=B=Bad]]"),
        ("bothbad_vote", "[[A=B]]"), ("bothbad_vote", "[[A=B=Bad]]"),
    )  # fmt: skip
    found = score_verdicts("genai-bench-edit", written(tmp_path / "v.jsonl", judged)).as_json()
    assert (found["accuracy"], found["n"], found["unparsed"]) == (5 / 9, 9, 2)
    assert (found["metrics"]["tau"], found["metrics"]["diff"], found["metrics"]["missing"]) == (6 / 9, 2 / 5, 910)
    assert found["metrics"]["unread"] == [{"at": "line 3", "answer": ""},
                                          {"at": "line 5", "answer": "both [[A>B]] and [[B>A]]"}]  # fmt: skip
    by_vote = {name: (one["accuracy"], one["n"], one["unparsed"]) for name, one in found["groups"].items()}
    assert by_vote == {"leftvote": (1 / 3, 3, 1), "rightvote": (1 / 2, 2, 1), "tievote": (1 / 2, 2, 0),
                       "bothbad_vote": (1.0, 2, 0)}  # fmt: skip
    assert found["interval"][0] <= 5 / 9 <= found["interval"][1]
    assert "do not compare" in found["notes"][0]


def test_layouts_are_equal(tmp_path: Path) -> None:
    """JSONL, its gzip, one array, stored votes without answers, and a file that was written twice."""
    judged = rows(("leftvote", "[[A>B]]"), ("rightvote", "[[A>B]]"))
    lines = "".join(json.dumps(row) + "\n" for row in judged)
    votes = [{"idx": row["idx"], "model_vote": row["response"], "human_vote": row["human_vote"]} for row in judged]
    files = {"a.jsonl": lines.encode(), "b.jsonl.gz": gzip.compress(lines.encode()), "c.json": json.dumps(judged).encode(),
             "d.json": json.dumps(votes).encode(), "e.jsonl": ("\n" + lines + lines).encode()}  # fmt: skip
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        found = score_verdicts("genai-bench-image", tmp_path / name)
        assert (found.overall.accuracy, found.overall.n) == (0.5, 2), name
        assert found.metrics["repeated"] == (2 if name == "e.jsonl" else 0)


@pytest.mark.parametrize(("content", "words"), [
    ('{"response": "[[A>B]]", "human_vote": "leftvote"}\n{"response": "x"}\n', ["line 2", "human_vote", "leftvote"]),
    ('{"idx": 0, "human_vote": "leftvote"}\n', ["line 1", "response"]),
    ('{"idx": 0, "response": 3, "human_vote": "leftvote"}\n', ["line 1", "no text"]),
    ('\n{"idx": 0,\n', ["line 2", "no JSON"]),
    ("[1]", ["entry 1", "no JSON object"]),
    ('[{"idx": 0},\n', ["breaks off"]),
    ('{"response": "[[A>B]]", "human_vote": ["leftvote"]}', ["line 1", "human_vote"]),
    ("", ["empty"]),
    ("[]", ["empty"]),
])  # fmt: skip
def test_a_wrong_row_is_named(tmp_path: Path, content: str, words: list[str]) -> None:
    (tmp_path / "v.jsonl").write_text(content)
    with pytest.raises(UserError) as caught:
        score_verdicts("genai-bench-image", tmp_path / "v.jsonl")
    assert all(word in str(caught.value) for word in [*words, "v.jsonl"]), str(caught.value)


def test_wrong_names_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Do you mean genai-bench-image"):
        score_verdicts("genai_bench_imag", tmp_path / "v.jsonl")
    with pytest.raises(UserError, match=r"--verdicts is .*no such file"):
        score_verdicts("genai-bench-image", tmp_path / "v.jsonl")
    path = written(tmp_path / "v.jsonl", rows(("leftvote", "[[A>B]]")))
    unlabelled = written(tmp_path / "u.jsonl", [{"idx": 7, "response": "[[A>B]]"}])
    with pytest.raises(UserError, match=r"line 1 .*no row of .* is this item"):
        score_verdicts("genai-bench-image", unlabelled, path)
    (tmp_path / "broken.gz").write_bytes(gzip.compress(b"{}")[:-4])
    with pytest.raises(UserError, match="cannot be read"):
        score_verdicts("genai-bench-image", tmp_path / "broken.gz")


def test_answers_in_sentences_are_read_three_ways(tmp_path: Path) -> None:
    """As UnifiedReward's scripts write them: `answer` is right in the order shown, numbers start again with each batch."""
    said = [{"idx": "0", "problem": "p", "answer": "Image 1 is better", "model_output": "Image 1 is better than Image 2."},
            {"idx": "0", "problem": "q", "answer": "Image 2 is better", "model_output": "Image 1 is better."}]  # fmt: skip
    found = score_verdicts("genai-bench-image", written(tmp_path / "v.jsonl", said)).as_json()
    assert (found["accuracy"], found["n"], found["metrics"]["diff"]) == (0.5, 2, 0.5)
    assert any("3-way" in note for note in found["notes"])
    own = rows(("leftvote", "Image 1 is better."), ("rightvote", "B"))  # the benchmark's layout: only its labels count
    found = score_verdicts("genai-bench-image", written(tmp_path / "o.jsonl", own)).as_json()
    assert (found["accuracy"], found["unparsed"]) == (0.0, 2)
    votes = [{"idx": 0, "vote_type": "bothbad_vote", "output": "Both images are equally good."},
             {"idx": 1, "vote_type": "rightvote", "output": "Image 1 is better.", "swapped": True},
             {"idx": 2, "vote_type": "leftvote", "output": "?"}]  # fmt: skip
    found = score_verdicts("genai-bench-image", written(tmp_path / "w.jsonl", votes)).as_json()
    assert (found["accuracy"], found["n"], found["unparsed"]) == (2 / 3, 3, 1)


def test_scores_are_tie_calibrated(tmp_path: Path) -> None:
    """Differences .5, .1, -.2, missing for left, tie, right, left: at e = .1 three of four are right."""
    scored = [{"idx": 0, "vote_type": "leftvote", "score_left": 1.0, "score_right": 0.5},
              {"idx": 1, "vote_type": "bothbad_vote", "score_left": 0.35, "score_right": 0.25},
              {"idx": 2, "vote_type": "rightvote", "scores": [0.1, 0.3]},
              {"idx": 3, "vote_type": "leftvote", "score_left": None, "score_right": 0.3}]  # fmt: skip
    found = score_verdicts("genai-bench-video", written(tmp_path / "v.jsonl", scored)).as_json()
    assert (found["accuracy"], found["n"], found["unparsed"]) == (3 / 4, 4, 1)
    assert (found["metrics"]["diff"], found["metrics"]["scores"]["without_ties"]) == (2 / 3, 2 / 3)
    assert found["metrics"]["scores"]["epsilon"] == pytest.approx(0.1)


def test_votes_are_taken_from_the_data_where_a_file_brings_none(tmp_path: Path) -> None:
    data = written(
        tmp_path / "d.jsonl", [{"id": name, "vote_type": vote} for name, vote in (("x", "leftvote"), ("y", "tievote"))]
    )
    for own in ([{"id": "y", "output": "Both are equally good"}, {"id": "x", "output": "Video 2 is better"}],
                [{"idx": 1, "output": "Both are equally good"}, {"idx": "0", "output": "Video 2 is better"}],
                [{"output": "Video 2 is better"}, {"output": "Both are equally good"}],
                [{"output": "Video 2 is better", "human_vote": "LeftVote"}, {"output": "Both are equally good"}]):  # fmt: skip
        found = score_verdicts("genai-bench-video", written(tmp_path / "v.jsonl", own), data)
        assert (found.overall.accuracy, found.groups["tievote"].accuracy, found.overall.n) == (0.5, 1.0, 2)
