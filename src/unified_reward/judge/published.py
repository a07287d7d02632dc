"""Prompts that released checkpoints were trained with, from a file the user has -> template packs.

    write_packs(Path("prompts.json"), Path("packs"))     # {"IG_PAIR": "You are given ...", ...} -> packs/ur-1.0.yaml, ...

`published.yaml` holds what is ours: the task of each prompt and how its answer is read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from unified_reward.errors import UserError
from unified_reward.judge.pack import Pack, parse_pack
from unified_reward.records import Task


def prompt_places() -> dict[str, list[tuple[str, Task]]]:
    """Name of a prompt -> pack and task of each template that is made of it."""
    places: dict[str, list[tuple[str, Task]]] = {}
    for pack, tasks in _grammars()["packs"].items():
        for task, grammar in tasks.items():
            places.setdefault(grammar["prompt"], []).append((pack, Task(task)))
    return places


def read_prompts(path: Path) -> dict[str, str]:
    """A JSON object of name -> prompt. Raises UserError when it is none, or holds no prompt that is known."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(field="prompts", value=path, why=f"it cannot be read ({error})",
                        fix="Give a JSON file that maps names to prompts.") from error  # fmt: skip
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise UserError(field="prompts", value=path, why="it is no mapping of names to texts",
                        fix='Write {"IG_PAIR": "...", "IG_POINT": "..."}.')  # fmt: skip
    if not set(found) & set(prompt_places()):
        raise UserError(field="prompts", value=path, why="it holds no prompt of a known name",
                        fix=f"Names: {', '.join(prompt_places())}.")  # fmt: skip
    return found


def published_packs(prompts: Mapping[str, str]) -> dict[str, Pack]:
    """Name -> pack, of those that any of the prompts belongs to; a task without its prompt is left out."""
    packs = {}
    for name, tasks in _grammars()["packs"].items():
        given = {task: _template(grammar, prompts) for task, grammar in tasks.items() if grammar["prompt"] in prompts}
        if given:
            document = {
                "name": name,
                "version": 1,
                "video": "frames",
                "replace": _grammars()["replace"],
                "tasks": given,
            }
            packs[name] = parse_pack(yaml.safe_dump(document), origin=name)
    return packs


def write_packs(file: Path, folder: Path) -> list[Path]:
    """The packs of a file of prompts as YAML files in `folder`."""
    written = []
    for name, pack in published_packs(read_prompts(file)).items():
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.yaml"
        path.write_text(pack.to_yaml(), encoding="utf-8")
        written.append(path)
    return written


def _template(grammar: Mapping[str, Any], prompts: Mapping[str, str]) -> dict[str, Any]:
    template = {**grammar, "prompt": prompts[grammar["prompt"]]}
    if "scores" in template:
        low, high = template["scores"]
        template["scores"] = {f" {score}": score for score in range(low, high + 1)}
    return template


@lru_cache(maxsize=1)
def _grammars() -> dict[str, Any]:
    text = resources.files("unified_reward.judge").joinpath("published.yaml").read_text(encoding="utf-8")
    grammars: dict[str, Any] = yaml.safe_load(text)
    return grammars
