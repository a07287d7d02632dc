"""The same rows from every kind of file, and faults with their place."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unified_reward.errors import UserError
from unified_reward.evaluation.benchmarks.files import read_rows

ROWS = [{"id": "a", "output": "x, y"}, {"id": "b", "output": "z"}]


def test_kinds_of_file_are_equal(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text("\n".join(map(json.dumps, ROWS)))
    (tmp_path / "2.json").write_text(json.dumps(ROWS))
    (tmp_path / "3.json").write_text(json.dumps({"pairs": ROWS}, indent=1))
    (tmp_path / "4.jsonl.gz").write_bytes(gzip.compress((tmp_path / "1.jsonl").read_bytes()))
    for name, delimiter in (("5.csv", ","), ("6.tsv", "\t")):
        with (tmp_path / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ["id", "output"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "7.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert [row.values for row in read_rows(path, "--verdicts")] == ROWS, path.name


def test_an_object_of_rows_names_them(tmp_path: Path) -> None:
    (tmp_path / "v.json").write_text(json.dumps({"a": {"output": "x"}, "b": {"output": "y"}}))
    rows = read_rows(tmp_path / "v.json", "--verdicts")
    assert [(row.place, row.values["_key"]) for row in rows] == [('entry "a"', "a"), ('entry "b"', "b")]


@pytest.mark.parametrize(("name", "content", "words"), [
    ("v.csv", b"id,output\na,x,y\n", "line 2"),
    ("v.csv", b"id,output\na\n", "as many fields"),
    ("v.csv", b"id,output\n", "empty"),
    ("v.parquet", b"PAR1 no more", "cannot be read as Parquet"),
    ("v.jsonl", b"\xff\xfe\x00", "cannot be read as text"),
    ("v.xlsx", b"PK\x03\x04 and so on", "spreadsheet or an archive. Save the table as CSV"),
])  # fmt: skip
def test_faults(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=words):
        read_rows(tmp_path / name, "--verdicts")


def test_other_ways_to_write_the_same_rows(tmp_path: Path) -> None:
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (tmp_path / "crlf.jsonl").write_bytes(text.replace("\n", "\r\n\r\n").encode())
    (tmp_path / "separators.jsonl").write_bytes(text.rstrip("\n").encode())
    (tmp_path / "indented.json").write_bytes(
        b"\xef\xbb\xbf" + json.dumps(ROWS, indent=2).replace("\n", "\r\n").encode()
    )
    (tmp_path / "logs.json").write_text(json.dumps({"args": {}, "logs": ROWS}))
    (tmp_path / "no_suffix").write_text(text)
    (tmp_path / "samples_of_an_item.json").write_text(json.dumps([ROWS]))
    (tmp_path / "samples_of_an_item.jsonl").write_text("\n".join(json.dumps([row]) for row in ROWS))
    (tmp_path / "list.json.gz").write_bytes(gzip.compress(json.dumps(ROWS).encode()))
    for path in sorted(tmp_path.iterdir()):
        assert [row.values for row in read_rows(path, "--verdicts")] == ROWS, path.name


def test_an_answer_may_be_long_and_hold_any_separator(tmp_path: Path) -> None:
    before = csv.field_size_limit()
    rows = [{"id": "a", "output": "\u2028 line\x85" + "x" * 200_000}]
    (tmp_path / "v.jsonl").write_text(json.dumps(rows[0], ensure_ascii=False))
    with (tmp_path / "v.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["id", "output"])
        writer.writeheader()
        writer.writerows(rows)
    for path in sorted(tmp_path.iterdir()):
        assert [row.values for row in read_rows(path, "--verdicts")] == rows, path.name
    (tmp_path / "short.csv").write_text("id\na\n")
    read_rows(tmp_path / "short.csv", "--verdicts")
    assert csv.field_size_limit() >= before  # of the whole process: not lowered to what a short file needs
