"""The import stage on files that lie in the store, and on the shapes world with prompts of one's own."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unified_reward.config import AlignmentRun, ArtifactRef, ImportConfig, Stage, StageSpec
from unified_reward.config.graph import build_graph
from unified_reward.errors import UserError
from unified_reward.records import Prompt
from unified_reward.stages import import_data
from unified_reward.stages.context import StageContext, StageResult
from unified_reward.stages.media import MediaReader
from unified_reward.stages.standalone import make_spec
from unified_reward.store import Dataset, ObjectStore, open_artifact, open_store, upload_directory
from unified_reward.tracking import stage_run

PREFIX = "data/mine"


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    """With a folder of six records, six questions and two sets of captions in it."""
    folder = tmp_path / "mine"
    (folder / "media").mkdir(parents=True)
    for number in range(6):
        Image.fromarray(np.full((48, 96, 3), number, np.uint8)).save(folder / "media" / f"{number}.png")
    records = [
        {"task": "image_generation_point", "prompt": f"p{i}", "media": [f"{i}.png"], "score": 1, "score_min": 0, "score_max": 1}
        for i in range(6)
    ]  # fmt: skip
    questions = [{"prompt": f"what {i}", "media": [f"{i}.png"]} for i in range(6)] + [{"prompt": "why"}]
    (folder / "records.jsonl").write_text("\n".join(map(json.dumps, records)))
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    for name, count in (("few.txt", 4), ("many.txt", 9)):
        (folder / name).write_text("\n".join(f"caption {i}" for i in range(count)))
    store = open_store((tmp_path / "store").as_uri())
    upload_directory(store, PREFIX, folder, "files")
    return store


def run(store: ObjectStore, work: Path, key: str, **config: Any) -> StageResult:
    values = ImportConfig.model_validate({"folder": f"store:{PREFIX}", "mediaRoot": "media", "decoders": 1, **config})
    spec = StageSpec(
        stage=Stage.IMPORT, run="r", store=store.url, key=key, config=values.model_dump(mode="json"), work_dir=str(work)
    )
    dist: Any = SimpleNamespace(device="cpu")
    with stage_run(None, work / "tracking", key=key, name="import") as track:
        return import_data.run(StageContext(spec, store, dist, track, work))


FILES: dict[str, Any] = {"source": "files", "paths": ["records.jsonl"], "vlmPrompts": ["questions.jsonl"]}


def test_files_in_the_store_are_read_and_what_is_asked_does_not_touch_the_records(
    store: ObjectStore, tmp_path: Path
) -> None:
    few = run(store, tmp_path, "00000001", **FILES, imagePrompts=["few.txt"], maxSide=32)
    many = run(store, tmp_path, "00000002", **FILES, imagePrompts=["many.txt"], maxSide=32)
    assert set(few.outputs) == {"judge_records", "prompts_vlm", "prompts_diffusion", "card"}
    same = {name for name in few.outputs if few.outputs[name].digest == many.outputs[name].digest}
    assert same == {"judge_records", "prompts_vlm"}  # so that a judge trained on them is not trained again
    assert sum(many.metrics["rows"]["prompts_diffusion"].values()) == 9

    questions = Dataset(store, few.outputs["prompts_vlm"], Prompt)
    assert MediaReader(questions)(questions.row(0).media[0]).shape == (
        16,
        32,
        3,
    )  # sampled and scaled as the records are
    assert few.metrics["rejects"] == 1
    card = open_artifact(store, few.outputs["card"])
    (reject,) = [json.loads(line) for line in card.read("rejects.jsonl").splitlines()]
    assert (reject["file"], reject["row"], reject["reason"]) == ("questions.jsonl", "7", "no media")
    assert (
        "| questions.jsonl | prompts | that of your data | all | 7 | 6 | 1 | 0 |"
        in card.read("DATASET_CARD.md").decode()
    )


def test_own_prompts_stand_in_the_place_of_those_of_the_shapes_world(store: ObjectStore, tmp_path: Path) -> None:
    sizes = {"trainRecords": 8, "evalRecords": 1, "prompts": 2, "evalPrompts": 2}
    made = run(store, tmp_path, "00000003", source="shapes", vlmPrompts=["questions.jsonl"], **sizes)
    plain = run(store, tmp_path, "00000004", source="shapes", **sizes)
    assert made.outputs["judge_records"].digest == plain.outputs["judge_records"].digest
    assert made.outputs["prompts_diffusion"].digest == plain.outputs["prompts_diffusion"].digest
    texts = {prompt.text for prompt in Dataset(store, made.outputs["prompts_vlm"], Prompt).records()}
    assert texts == {f"what {i}" for i in range(6)}
    assert made.metrics["rejects"] == 1


def test_what_the_folder_holds_is_part_of_the_key(store: ObjectStore, tmp_path: Path) -> None:
    def key() -> str:
        spec = {"import": {**FILES, "folder": str(tmp_path / "mine")}}
        node = build_graph(AlignmentRun.model_validate({"metadata": {"name": "r"}, "spec": spec}))["import"]
        inputs: dict[str, ArtifactRef] = {}
        return make_spec(node, inputs, store, run="r", work_dir="w", tracking=None).key

    before = key()
    assert key() == before
    (tmp_path / "mine" / "few.txt").write_text("another caption")
    assert key() != before


def test_a_folder_that_is_not_in_the_store_is_told_by_its_field(store: ObjectStore) -> None:
    spec = {"import": {**FILES, "folder": "store:data/none"}}
    node = build_graph(AlignmentRun.model_validate({"metadata": {"name": "r"}, "spec": spec}))["import"]
    with pytest.raises(
        UserError, match=r"import folder is store:data/none: it was never committed .* Put it there first"
    ):
        make_spec(node, {}, store, run="r", work_dir="w", tracking=None)
