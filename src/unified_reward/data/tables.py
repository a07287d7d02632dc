"""Rows of a file, one after the other, with their number: JSON lists, JSON lines, CSV, TSV, Parquet; the text ones also .gz.
Of plain text (.txt) each line is a row that holds a prompt and nothing else.

A line that is no row comes as a RowError in its place, to be counted. A file that cannot be read at all is a UserError.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from unified_reward.data.examples import Row, RowError
from unified_reward.errors import UserError

KINDS = (".json", ".jsonl", ".csv", ".tsv", ".parquet")
TEXT = ".txt"  # read when it is named; not looked for in folders, where it is more often a licence
BATCH_ROWS = 32  # rows of Parquet in memory at once: they may hold their pictures
csv.field_size_limit(16 * 1024 * 1024)

NumberedRow = tuple[int, Row | RowError]


def is_table(path: Path) -> bool:
    return _kind(path) in KINDS


def count_rows(path: Path) -> int:
    """How many rows a file has. Raises UserError."""
    if _kind(path) == ".parquet":
        return int(_parquet(path).metadata.num_rows)
    return sum(1 for _ in read_rows(path))


def read_rows(path: Path, wanted: set[int] | None = None) -> Iterator[NumberedRow]:
    """(number from 1 on, row) of each row, or of those in `wanted`. Raises UserError."""
    kind = _kind(path)
    if kind not in (*KINDS, TEXT):
        known = ", ".join((*KINDS, TEXT))
        raise UserError(field="import.paths", value=path, why=f"only {known} are read (.gz too), and .yaml mixes",
                        fix="Convert it to one of them.")  # fmt: skip
    if kind == ".parquet":
        yield from _parquet_rows(path, wanted)
        return
    readers = {".json": _list_rows, ".jsonl": _line_rows, ".csv": _csv_rows, ".tsv": _csv_rows, TEXT: _prompt_rows}
    rows = readers[kind](path)
    yield from (each for each in rows if wanted is None or each[0] in wanted)


def _kind(path: Path) -> str:
    parts = [suffix.lower() for suffix in path.suffixes]
    if parts[-1:] == [".gz"]:
        parts = parts[:-1] if parts[-2:-1] != [".parquet"] else parts
    return parts[-1] if parts else ""


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(field="import.paths", value=path, why=f"it cannot be read ({reason})",
                        fix="Name a readable file, in UTF-8.") from error  # fmt: skip


def _list_rows(path: Path) -> Iterator[NumberedRow]:
    text = _text(path)
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("{"):  # JSON lines under the name of JSON are common
            yield from _lines(text)
            return
        raise UserError(field="import.paths", value=path, why=f"it is no JSON ({error})",
                        fix="Download it again, or name it .jsonl if each line is an object.") from error  # fmt: skip
    if not isinstance(rows, list):
        raise UserError(field="import.paths", value=path, why="it holds no list of rows",
                        fix="Give a JSON list with one object for each row.")  # fmt: skip
    for number, row in enumerate(rows, 1):
        yield number, row if isinstance(row, Mapping) else RowError("the row is no object", type(row).__name__)


def _line_rows(path: Path) -> Iterator[NumberedRow]:
    yield from _lines(_text(path))


def _lines(text: str) -> Iterator[NumberedRow]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield number, RowError("the line is no JSON", error.msg)
            continue
        yield number, row if isinstance(row, Mapping) else RowError("the row is no object", type(row).__name__)


def _prompt_rows(path: Path) -> Iterator[NumberedRow]:
    yield from ((n, {"prompt": line.strip()}) for n, line in enumerate(_text(path).splitlines(), 1) if line.strip())


def _csv_rows(path: Path) -> Iterator[NumberedRow]:
    separator = "\t" if ".tsv" in path.suffixes else ","
    reader = csv.DictReader(_text(path).splitlines(keepends=True), delimiter=separator)
    try:
        for row in reader:
            if None in row:
                yield reader.line_num, RowError("the row has more cells than there are columns", row[None])
            else:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(field="import.paths", value=f"{path}:{reader.line_num}", why=f"it is no table ({error})",
                        fix="Export it again.") from error  # fmt: skip


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(field="import.paths", value=path, why=f"it is no Parquet file ({error})",
                        fix="Download it again.") from error  # fmt: skip


def _parquet_rows(path: Path, wanted: set[int] | None) -> Iterator[NumberedRow]:
    start = 1
    try:
        for batch in _parquet(path).iter_batches(batch_size=BATCH_ROWS):
            rows: list[dict[str, Any]] = []
            if wanted is None or any(start + place in wanted for place in range(batch.num_rows)):
                rows = batch.to_pylist()
            yield from ((start + i, row) for i, row in enumerate(rows) if wanted is None or start + i in wanted)
            start += batch.num_rows
    except (OSError, pa.ArrowException) as error:
        raise UserError(field="import.paths", value=path, why=f"it cannot be read from row {start} on ({error})",
                        fix="Download it again.") from error  # fmt: skip
