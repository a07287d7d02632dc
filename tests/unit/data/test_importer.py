"""Files become records with stored media; what cannot be read is counted, listed and told; nothing leaks between splits."""

import gzip
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unified_reward.config import ImportConfig
from unified_reward.data.card import card_of, markdown
from unified_reward.data.importer import Imported, import_sources
from unified_reward.data.media import MediaLimits, decode
from unified_reward.errors import UserError

SHARED = Path(__file__).parents[4] / "shared" / "data"


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def picture(path: Path, shade: int) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(shade))
    return path.name


def pairs(directory: Path, count: int) -> list[dict[str, Any]]:
    return [
        {"task": "image_generation_pair", "prompt": f"p{i}", "choice": "1",
         "media": [picture(directory / f"{i}a.png", i), picture(directory / f"{i}b.png", 100 + i)]}
        for i in range(count)
    ]  # fmt: skip


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    file.write_text(lines if file.suffix == ".jsonl" else json.dumps(rows))
    return str(file)


def imported(*paths: str, kept: list[bytes] | None = None, **config: Any) -> Imported:
    values = {"source": "files", "paths": list(paths), "media_root": "nowhere", "decoders": 2, **config}
    return import_sources(ImportConfig(**values), [].append if kept is None else kept.append)


def test_records_get_digests_and_a_split_and_media_are_kept_once(tmp_path: Path) -> None:
    kept: list[bytes] = []
    rows = pairs(tmp_path, 8)
    rows.append({**rows[0], "choice": "2"})
    found = imported(write(tmp_path / "r.jsonl", rows), kept=kept)
    assert len(found.records) == 9
    assert {record.split for record in found.records} == {"train", "test"}
    assert sorted(hashlib.sha256(data).hexdigest() for data in kept) == sorted(found.media)
    assert len(kept) == 16
    assert {digest for record in found.records for digest in record.media} == set(found.media)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tsak": 1}, r"because there is no such field \(r.jsonl:1: tsak"),
        ({"task": "image_pair"}, r"because there is no such task \(r.jsonl:1: image_pair; tasks are"),
        ({"choice": None}, r"because choice is not 1, 2 or tie \(r.jsonl:1\)"),
        ({"media": ["0a.png"]}, r"because image_generation_pair judges two of media \(r.jsonl:1: 1 given\)"),
        ({"media": ["0a.png", "none.png"]}, r"because there is no such file \(r.jsonl:1: 0a.png, none.png: looked for"),
    ],
    ids=["unknown field", "unknown task", "no label", "one picture", "missing file"],
)
def test_too_many_rejects_are_an_error_that_names_the_first(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    rows = pairs(tmp_path, 2)
    with pytest.raises(UserError, match=r"1 of 2 records could not be read; 1 of them " + message):
        imported(write(tmp_path / "r.jsonl", [{**rows[0], **change}, rows[1]]), max_rejects=0.4)


def test_rejects_are_counted_by_reason_and_listed(tmp_path: Path) -> None:
    rows = pairs(tmp_path, 7)
    (tmp_path / "0a.png").write_bytes(b"broken")
    (tmp_path / "1a.png").write_bytes(b"")
    found = imported(write(tmp_path / "r.jsonl", [*rows, {**rows[2]}, {"task": "x", "prompt": "p"}]))
    assert len(found.records) == 5
    assert sorted((r.row, r.reason) for r in found.rejects) == [
        ("1", "the picture cannot be read"), ("2", "the file is empty"), ("9", "there is no such task"),
    ]  # fmt: skip
    assert [(r.row, r.reason) for r in found.repeats] == [("8", "it repeats an earlier record")]
    (count,) = found.sources
    assert (count.rows, count.records, count.rejects, count.repeats) == (9, 5, 3, 1)
    text = markdown(card_of(found, {}), "judge_records", found.rejects)
    assert "| r.jsonl | records | that of your data | all | 9 | 5 | 3 | 1 |" in text
    assert "- 1 x the file is empty" in text
    assert "`r.jsonl:2` the file is empty (1a.png, 1b.png)" in text


def test_allow_missing_lets_any_number_go(tmp_path: Path) -> None:
    rows = pairs(tmp_path, 5)
    for name in ("0a", "1a", "2a"):
        (tmp_path / f"{name}.png").write_bytes(b"broken")
    file = write(tmp_path / "r.jsonl", rows)
    with pytest.raises(UserError, match="3 of 5 records could not be read"):
        imported(file)
    assert len(imported(file, allow_missing=True).records) == 2


def critic(human: str, answer: str, image: str = "0a.png") -> dict[str, Any]:
    talk = [{"from": "human", "value": human}, {"from": "gpt", "value": answer}]
    return {"source": "x", "image": image, "conversations": talk}


def test_rows_that_a_published_set_is_known_to_hold_do_not_count_against_it(tmp_path: Path) -> None:
    """Most rows of LLaVA-Critic's pointwise part ask in no way that is read: counted and listed, and the import goes on."""
    pairs(tmp_path, 1)
    asked = "Question: [What is it {}?]\nResponse 1: [A cat.]\nResponse 2: [A dog.]"
    others = [critic(f"Which of the options is right? {i}", "B") for i in range(9)]
    good = [critic(asked.format(name), "The better response: [1].", f"0{name}.png") for name in "ab"]
    found = imported(write(tmp_path / "critic.jsonl", [*others, *good]))
    assert (len(found.records), len(found.rejects), found.sources[0].rejects) == (2, 9, 9)
    spoilt = [critic(asked.format("c"), "Neither, or both.")] * 3
    with pytest.raises(
        UserError, match="3 of 5 records could not be read; 3 of them because the answer says no verdict"
    ):
        imported(write(tmp_path / "spoilt.jsonl", [*others, *good, *spoilt]))
    with pytest.raises(UserError, match="9 of 9 records could not be read; 9 of them because the words of the prompt"):
        imported(write(tmp_path / "none.jsonl", others))


def test_a_file_of_which_nothing_can_be_read_is_an_error_however_small_its_share(tmp_path: Path) -> None:
    files = [write(tmp_path / "good.jsonl", pairs(tmp_path, 9)), str(tmp_path / "bad.jsonl")]
    write(
        Path(files[1]), [{"task": "image_generation_pair", "prompt": "p", "choice": "1", "media": ["x.png", "y.png"]}]
    )
    with pytest.raises(UserError, match=r"1 of 1 records could not be read; .* no such file \(bad.jsonl:1"):
        imported(*files)
    assert len(imported(*files, max_rejects=1.0).records) == 9


def test_frames_of_a_folder_are_one_clip_whatever_its_name(tmp_path: Path) -> None:
    for number in range(12):
        picture(tmp_path / "clips" / "v_1" / f"{number}.png", 10 * number)
    kept: list[bytes] = []
    rows = [
        {"id": f"q{i}", "video": "v_1" if i else "clips/v_1", "prompt": f"What is {i}?", "chosen": "a", "rejected": "b"}
        for i in range(2)
    ]
    other = {**rows[0], "id": "q2", "prompt": "Who?", "video": picture(tmp_path / "clips" / "one.png", 9)}
    found = imported(write(tmp_path / "s.jsonl", [*rows, other]), kept=kept, media_root=str(tmp_path / "clips"))
    assert len(found.records) == 3
    assert len(kept) == 2
    assert found.records[0].media == found.records[1].media
    clip = decode(kept[0], MediaLimits(frames=4))
    assert clip.shape == (4, 8, 8, 3)
    assert [int(frame.mean()) // 10 for frame in clip] == [0, 3, 7, 11]
    assert found.media[found.records[0].media[0]].about.frames == 12


def test_frames_are_found_in_their_folder(tmp_path: Path) -> None:
    names = [picture(tmp_path / "images" / "p7" / f"p7_{i:02d}.png", i) for i in range(3)]
    respects = ("visual quality", "temporal consistency", "dynamic degree", "text-to-video alignment",
                "factual consistency")  # fmt: skip
    row = {"id": "p7", "images": names, "text prompt": "a cat", **dict.fromkeys(respects, 2)}
    other = {**row, "id": "p8", "text prompt": "a dog", "images": names[:2]}
    found = imported(write(tmp_path / "v.json", [row, other]), source="videofeedback")
    assert len(found.records) == 10
    assert len(found.media) == 2


def test_parquet_with_pictures_in_its_rows_and_gzipped_lines(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{i}", "image1": {"bytes": png(i), "path": "1.png"}, "votes_image1": i,
         "image2": {"bytes": png(100 + i) if i else b"broken", "path": "2.png"}, "votes_image2": 3}
        for i in range(70)
    ]  # fmt: skip
    (tmp_path / "hpd").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "hpd" / "train-0.parquet")
    own = tmp_path / "r.jsonl.gz"
    own.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in pairs(tmp_path, 4)).encode()))
    found = imported(str(tmp_path / "hpd"), str(own))
    assert [(s.format, s.records, s.rejects) for s in found.sources] == [("hpd", 69, 1), ("records", 4, 0)]
    assert found.rejects[0].detail == "1.png, 2.png: not of a known format"


