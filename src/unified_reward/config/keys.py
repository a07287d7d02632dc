"""The key of a stage: a hash of everything its output depends on. Same key, same output, so it need not run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

from unified_reward.config.model import keyed_values
from unified_reward.config.spec import ArtifactRef
from unified_reward.config.stages import Stage, StageConfig

KEY_LENGTH = 16
# How a stage is started, watched and shown does not change what it makes.
NOT_CODE = (
    "cli", "launch", "pipeline", "tracking", "progress.py", "home.py", "judge_command.py", "serving",
    "evaluation/benchmarks",
)  # fmt: skip
LIBRARIES = ("torch", "transformers", "diffusers", "numpy", "pillow", "av")


def identity(
    stage: Stage, config: StageConfig, inputs: Mapping[str, ArtifactRef], *, seed: int, policy: Mapping[str, str] | None = None,
    models: Mapping[str, str] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """What the output depends on, as JSON. policy: kind and name; models: digests of models named by reference."""
    return {
        "stage": stage.value,
        "config": keyed_values(config),
        "inputs": {name: ref.digest for name, ref in sorted(inputs.items())},
        "models": dict(sorted((models or {}).items())),
        "policy": dict(policy or {}),
        "seed": seed,
        "code": code_digest(),
        "libraries": libraries(),
    }


def key_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits of the sha256 of the canonical JSON."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def difference(before: Mapping[str, Any], after: Mapping[str, Any], prefix: str = "") -> list[str]:
    """What changed between two identities, as `config.steps 200 -> 100`, the most telling first."""
    changes = []
    for name in [
        n for n in ("config", "seed", "policy", "models", "inputs", "code", "libraries") if n in after
    ] or sorted({*before, *after}):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            changes += difference(old, new, f"{prefix}{name}.")
        elif old != new:
            digests = prefix.startswith(("inputs", "models")) or name == "code"
            changes.append(f"{prefix}{name} changed" if digests else f"{prefix}{name} {old} -> {new}")
    return changes


@lru_cache(maxsize=1)
def code_digest() -> str:
    """sha256 (16 hex digits) of the sources that stages run: this package without its launchers, and fsdp_utils."""
    package = Path(__file__).resolve().parent.parent
    sources = [p for p in package.rglob("*") if p.suffix in (".py", ".yaml") and _counts(p.relative_to(package))]
    sources += list((package.parent / "fsdp_utils").glob("*.py"))
    total = hashlib.sha256()
    for path in sorted(sources):
        total.update(f"{path.relative_to(package.parent)}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()[:KEY_LENGTH]


@lru_cache(maxsize=1)
def _library_versions() -> tuple[tuple[str, str], ...]:
    return tuple((name, metadata.version(name).split("+")[0]) for name in LIBRARIES)


def libraries() -> dict[str, str]:
    """Versions of the libraries whose numbers end up in outputs."""
    return dict(_library_versions())


def _counts(path: Path) -> bool:
    return not any(path.is_relative_to(left_out) for left_out in NOT_CODE)
