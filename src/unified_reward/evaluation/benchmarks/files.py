"""Verdict files and benchmark data as rows with line numbers: JSONL or one JSON array, plain or gzip."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unified_reward.errors import UserError

GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True)
class Row:
    """One JSON object. place: `line 7` of a JSONL file, `entry 7` of an array, both from 1."""

    place: str
    values: dict[str, Any]

    def error(self, path: Path, why: str, fix: str) -> UserError:
        return UserError(field=f"{path}, {self.place}", value=json.dumps(self.values), why=why, fix=fix)


def read_rows(path: Path, field: str) -> list[Row]:
    """Rows of a file. field: the option that named it. Empty lines are left out; UserError for all else that is no object."""
    text = _read_text(path, field)
    if text.strip() in ("", "[]"):
        raise UserError(
            field=field, value=path, why="the file is empty", fix="Name a file with one JSON object a line."
        )
    if text.lstrip().startswith("["):
        return _array(path, text)
    return [_line(path, number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def _read_text(path: Path, field: str) -> str:
    if not path.is_file():
        raise UserError(
            field=field, value=path, why="there is no such file", fix="Name a .jsonl or .json file, or its .gz."
        )
    try:
        raw = path.read_bytes()
        return (gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(field=field, value=path, why=f"it cannot be read as text ({error})",
                        fix="Name a .jsonl or .json file in UTF-8, or its .gz.") from error  # fmt: skip


def _array(path: Path, text: str) -> list[Row]:
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(field=f"{path}, line {error.lineno}", value=text[error.pos : error.pos + 40],
                        why=f"the JSON array breaks off here ({error.msg})",
                        fix="Mend the file, or write it again.") from error  # fmt: skip
    return [_row(path, f"entry {number}", value) for number, value in enumerate(values, start=1)]


def _line(path: Path, number: int, line: str) -> Row:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(field=f"{path}, line {number}", value=line, why=f"it is no JSON ({error.msg})",
                        fix="Write one JSON object a line, or one array of objects.") from error  # fmt: skip
    return _row(path, f"line {number}", value)


def _row(path: Path, place: str, value: object) -> Row:
    if not isinstance(value, dict):
        raise UserError(field=f"{path}, {place}", value=json.dumps(value), why="it is no JSON object",
                        fix="Write one JSON object a line, or one array of objects.")  # fmt: skip
    return Row(place, value)
