"""A published mix through the import stage: parquet and media in the store, the card, the list of rejects, the next reader."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unified_reward.records import JudgeRecord, Mode
from unified_reward.stages.context import read_commit, read_pointer
from unified_reward.stages.media import MediaReader
from unified_reward.store import Dataset, open_artifact, open_store

pytestmark = pytest.mark.integration

PROMPT = "<image>\n <image>\nYou are given a text caption and two generated images.\nText Caption: [{}]"


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def mix(root: Path) -> Path:
    """UnifiedReward's folder layout: ten pairs of pictures, one broken, and four clips of eight frames each."""
    hpd, video = root / "dataset" / "HPD", root / "dataset" / "VideoDPO"
    for folder in (hpd, video):
        folder.mkdir(parents=True)
    pairs = []
    for number in range(10):
        names = [f"{number}_{side}.png" for side in "ab"]
        for side, name in enumerate(names):
            (hpd / name).write_bytes(b"broken" if (number, side) == (4, 1) else png(2 * number + side))
        answer = f"Image {number % 2 + 1} is better than Image {2 - number % 2}. It shows what the caption asks for."
        pairs.append({"images": names, "conversations": talk(PROMPT.format(f"caption {number}"), answer)})
    clips = []
    for number in range(4):
        frames = [f"{side}/{number}/{frame}.png" for side in ("winvideos", "losevideos") for frame in range(8)]
        for place, frame in enumerate(frames):
            (video / frame).parent.mkdir(parents=True, exist_ok=True)
            (video / frame).write_bytes(png(1000 + 16 * number + place))
        clips.append({"images": frames, "conversations": talk(
            PROMPT.format(f"scene {number}").replace("images", "videos"), "Video 1 is better than Video 2.")})  # fmt: skip
    (hpd / "train_data.json").write_text(json.dumps(pairs))
    (video / "train_data.json").write_text(json.dumps(clips))
    path = root / "dataset" / "train_data.yaml"
    path.write_text(
        "datasets:\n"
        "  - json_path: dataset/HPD/train_data.json\n    sampling_strategy: all\n    image_folder: dataset/HPD\n"
        "  - json_path: dataset/VideoDPO/train_data.json\n    sampling_strategy: random:50%\n"
        "    image_folder: dataset/VideoDPO\n"
    )
    return path


def talk(human: str, gpt: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": human}, {"from": "gpt", "value": gpt}]


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unified_reward.cli", "import", *words, "--home", str(home)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_mix_is_imported_with_its_card_and_rejects(tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = run(home, str(mix(tmp_path)), "--set", "max_side=64", "--set", "video_frames=4")
    assert done.returncode == 0, done.stderr
    store = open_store((home / "store").as_uri())
    commit = read_commit(store, "import", read_pointer(store, "imported", "import"))
    assert commit is not None
    assert commit.metrics["rejects"] == 1

    data = Dataset(store, commit.outputs["judge_records"], JudgeRecord)
    records = list(data.records())
    assert len(records) == 9 + 2
    assert {record.split for record in records} == {"train", "test"}
    assert all(record.task.mode is Mode.PAIR for record in records)
    assert records[0].rationale == "It shows what the caption asks for."
    read = MediaReader(data, work_dir=tmp_path / "work")
    assert read(records[0].media[0]).shape == (48, 64, 3)
    assert read(records[-1].media[0]).shape == (4, 48, 64, 3)
    assert list((tmp_path / "work" / "decoded").rglob("*.npy"))

    card = open_artifact(store, commit.outputs["card"])
    (reject,) = [json.loads(line) for line in card.read("rejects.jsonl").splitlines()]
    assert (reject["file"], reject["row"], reject["reason"]) == (
        "HPD/train_data.json",
        "5",
        "the picture cannot be read",
    )
    assert "random:50%" in card.read("DATASET_CARD.md").decode()
    assert data.meta["card"]["rejects"] == {"the picture cannot be read": 1}
    pages = {path.name for path in (home / "mlflow" / "artifacts").rglob("*") if path.is_file()}
    assert {"DATASET_CARD.md", "dataset.html", "rejects.json", "dataset-labels.png", "dataset-sizes.png"} <= pages


def test_a_wrong_format_is_one_line_with_the_near_match(tmp_path: Path) -> None:
    done = run(tmp_path / "home", str(mix(tmp_path)), "--format", "unifiedrewards")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert "there is no such format. Did you mean unifiedreward?" in line