def test_evalmuse_pairs_follow_their_scores(tmp_path: Path) -> None:
    rows = [
        {"prompt": prompt, "img_path": picture(tmp_path / f"{prompt}{i}.png", 20 * i + len(prompt)), "total_score": [i, i]}
        for prompt in ("cat", "horse") for i in (1, 3, 5)
    ]  # fmt: skip
    found = imported(write(tmp_path / "train_list.json", rows))
    tasks = [record.task.mode for record in found.records]
    assert (tasks.count("point"), tasks.count("pair")) == (6, 2)
    splits = {record.prompt: set() for record in found.records}
    for record in found.records:
        splits[record.prompt].add(record.split)
    assert sorted(map(sorted, splits.values())) == [["test"], ["train"]]


def test_ids_are_unique_and_files_of_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder, place in (("a", 0), ("b", 2)):
        (tmp_path / folder).mkdir()
        rows = [{**row, "id": "same"} for row in pairs(tmp_path / folder, 4)[place : place + 2]]
        write(tmp_path / folder / "train_data.json", [*rows, {**rows[0], "id": "", "choice": "2"}])
    found = imported(str(tmp_path / "a"), str(tmp_path / "b"))
    assert [count.file for count in found.sources] == ["a/train_data.json", "b/train_data.json"]
    assert len({record.id for record in found.records}) == len(found.records) == 6
    assert [record.id for record in found.records][:3] == ["same", "same a/train_data.json:2", "a/train_data.json:3"]


