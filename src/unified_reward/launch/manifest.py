"""A manifest as text, and a person's YAML merged over one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unified_reward.errors import UserError


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """YAML that kubectl reads as it was meant."""
    return str(yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=1000))


def read_overlay(file: str) -> Mapping[str, Any]:
    """A part of a manifest. Raises UserError."""
    try:
        values = yaml.safe_load(Path(file).expanduser().read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(field="-cfg overlay", value=file, why=f"it cannot be read ({' '.join(str(error).split())})",
                        fix="Name a YAML file with a part of a PyTorchJob.") from None  # fmt: skip
    if not isinstance(values, dict):
        raise UserError(
            field="-cfg overlay", value=file, why="it is no mapping", fix="Start it with spec: or metadata:."
        )
    return values


def merged(below: Any, above: Any) -> Any:
    """`above` over `below`: mappings by key, null removes, lists of named things by name, all else replaces."""
    if isinstance(below, dict) and isinstance(above, dict):
        keys = [*below, *(key for key in above if key not in below)]
        kept = [key for key in keys if not (key in above and above[key] is None)]
        return {key: merged(below.get(key), above[key]) if key in above else below[key] for key in kept}
    if _is_named(below) and _is_named(above):
        changes = {one["name"]: one for one in above}
        old = [merged(one, changes.pop(one["name"], {})) for one in below]
        return old + list(changes.values())
    return above


def _is_named(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "name" in one for one in value)


class _Dumper(yaml.SafeDumper):
    """Quotes what kubectl's reader takes for something else and PyYAML's does not: y, n, 1e3, 0o7."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_AMBIGUOUS = re.compile(r"[yYnN]|[-+.]?[0-9][0-9a-fA-FxXoO_.:+-]*")
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style="'" if _AMBIGUOUS.fullmatch(text) else None
    ),
)
