"""What `import.paths` names: files and folders with their format and share, and mixes of them in a YAML file.

    [FORMAT=]PATH[@STRATEGY]     a table, or a folder of them; the strategy says which of its rows to take
    MIX.yaml                     UnifiedReward's train_data.yaml: json_path, sampling_strategy, image_folder of each data set

Strategies are those of LLaVA-NeXT's loader: all, first:N, end:N, random:N, each N also as a percentage, rounded up. N above
the number of rows takes all. Rows taken at random keep their order: the trainers shuffle.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from unified_reward.data.format import Format
from unified_reward.data.formats import AUTO, format_named
from unified_reward.data.tables import KINDS, count_rows, is_table
from unified_reward.errors import UserError

FIELD = "import.paths"
STRATEGY = re.compile(r"all|(first|end|random):(\d+)(%?)")
ENTRY = re.compile(r"(?:(?P<format>[A-Za-z][\w-]*)=)?(?P<path>.+?)(?:@(?P<strategy>[a-z]+(?::[^@/]*)?))?")
MIX_KEYS = ("json_path", "sampling_strategy", "image_folder", "format")


@dataclass(frozen=True)
class Source:
    """One file. format: None = told by its first row. folders: where its media may lie, in the order they are tried."""

    path: Path
    format: Format | None
    strategy: str = "all"
    folders: tuple[Path, ...] = ()


def read_sources(paths: Sequence[str], name: str, media_root: Path, folder: Path = Path()) -> list[Source]:
    """The sources of `import.paths`. name: the format of those that name none, or `auto`. folder: where paths start.

    Raises UserError.
    """
    default = None if name in (AUTO, "files") else format_named(name)
    if not paths:
        raise UserError(field=FIELD, value=None, why=f"source is {name}", fix="Name files, folders or a mix to read.")
    return [source for entry in paths for source in _entry(entry, default, media_root, folder)]


def file_labels(paths: Sequence[Path]) -> list[str]:
    """Each file's name, with as much of its folder as tells it from the others."""
    lengths = range(1, max((len(path.parts) for path in paths), default=1) + 1)
    tails = [["/".join(path.parts[-length:]) for path in paths] for length in lengths]
    times = [Counter(each) for each in tails]
    return [
        next((tail[place] for tail, count in zip(tails, times, strict=True) if count[tail[place]] == 1), str(path))
        for place, path in enumerate(paths)
    ]


def chosen_rows(source: Source, seed: int) -> set[int] | None:
    """Numbers (from 1 on) of the rows that the strategy takes; None = all. Raises UserError."""
    way, amount, percent = _strategy(source.strategy, source.path.name)
    if way is None:
        return None
    total = count_rows(source.path)
    take = math.ceil(int(amount) * total / 100) if percent else int(amount)
    numbers = range(1, total + 1)
    if take >= total:
        return None
    if way == "random":
        return set(random.Random(f"{seed} {source.path.name}").sample(numbers, take))
    return set(numbers[:take] if way == "first" else numbers[total - take :])


def _strategy(text: str, where: str) -> tuple[str | None, str, str]:
    """(way, amount, "%" or ""); no way = all. Raises UserError."""
    match = STRATEGY.fullmatch(text)
    if match is None:
        raise UserError(field=f"{FIELD} {where}", value=text, why="there is no such strategy",
                        fix="Use all, first:N, end:N or random:N; N may be a percentage (random:10%).")  # fmt: skip
    return match[1], match[2] or "0", match[3] or ""


def _entry(entry: str, default: Format | None, media_root: Path, folder: Path) -> list[Source]:
    whole = folder / Path(entry).expanduser()
    match = ENTRY.fullmatch(entry)
    if whole.exists() or match is None:
        name, path, strategy = None, whole, "all"
    else:
        name, path, strategy = match["format"], folder / Path(match["path"]).expanduser(), match["strategy"] or "all"
    form = default if name in (None, AUTO) else format_named(str(name), FIELD)
    _strategy(strategy, path.name)
    if path.suffix.lower() in (".yaml", ".yml"):
        return _mix(path, form, media_root)
    return [
        Source(file, form, strategy, (media_root, file.parent)) for file in _tables(path)
    ]  # the same strategy for each file of a folder


def _tables(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(each for each in path.rglob("*") if is_table(each) and not each.name.startswith("."))
        if found:
            return found
        raise UserError(
            field=FIELD, value=path, why=f"there is no {', '.join(KINDS)} file in it", fix="Name another folder."
        )
    if not path.is_file():
        raise UserError(field=FIELD, value=path, why="there is no such file", fix="Check the path.")
    return [path]


def _mix(path: Path, default: Format | None, media_root: Path) -> list[Source]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise UserError(
            field=FIELD, value=path, why=f"it cannot be read ({reason})", fix="Give a YAML file."
        ) from error
    entries = content.get("datasets") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise UserError(field=FIELD, value=path, why="it has no list `datasets`",
                        fix="Give datasets: a list of json_path, sampling_strategy and image_folder.")  # fmt: skip
    return [
        source for number, entry in enumerate(entries) for source in _mixed(path, number, entry, default, media_root)
    ]


def _mixed(mix: Path, number: int, entry: Any, default: Format | None, media_root: Path) -> list[Source]:
    where = f"{mix.name} datasets[{number}]"
    if not isinstance(entry, dict) or "json_path" not in entry:
        raise UserError(field=where, value=entry, why="it has no json_path", fix=f"Keys are {', '.join(MIX_KEYS)}.")
    unknown = sorted(set(entry) - set(MIX_KEYS))
    if unknown:
        raise UserError(field=f"{where}.{unknown[0]}", value=entry[unknown[0]], why="there is no such key",
                        fix=f"Keys are {', '.join(MIX_KEYS)}.")  # fmt: skip
    form = format_named(str(entry["format"]), f"{where}.format") if "format" in entry else default
    tables = _tables(_beside(mix, str(entry["json_path"])))
    folder = (_beside(mix, str(entry["image_folder"])),) if entry.get("image_folder") else ()
    strategy = str(entry.get("sampling_strategy") or "all").strip()
    _strategy(strategy, where)
    return [Source(file, form, strategy, (*folder, media_root, file.parent)) for file in tables]


def _beside(mix: Path, name: str) -> Path:
    """Paths in a mix start where the trainer is run from; here also at the mix's own folder and the one above."""
    path = Path(name).expanduser()
    places = [path] if path.is_absolute() else [path, mix.parent / path, mix.parent.parent / path]
    return next((place for place in places if place.exists()), places[-1 if path.is_absolute() else 1])