def test_a_layout_that_none_knows_is_told_with_its_columns(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("caption,left,right\nx,y,z\n")
    with pytest.raises(UserError, match=r"no known format has this layout: its columns are caption, left, right"):
        imported(str(tmp_path / "t.csv"))
    with pytest.raises(UserError, match=r"there is no such format\. Did you mean hpd"):
        imported(str(tmp_path / "t.csv"), source="hdp")


def test_card_counts_labels_and_scores(tmp_path: Path) -> None:
    rows = [
        {"task": "image_generation_point", "prompt": f"p{i}", "media": [picture(tmp_path / f"{i}.png", i)], "score": i,
         "score_min": 0, "score_max": 4}
        for i in range(5)
    ]  # fmt: skip
    card = card_of(imported(write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.json", pairs(tmp_path, 3))), {})
    facts = card.facts()
    assert facts["choices"] == {"image_generation_pair": {"1": 3}}
    assert card.scores["records image_generation_point"] == [0, 0.25, 0.5, 0.75, 1.0]
    assert facts["ranges"] == {"records image_generation_point": (0.0, 4.0)}
    assert facts["media"]["pictures"] == 8  # three of one content
    assert json.loads(json.dumps(facts))["rejects"] == {}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the folder of real media is not beside this repository")
def test_human_votes_on_real_videos_are_read_once_each() -> None:
    found = imported(str(SHARED / "videoalign" / "example.csv"), max_side=64)
    votes = {(r.prompt.split(" Judge the ")[1], r.choice.value) for r in found.records if r.choice}
    assert len(found.records) == 9
    assert not found.rejects
    assert len(found.repeats) == 27
    assert ("text alignment.", "1") in votes
    assert ("visual quality.", "tie") in votes
    assert {about.about.frames for about in found.media.values()} == {60, 126, 128, 144, 152}
