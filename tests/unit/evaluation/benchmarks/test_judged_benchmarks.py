"""Every protocol from end to end, in the shapes world: a judge that knows the labels is always right, whatever the orders; one that
always names the first place is as right as its protocol lets it be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks import score_verdicts
from unified_reward.evaluation.benchmarks.files import files_in, read_rows
from unified_reward.evaluation.benchmarks.items import MODALITY, read_questions
from unified_reward.evaluation.benchmarks.sides import Side, read_label
from unified_reward.judge import Pack, Query, load_pack
from unified_reward.judge.verdict import PairVerdict, PointVerdict
from unified_reward.records import Choice
from unified_reward.shapes import benchmarks as shapes
from unified_reward.stages.benchmark import MediaFolder, judge_benchmark, write_rows

COUNT = 24
NEEDS_DATA = {"vl-rewardbench", "imagereward", "hpdv2", "mmrb2"}
TIES = {"genai-bench-image", "genai-bench-edit", "genai-bench-video", "videogen-rewardbench", "react-video"}


@dataclass
class KnowsAll:
    """sides: (prompt, media, answers) -> what people say. scores: (prompt, medium) -> score."""

    sides: dict[tuple[object, ...], Side] = field(default_factory=dict)
    scores: dict[tuple[str, str], float] = field(default_factory=dict)
    pack: Pack = field(default_factory=lambda: load_pack("shapes"))

    def compare(self, queries: Sequence[Query], progress: object = None) -> list[PairVerdict]:  # noqa: ARG002
        return [self._verdict(self.sides[query.prompt, query.media, query.answers]) for query in queries]

    def score(self, queries: Sequence[Query], progress: object = None) -> list[PointVerdict]:  # noqa: ARG002
        return [PointVerdict(self.scores.get((query.prompt, query.media[-1]), 3.0)) for query in queries]

    def _verdict(self, side: Side) -> PairVerdict:
        if side is Side.TIE:  # its two orders contradict each other
            return PairVerdict(Choice.TIE, 0.5, 0.9, 0.1)
        p = 0.9 if side is Side.FIRST else 0.1
        return PairVerdict(Choice.FIRST if side is Side.FIRST else Choice.SECOND, p, p, p)


class NamesThePlace(KnowsAll):
    def compare(self, queries: Sequence[Query], progress: object = None) -> list[PairVerdict]:  # noqa: ARG002
        return [PairVerdict(Choice.TIE, 0.5, 0.9, 0.1) for _ in queries]


def informed(kind: type[KnowsAll], benchmark: str, folder: Path, data: Path) -> KnowsAll:
    judge = kind()
    for file in files_in(data, "--data"):
        for row in read_rows(file, "--data"):
            _tell(judge, benchmark, folder, row.values)
    return judge


def _tell(judge: KnowsAll, benchmark: str, folder: Path, row: dict[str, Any]) -> None:
    def digest(path: str) -> str:
        return hashlib.sha256((folder / path).read_bytes()).hexdigest()

    prompt = row.get("prompt", row.get("target_prompt", row.get("query")))
    if benchmark in ("imagereward", "hpdv2"):
        paths, ranks = row.get("generations", row.get("image_path")), row.get("ranking", row.get("rank"))
        assert paths
        assert ranks
        judge.scores |= {(prompt, digest(path)): 5.0 - rank for path, rank in zip(paths, ranks, strict=True)}
    elif benchmark == "mmrb2":
        parts = [row[f"response_{letter}"]["response_content"][0] for letter in "ab"]
        side = read_label(row["chosen"])
        words = row["prompt_content"][0][1]
        if parts[0][0] == "text":
            key = (words, (digest(row["prompt_content"][1][1]),), (parts[0][1], parts[1][1]))
        else:
            key = (words, (digest(parts[0][1]), digest(parts[1][1])), ())
        judge.sides[key] = side or Side.TIE
    elif "response" in row or "responses" in row:
        side = read_label(row.get("answer")) or (Side.FIRST if row.get("human_ranking") == [0, 1] else Side.SECOND)
        answers = tuple(row.get("response", row.get("responses")) or ())
        judge.sides[prompt, (digest(row.get("image", row.get("video"))),), answers] = side
    else:
        names = next(pair for pair in (("path_A", "path_B"), ("path1", "path2"), ("left_image", "right_image"),
                                       ("left_video", "right_video"), ("left_output_image", "right_output_image"))
                     if pair[0] in row)  # fmt: skip
        label = row.get("Overall", row.get("vote_type", "A"))
        judge.sides[prompt, tuple(digest(row[name]) for name in names), ()] = read_label(label) or Side.TIE
        both_good = 5.0 if label == "tievote" else 1.0
        judge.scores |= {(prompt, digest(row[name])): both_good for name in names}


def run(kind: type[KnowsAll], benchmark: str, folder: Path, votes: int = 1) -> dict[str, Any]:
    data = shapes.write(benchmark, folder, COUNT, seed=1)
    questions = read_questions(benchmark, data)
    judge = informed(kind, benchmark, folder, data)
    rows = judge_benchmark(benchmark, questions, [judge] * votes, MediaFolder(folder), seed=5)
    write_rows(folder / "out" / "verdicts.jsonl", rows)
    return score_verdicts(
        benchmark, folder / "out" / "verdicts.jsonl", data if benchmark in NEEDS_DATA else None
    ).as_json()


@pytest.mark.parametrize("benchmark", sorted(MODALITY))
def test_a_judge_that_knows_is_right(benchmark: str, tmp_path: Path) -> None:
    found = run(KnowsAll, benchmark, tmp_path)
    assert (found["accuracy"], found["unparsed"]) == (1.0, 0)
    assert all(part["accuracy"] == 1.0 for part in found["groups"].values() if part["n"])


@pytest.mark.parametrize("benchmark", sorted(set(MODALITY) - {"imagereward", "hpdv2"}))
def test_a_judge_that_names_a_place_gains_nothing(benchmark: str, tmp_path: Path) -> None:
    found = run(NamesThePlace, benchmark, tmp_path)
    if benchmark == "mmrb2":  # right in one order of each pair, wrong in the other
        assert found["accuracy"] == 0.5
        assert found["metrics"]["both_orders"]["consistent"] == 0.0
        assert found["metrics"]["first_place_rate"] == 1.0
    elif benchmark in TIES:  # contradicting itself, it calls every pair a tie
        ties = sum(found["groups"].get(name, {}).get("n", 0) for name in ("label/tie", "tievote", "bothbad_vote"))
        assert found["accuracy"] == pytest.approx(ties / COUNT)
        assert found["metrics"].get("diff", found["metrics"].get("without_ties")) == 0.0
    else:  # right where the better one happens to be shown first
        assert 0.2 < found["accuracy"] < 0.8


def test_votes_are_shuffled_each_on_its_own(tmp_path: Path) -> None:
    found = run(KnowsAll, "vl-rewardbench", tmp_path, votes=3)
    rows = [json.loads(line) for line in (tmp_path / "out" / "verdicts.jsonl").read_text().splitlines()]
    assert (found["accuracy"], found["n"], len(rows)) == (1.0, COUNT, 3 * COUNT)
    orders = [tuple(row["order"][0] for row in rows[start : start + COUNT]) for start in (0, COUNT, 2 * COUNT)]
    assert len(set(orders)) == 3
    assert found["metrics"]["votes"]["3"]["overall"] == 1.0


def test_mixed_pairs_are_counted_and_a_missing_file_is_named(tmp_path: Path) -> None:
    row = {"id": "x", "chosen": "A", "prompt_content": [["text", "draw"]],
           "response_a": {"response_content": [["image", "a.png"], ["text", "so"]]},
           "response_b": {"response_content": [["image", "b.png"]]}}  # fmt: skip
    (tmp_path / "interleaved.json").write_text(json.dumps({"pairs": [row]}))
    found = read_questions("mmrb2", tmp_path / "interleaved.json")
    assert (found.items, found.left_out) == ([], 1)
    (tmp_path / "d.json").write_text(
        json.dumps([{"prompt": "p", "path_A": "a.mp4", "path_B": "b.mp4", "Overall": "A"}])
    )
    questions = read_questions("videogen-rewardbench", tmp_path / "d.json")
    with pytest.raises(UserError, match=r"--media is .*a\.mp4"):
        judge_benchmark("videogen-rewardbench", questions, [KnowsAll()], MediaFolder(tmp_path))
    with pytest.raises(UserError, match="asks no judge"):
        read_questions("vbench", tmp_path / "d.json")
