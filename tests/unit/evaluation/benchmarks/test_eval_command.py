"""`unified-reward eval`: one JSON object, or a table beside published rows; faults end with one line and exit status 2."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from unified_reward.cli import main
from unified_reward.cli.console import console, output
from unified_reward.cli.evaluating import published
from unified_reward.evaluation.benchmarks import BENCHMARKS

ROWS = '{"idx": 0, "response": "[[A>B]]", "human_vote": "leftvote"}\n{"idx": 1, "response": "?", "human_vote": "rightvote"}\n'


def called(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    console.cache_clear()
    output.cache_clear()
    monkeypatch.setattr(sys, "argv", ["unified-reward", "eval", *words])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture
def verdicts(tmp_path: Path) -> str:
    (tmp_path / "mine.jsonl").write_text(ROWS)
    return str(tmp_path / "mine.jsonl")


def test_json_is_all_there_is(
    verdicts: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "genai-bench-video", "--verdicts", verdicts, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"benchmark", "accuracy", "interval", "n", "unparsed", "groups", "metrics", "notes"}
    assert (found["benchmark"], found["accuracy"], found["n"], found["unparsed"]) == ("genai-bench-video", 0.5, 2, 1)
    assert len(found["interval"]) == 2


def test_the_table_stands_beside_published_rows(
    verdicts: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "genai-bench-image", "--verdicts", verdicts) == 0
    shown = capsys.readouterr()
    rows = [line.split() for line in shown.out.splitlines()]
    assert ["mine.jsonl", "50.00"] in rows
    assert ["gpt4o", "45.59"] in rows
    assert "2 items" in shown.err


def test_faults_are_one_line(
    verdicts: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(monkeypatch, "genai-bench-vidoe", "--verdicts", verdicts, "--json") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1
    assert "genai-bench-video" in shown.err


def test_published_rows_fill_their_columns() -> None:
    for benchmark in BENCHMARKS:
        for table in published(benchmark):
            assert table["source"]
            assert all(len(row) == len(table["columns"]) for row in table["rows"].values()), table["source"]


def test_both_readings_stand_beside_published_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two items the first is right by all rules, the second unparsed: wrong for us, left out by the benchmark's rules."""
    results = [
        {"id": f"mmmu_{place}", "query": "?", "response": ["a", "b"], "ranking": [0, 1],
         "meta": {"filter_choice": text, "random_number": 0}}
        for place, text in enumerate(["Overall Judgment: Answer 1 is better", "Neither."])
    ]  # fmt: skip
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, results)))
    assert called(monkeypatch, "vl-rewardbench", "--verdicts", str(tmp_path / "mine.jsonl")) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["mine.jsonl", "-", "-", "50.00", "50.00", "-"] in rows
    assert ["mine.jsonl,", "their", "rules", "-", "-", "100.00", "100.00", "-"] in rows
