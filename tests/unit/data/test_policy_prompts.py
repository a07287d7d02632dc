"""Files of prompts become what policies are asked; what cannot be is counted; nothing is on both sides of the split."""

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from unified_reward.config import ImportConfig
from unified_reward.data.policy_prompts import ImportedPrompts, import_prompts
from unified_reward.errors import UserError
from unified_reward.records import Modality, Prompt, Subject

ASKED, DRAWN = Subject.UNDERSTANDING, Subject.GENERATION


def picture(path: Path, shade: int) -> str:
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(path)
    return path.name


def questions(folder: Path, count: int) -> list[dict[str, Any]]:
    return [{"prompt": f"What is {i}?", "media": [picture(folder / f"{i}.png", i)]} for i in range(count)]


def write(file: Path, rows: Sequence[Mapping[str, Any]]) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file.name


def imported(
    folder: Path, subject: Subject, *paths: str, kept: list[bytes] | None = None, **more: Any
) -> ImportedPrompts:
    names = {"vlm_prompts" if subject is ASKED else "image_prompts": list(paths)}
    config = ImportConfig.model_validate({"source": "files", "folder": str(folder), "decoders": 2, **names, **more})
    return import_prompts(config, subject, [].append if kept is None else kept.append)


def by_split(prompts: Sequence[Prompt]) -> dict[str, list[Prompt]]:
    return {split: [p for p in prompts if p.split == split] for split in ("train", "validation", "test")}


def test_questions_get_ids_digests_and_a_split(tmp_path: Path) -> None:
    rows = questions(tmp_path, 8)
    rows[0] |= {"id": "first", "reference_answer": "It is nothing.", "split": "test"}
    kept: list[bytes] = []
    found = imported(tmp_path, ASKED, write(tmp_path / "q.jsonl", rows), kept=kept)
    assert len(found.prompts) == len(kept) == 8
    first, second = found.prompts[:2]
    assert (first.id, first.split, first.reference_answer) == ("first", "test", "It is nothing.")
    assert second.id == "q.jsonl:2"
    assert {p.modality for p in found.prompts} == {Modality.IMAGE}
    assert {p.subject for p in found.prompts} == {ASKED}
    assert not any(p.truth for p in found.prompts)
    assert {digest for p in found.prompts for digest in p.media} == set(found.media)
    assert [len(own) for own in by_split(found.prompts).values()] == [6, 0, 2]


def test_a_clip_makes_a_prompt_about_a_video(tmp_path: Path) -> None:
    rows = questions(tmp_path, 4)
    rows[1]["media"] = [[picture(tmp_path / f"f{i}.png", 50 + i) for i in range(3)]]
    found = imported(tmp_path, ASKED, write(tmp_path / "q.jsonl", rows))
    assert [p.modality for p in found.prompts] == [Modality.IMAGE, Modality.VIDEO, Modality.IMAGE, Modality.IMAGE]


@pytest.mark.parametrize("name", ["c.txt", "c.txt.gz", "c.csv", "c.jsonl"])
def test_captions_of_text_and_tables_are_the_same(tmp_path: Path, name: str) -> None:
    captions = [f"a cat number {i}" for i in range(10)]
    lines = {
        "c.csv": "\n".join(["prompt", *captions]),
        "c.jsonl": "\n".join(json.dumps({"prompt": each}) for each in captions),
    }.get(name, "\n\n".join([*captions, captions[3]]))
    (tmp_path / name).write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    found = imported(tmp_path, DRAWN, name)
    assert [p.text for p in found.prompts] == captions
    assert len(found.repeats) == (1 if "txt" in name else 0)
    assert {split for split, own in by_split(found.prompts).items() if own} == {"train", "test"}


def test_prompts_that_share_words_or_a_picture_stand_on_one_side(tmp_path: Path) -> None:
    rows = questions(tmp_path, 12)
    rows += [{"prompt": f"And what else is {i}?", "media": rows[i]["media"]} for i in range(6)]
    rows += [
        {"prompt": f"  WHAT is {i}?", "media": [picture(tmp_path / f"other{i}.png", 100 + i)]} for i in range(6, 12)
    ]
    found = imported(tmp_path, ASKED, write(tmp_path / "q.jsonl", rows), held_out=0.4)
    sides = by_split(found.prompts)
    for keys in (lambda p: set(p.media), lambda p: {" ".join(p.text.casefold().split())}):
        train, test = (set().union(*map(keys, sides[split])) for split in ("train", "test"))
        assert train
        assert test
        assert not train & test


@pytest.mark.parametrize(
    ("subject", "row", "reason"),
    [
        (ASKED, {"prompt": "Why?"}, "no media (VLM policies are asked about pictures and clips)"),
        (ASKED, {"prompt": "Why?", "media": ["none.png"]}, "there is no such file"),
        (ASKED, {"question": "Why?", "media": ["0.png"]}, "there is no such column (question; columns are prompt, media"),
        (ASKED, {"prompt": " ", "media": ["0.png"]}, "no prompt"),
        (ASKED, {"prompt": "Why?", "media": ["0.png"], "split": "dev"}, "split is not train, validation or test (dev)"),
        (DRAWN, {"prompt": "a cat", "media": ["0.png"]}, "a caption has no media and no reference answer (a cat)"),
    ],
)  # fmt: skip
def test_what_is_no_prompt_is_counted_with_its_reason(
    tmp_path: Path, subject: Subject, row: dict[str, Any], reason: str
) -> None:
    good = questions(tmp_path, 6)
    rows = good if subject is ASKED else [{"prompt": each["prompt"]} for each in good]
    found = imported(tmp_path, subject, write(tmp_path / "p.jsonl", [*rows, row]))
    assert len(found.prompts) == 6
    (reject,) = found.rejects
    assert (reject.file, reject.row) == ("p.jsonl", "7")
    assert f"{reject.reason} ({reject.detail})".startswith(reason)
    assert found.sources[0].rejects == 1


@pytest.mark.parametrize(
    ("paths", "more", "message"),
    [
        (["p.jsonl"], {"max_rejects": 0.1}, r"import.vlmPrompts is p.jsonl: 1 of 4 prompts could not be read; .* no media"),
        (["none.jsonl"], {}, r"import.vlmPrompts is .*none.jsonl: there is no such file"),
        (["hpd=p.jsonl"], {}, r"import.vlmPrompts is hpd=.*: prompts have a layout of their own"),
        (["p.jsonl@some"], {}, r"import.vlmPrompts p.jsonl is some: there is no such strategy"),
        (["trained.jsonl"], {}, r"import.vlmPrompts is 3 prompts: none is left to measure it with \(split test\)"),
    ],
    ids=["rejects", "missing", "format", "strategy", "no test"],
)  # fmt: skip
def test_mistakes_name_the_field_that_named_the_files(
    tmp_path: Path, paths: list[str], more: dict[str, Any], message: str
) -> None:
    rows = questions(tmp_path, 3)
    write(tmp_path / "p.jsonl", [*rows, {"prompt": "Why?"}])
    write(tmp_path / "trained.jsonl", [{**row, "split": "train"} for row in rows])
    with pytest.raises(UserError, match=message):
        imported(tmp_path, ASKED, *paths, **more)


def test_named_splits_that_leak_are_an_error(tmp_path: Path) -> None:
    rows = questions(tmp_path, 3)
    rows += [{"prompt": "Another?", "media": rows[0]["media"], "split": "train"}]
    rows[0]["split"] = "test"
    with pytest.raises(UserError, match="share a prompt or a medium, but one is named train"):
        imported(tmp_path, ASKED, write(tmp_path / "q.jsonl", rows))
