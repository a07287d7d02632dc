"""Verdict files and benchmark data as rows that know where they stand: JSONL, JSON, CSV, TSV or Parquet, plain or gzip.

A JSON file is an array of objects, or an object that holds one: under a name of CONTAINERS, or as item id -> row.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unified_reward.errors import UserError

GZIP_MAGIC, PARQUET_MAGIC, ZIP_MAGIC = b"\x1f\x8b", b"PAR1", b"PK\x03\x04"
CONTAINERS = ("pairs", "data", "results", "rows", "items", "predictions", "outputs", "samples", "records", "examples",
              "verdicts", "judgements", "judgments", "annotations", "logs")  # fmt: skip
KEY = "_key"  # a row's name in an object of rows
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
KINDS = ", ".join(SUFFIXES) + ", or their .gz"


@dataclass(frozen=True)
class Row:
    """One object. place: `line 7` of a JSONL or CSV file, `entry 7` of an array, both from 1; `entry "id"` of an object."""

    place: str
    values: dict[str, Any]

    def error(self, path: Path, why: str, fix: str) -> UserError:
        return UserError(field=f"{path}, {self.place}", value=json.dumps(self.values, default=str), why=why, fix=fix)


def read_rows(path: Path, field: str, *, lists_as: str = "") -> list[Row]:
    """Rows of a file, at least one. field: the option that named it. Empty lines are left out; UserError for all else that
    is no row.

    lists_as: an array in the place of a row becomes a row with this one field.
    """
    raw = _read_bytes(path, field)
    if raw.startswith(ZIP_MAGIC):
        raise UserError(field=field, value=path, why="it is a spreadsheet or an archive",
                        fix=f"Save the table as CSV, or unpack the file: {KINDS}.")  # fmt: skip
    if raw.startswith(PARQUET_MAGIC):
        rows = _parquet(path, raw, field)
    else:
        rows = _text_rows(path, _decoded(path, raw, field), lists_as)
    if not rows:
        raise UserError(
            field=field, value=path, why="the file is empty", fix="Name a file with one JSON object a line."
        )
    return rows


def files_in(path: Path, field: str) -> list[Path]:
    """A file as itself; of a directory the files that may hold rows, by name."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.iterdir() if file.name.removesuffix(".gz").endswith(SUFFIXES))
    if not found:
        raise UserError(field=field, value=path, why="no file in this directory can hold rows", fix=f"Name {KINDS}.")
    return found


def _read_bytes(path: Path, field: str) -> bytes:
    if not path.is_file():
        why = "it is a directory" if path.is_dir() else "there is no such file"
        raise UserError(field=field, value=path, why=why, fix=f"Name a file: {KINDS}.")
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(field=field, value=path, why=f"it cannot be read ({error})", fix=f"Name {KINDS}.") from error


def _decoded(path: Path, raw: bytes, field: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(field=field, value=path, why=f"it cannot be read as text ({error})",
                        fix="Write the file in UTF-8.") from error  # fmt: skip


def _text_rows(path: Path, text: str, lists_as: str) -> list[Row]:
    name = path.name.removesuffix(".gz")
    if name.endswith((".csv", ".tsv")):
        return list(_table(path, text, "\t" if name.endswith(".tsv") else ","))
    if text.lstrip().startswith("[") and (entries := _array(path, text)) is not None:
        return [_row(path, f"entry {number}", value, lists_as) for number, entry in enumerate(entries, start=1)
                for value in _ungrouped(entry)]  # fmt: skip
    if text.lstrip().startswith("{") and (whole := _one_object(text)) is not None:
        return _from_object(path, whole)
    return [_row(path, f"line {number}", value, lists_as) for number, line in enumerate(text.split("\n"), start=1)
            if line.strip() for value in _ungrouped(_line(path, number, line))]  # fmt: skip


def _one_object(text: str) -> dict[str, Any] | None:
    """The file as one JSON object, unless it is a file of lines."""
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return None
    assert isinstance(whole, dict)
    return whole


def _from_object(path: Path, whole: dict[str, Any]) -> list[Row]:
    for name in CONTAINERS:
        rows = whole.get(name)
        if rows and isinstance(rows, list) and all(isinstance(one, dict) for one in rows):
            return [_row(path, f"entry {number}", value) for number, value in enumerate(rows, start=1)]
    # VL-RewardBench has lines of {"0": {...}}: one such line is a row, not a file of rows
    if whole and all(isinstance(one, dict) for one in whole.values()) and list(whole) != ["0"]:
        return [Row(f'entry "{key}"', {KEY: key, **value}) for key, value in whole.items()]
    return [Row("line 1", whole)]


def _array(path: Path, text: str) -> list[Any] | None:
    """The file as one JSON array, unless it is a file of lines that hold an array each."""
    try:
        whole: list[Any] = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return None
        raise UserError(field=f"{path}, line {error.lineno}", value=text[error.pos : error.pos + 40],
                        why=f"the JSON array breaks off here ({error.msg})",
                        fix="Mend the file, or write it again.") from error  # fmt: skip
    return whole


def _ungrouped(entry: Any) -> list[Any]:
    """The samples of one item, where they stand in a list of their own."""
    grouped = isinstance(entry, list) and bool(entry) and all(isinstance(one, dict) for one in entry)
    return list(entry) if grouped else [entry]


def _line(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(field=f"{path}, line {number}", value=line, why=f"it is no JSON ({error.msg})",
                        fix="Write one JSON object a line, or one array of objects.") from error  # fmt: skip


def _row(path: Path, place: str, value: object, lists_as: str = "") -> Row:
    if lists_as and isinstance(value, list):
        return Row(place, {lists_as: value})
    if not isinstance(value, dict):
        raise UserError(field=f"{path}, {place}", value=json.dumps(value), why="it is no JSON object",
                        fix="Write one JSON object a line, or one array of objects.")  # fmt: skip
    return Row(place, value)


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    """Lines of a CSV file by its header; an empty field is None."""
    # a rationale may be longer than Python's 128 kB; the limit is the process's, so it is only ever raised
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    for values in reader:
        place = f"line {reader.line_num}"
        if None in values or None in values.values():
            raise Row(place, {str(k): v for k, v in values.items()}).error(
                path, "it has not as many fields as the header", "Quote fields that hold the delimiter."
            )
        yield Row(place, {name: value or None for name, value in values.items()})


def _parquet(path: Path, raw: bytes, field: str) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(io.BytesIO(raw)).to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise UserError(field=field, value=path, why=f"it cannot be read as Parquet ({error})",
                        fix="Mend the file, or write it again.") from error  # fmt: skip
    return [Row(f"entry {number}", values) for number, values in enumerate(rows, start=1)]
