"""A document whose records and prompts are files runs to its end: the judge says what became of a VLM and an image policy.

Tiny models, a few steps: what is under test is that every stage finds what it needs, and that the pages say whose opinion it is.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from unified_reward.records import Candidate, JudgeRecord, Mode, Prompt, Task, Verdict
from unified_reward.shapes import dataset
from unified_reward.stages.context import Commit, read_commit, read_pointer
from unified_reward.store import Dataset, ObjectStore, open_store

pytestmark = [pytest.mark.integration, pytest.mark.slow]

ROOT = Path(__file__).parents[3]
IMAGE_TASKS = {task: 1.0 for task in Task if task.value.startswith("image")}
SPEC: dict[str, Any] = {
    "import": {
        "source": "files", "paths": ["records.jsonl"], "vlmPrompts": ["questions.jsonl"], "imagePrompts": ["captions.txt"],
        "heldOut": 0.25,
    },
    "rewardTrain": {
        "base": "builtin:shapes/vlm", "template": "shapes", "steps": 8, "globalBatch": 16, "processes": 1, "warmupSteps": 2,
    },
    "rewardEval": {"records": 4},
    "policies": [
        {
            "name": "asked", "kind": "vlm", "base": "builtin:shapes/vlm_policy", "generate": {"candidates": 4},
            "dpoTrain": {"steps": 4, "globalBatch": 4, "processes": 1, "warmupSteps": 1, "learningRate": 1.0e-3},
        },
        {
            "name": "drawing", "kind": "diffusion", "base": "builtin:shapes/image",
            "generate": {"candidates": 4, "samplerSteps": 4},
            "dpoTrain": {"steps": 4, "globalBatch": 4, "processes": 1, "warmupSteps": 1, "beta": 1000, "learningRate": 1.0e-3},
            "policyEval": {"imagesPerPrompt": 2, "samplerSteps": 4},
        },
    ],
}  # fmt: skip


def write_data(folder: Path) -> None:
    """Records and prompts of the shapes world as a person would have them: files beside their pictures, no truth in them."""
    folder.mkdir()
    with (folder / "records.jsonl").open("w") as lines:
        for record, media in dataset.judge_records("train", 160, 0, IMAGE_TASKS):
            lines.write(json.dumps(_row(record, _saved(folder, media, record.media))) + "\n")
    with (folder / "questions.jsonl").open("w") as lines:
        for prompt, media in dataset.policy_prompts("train", 40, 0):
            lines.write(json.dumps({"prompt": prompt.text, "media": _saved(folder, media, prompt.media)}) + "\n")
        lines.write('{"prompt": "what is this ?", "media": ["nowhere.png"]}\n')
    captions = [prompt.text for prompt in dataset.image_prompts("train")[:20]]
    (folder / "captions.txt").write_text("\n".join([*captions, captions[0]]) + "\n")


def _row(record: JudgeRecord, media: list[str]) -> dict[str, Any]:
    label = {"choice": record.choice} if record.choice else {
        "score": record.score, "score_min": record.score_min, "score_max": record.score_max,
    }  # fmt: skip
    return {"task": record.task, "prompt": record.prompt, "media": media, "answers": record.answers,
            "rationale": record.rationale, **label}  # fmt: skip


def _saved(folder: Path, media: Any, digests: list[str]) -> list[str]:
    for digest in digests:
        (folder / f"{digest[:12]}.png").write_bytes(media[digest])
    return [f"{digest[:12]}.png" for digest in digests]


def run(home: Path, document: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unified_reward.cli", "run", str(document), "--home", str(home)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500, check=False)


def write_document(path: Path, folder: str, **import_: Any) -> Path:
    spec = {**SPEC, "import": {**SPEC["import"], "folder": folder, **import_}}
    metadata = {"name": "own-files"}
    path.write_text(yaml.safe_dump({
        "apiVersion": "unifiedreward.dev/v1alpha1", "kind": "AlignmentRun", "metadata": metadata, "spec": spec,
    }))  # fmt: skip
    return path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own-files")
    write_data(place / "data")
    done = run(place / "home", write_document(place / "run.yaml", str(place / "data")))
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "home"


@pytest.fixture(scope="module")
def store(home: Path) -> ObjectStore:
    return open_store((home / "store").as_uri())


def committed(store: ObjectStore, node: str) -> Commit:
    found = read_commit(store, node.partition("/")[0], read_pointer(store, "own-files", node))
    assert found is not None
    return found


def test_prompts_of_files_are_split_without_a_leak_and_rejects_are_counted(store: ObjectStore) -> None:
    done = committed(store, "import")
    assert done.metrics["rejects"] == 1
    assert {"row": "41", "reason": "there is no such file"}.items() <= done.report["rejects"][0].items()
    for name, most in (("prompts_vlm", 40), ("prompts_diffusion", 20)):
        prompts = list(Dataset(store, done.outputs[name], Prompt).records())
        assert 10 < len(prompts) <= most
        sides = [
            {key for p in prompts if p.split == split for key in (p.text.lower(), *p.media)}
            for split in ("train", "test")
        ]
        assert all(sides)
        if name == "prompts_diffusion":
            assert not sides[0] & sides[1]
        media = [{digest for p in prompts if p.split == split for digest in p.media} for split in ("train", "test")]
        assert not media[0] & media[1]
        assert not any(prompt.truth for prompt in prompts)


@pytest.mark.parametrize(("policy", "each"), [("asked", 1), ("drawing", 2)])
def test_the_judge_compares_each_held_out_answer_in_both_orders(store: ObjectStore, policy: str, each: int) -> None:
    done = committed(store, f"policy-eval/{policy}")
    assert done.inputs["judge"] == committed(store, "reward-train").outputs["judge"]
    found, n = done.metrics, done.metrics["n"]
    assert n == each * found["prompts"]
    assert found["judge_wins"] + found["judge_ties"] + found["judge_losses"] == n
    assert found["judge_win_rate"] == pytest.approx((found["judge_wins"] + found["judge_ties"] / 2) / n)
    low, high = found["judge_win_rate_interval"]
    assert low <= found["judge_win_rate"] <= high
    assert "before" not in found  # what is an opinion bears no name of a measurement

    verdicts = list(Dataset(store, done.outputs["verdicts"], Verdict).records())
    answers = {one.id: one for one in Dataset(store, done.outputs["answers"], Candidate).records()}
    pairs = [verdict for verdict in verdicts if verdict.task.mode is Mode.PAIR]
    assert len(pairs) == n
    assert len(verdicts) == 3 * n
    for pair in pairs:
        before, after = answers[pair.first_id], answers[pair.second_id]
        assert (before.prompt_id, before.index, before.seed) == (after.prompt_id, after.index, after.seed)
        if (before.text, before.media) != (after.text, after.media):
            assert pair.p_first_shown_first is not None
            assert pair.p_first_shown_second is not None


def test_summary_page_and_tracking_say_whose_opinion_it_is(home: Path) -> None:
    command = [sys.executable, "-m", "unified_reward.cli", "summary", "own-files", "--home", str(home)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120).stdout
    assert "win rate by the judge" in told
    assert "known truth" not in told
    summary = json.loads(
        subprocess.run([*command, "--json"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    )
    assert {row["metric"] for row in summary["policies"].values()} == {"win rate by the judge"}
    page = (home / "runs" / "own-files" / "report.html").read_text()
    assert "In the judge&#x27;s opinion" in page or "In the judge's opinion" in page
    assert "a biased witness" in " ".join(page.split())
    assert "against the known truth" not in page

    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{home / 'mlflow' / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    (parent,) = [run for run in runs if run.info.run_name == "own-files"]
    assert {"policy/asked/judge_win_rate", "policy/drawing/judge_win_rate"} <= set(parent.data.metrics)
    assert not any(name.endswith(("/before", "/after")) for name in parent.data.metrics if name.startswith("policy/"))


def test_without_prompts_the_document_is_refused_before_anything_starts(tmp_path: Path) -> None:
    document = write_document(tmp_path / "run.yaml", str(tmp_path), vlmPrompts=[])
    done = run(tmp_path / "home", document)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if line.strip()]
    assert "spec.import.vlmPrompts is []: policy asked (vlm) would be asked nothing" in line
    assert not (tmp_path / "home" / "store").exists()
