"""Files of one's own become records; what is wrong with them is said by place, field and value."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unified_reward.config import ImportConfig
from unified_reward.data.files import read_files
from unified_reward.data.splits import held_out
from unified_reward.errors import UserError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def picture(path: Path, shade: int) -> str:
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(path)
    return path.name


def write(directory: Path, rows: list[dict[str, object]]) -> ImportConfig:
    file = directory / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ImportConfig(source="files", paths=[str(file)], media_root=str(directory))


def pairs(directory: Path, count: int) -> list[dict[str, object]]:
    return [
        {"task": "image_generation_pair", "prompt": f"p{i}", "choice": "1",
         "media": [picture(directory / f"{i}a.png", i), picture(directory / f"{i}b.png", 100 + i)]}
        for i in range(count)
    ]  # fmt: skip


def test_records_get_digests_and_a_split(tmp_path: Path) -> None:
    found = read_files(write(tmp_path, pairs(tmp_path, 8)))
    assert len(found.rows) == 8
    assert {record.split for record, _ in found.rows} == {"train", "test"}
    assert all(set(record.media) == set(media) for record, media in found.rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tsak": 1}, r"records.jsonl:1 tsak is 1: there is no such field"),
        ({"task": "image_pair"}, r"records.jsonl:1 .*it is no judge record"),
        ({"choice": None}, r"records.jsonl:1 choice is not set: image_generation_pair needs it"),
        ({"media": ["0a.png"]}, r"records.jsonl:1 media is 1: image_generation_pair judges two"),
        ({"media": ["0a.png", "none.png"]}, r"none.png cannot be read"),
    ],
    ids=["unknown field", "unknown task", "no label", "one picture", "missing file"],
)
def test_a_bad_row_is_told_by_its_place(tmp_path: Path, change: dict[str, object], message: str) -> None:
    rows = pairs(tmp_path, 2)
    with pytest.raises(UserError, match=message):
        read_files(write(tmp_path, [{**rows[0], **change}, rows[1]]))


def test_rejects_are_counted_when_allowed(tmp_path: Path) -> None:
    rows = pairs(tmp_path, 4)
    (tmp_path / "0a.png").write_bytes(b"broken")
    config = write(tmp_path, rows).model_copy(update={"allow_missing": True})
    found = read_files(config)
    assert len(found.rows) == 3
    assert [reject.file for reject in found.rejects] == ["records.jsonl:1"]
    assert "cannot be read" in found.rejects[0].reason


def test_a_split_never_parts_what_shares_a_prompt_or_a_medium() -> None:
    keys = [("p1", "a"), ("p2", "a"), ("p2", "b"), ("p3", "c"), ("p4", "d"), ("p5", "d")]
    tests = held_out(keys, 0.3)
    assert tests[0] == tests[1] == tests[2]
    assert tests[4] == tests[5]
    assert 0 < sum(tests) < len(tests)
    with pytest.raises(ValueError, match="leaking"):
        held_out([("a", "b"), ("b", "c")], 0.5)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real media is not beside this repository")
def test_human_votes_on_real_videos_are_read_once_each() -> None:
    config = ImportConfig(source="files", paths=[str(SHARED / "videoalign" / "example.csv")], max_side=64)
    found = read_files(config)
    votes = {(r.prompt.split(" Judge the ")[1], r.choice.value) for r, _ in found.rows if r.choice}
    assert len(found.rows) == 9
    assert ("text alignment.", "1") in votes
    assert ("visual quality.", "tie") in votes
