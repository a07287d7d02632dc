"""A manifest as text, and a person's YAML merged over one."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from unified_reward.config.load import StrictLoader
from unified_reward.errors import UserError
from unified_reward.launch.pytorchjob import APP, ATTEMPT, CONTAINER, MANAGED_BY

SECTIONS = ("apiVersion", "kind", "metadata", "spec")
# What status, log and cancel find a job by, and the option that says it.
IDENTITY = {("apiVersion",): "", ("kind",): "", ("metadata", "name"): "job_id", ("metadata", "namespace"): "namespace"}
LABELS = (MANAGED_BY, APP, ATTEMPT)
CONTAINERS = ("spec", "pytorchReplicaSpecs", "Worker", "template", "spec", "containers")


def manifest_text(manifest: Mapping[str, Any]) -> str:
    """YAML that kubectl reads as it was meant."""
    return str(yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, width=1000))


def read_overlay(file: str) -> Mapping[str, Any]:
    """A part of a manifest. Raises UserError."""
    path = Path(os.path.expanduser(file))  # of an unknown ~user it makes nothing
    if not path.is_file():
        raise _refused(
            file,
            "it is no file" if path.exists() else "there is no such file",
            "Name a YAML file with a part of a PyTorchJob.",
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), StrictLoader)
    except (OSError, yaml.YAMLError, ValueError) as error:  # ValueError: no UTF-8, a date that is none
        why = f"it cannot be read ({' '.join(str(error).split())})"
        raise _refused(file, why, "Name a YAML file with a part of a PyTorchJob.") from None
    if not isinstance(values, dict):
        raise _refused(file, "it is no mapping", "Start it with spec: or metadata:.")
    unknown = next((key for key in values if key not in SECTIONS), None)
    if unknown is not None:
        raise _refused(file, f"a PyTorchJob has no section {unknown}", f"Sections are {', '.join(SECTIONS)}.")
    _require_json(values, file)
    return values


def overlaid(manifest: dict[str, Any], values: Mapping[str, Any], file: str) -> dict[str, Any]:
    """The manifest with an overlay; it may not make another job of it than the one that is asked about. Raises UserError."""
    result: dict[str, Any] = merged(manifest, values)
    for path in (*IDENTITY, *(("metadata", "labels", label) for label in LABELS)):
        if _at(result, path) != _at(manifest, path):
            fix = f"Use -cfg {IDENTITY[path]}." if IDENTITY.get(path) else "Leave it out of the file."
            raise _refused(file, f"it changes {'.'.join(path)}", fix)
    containers = _at(result, CONTAINERS)
    if not _is_named(containers) or all(one["name"] != CONTAINER for one in containers):
        raise _refused(file, f"no container {CONTAINER} is left in {'.'.join(CONTAINERS)}",
                       f"Begin an entry of the list with - name: {CONTAINER}, and it is merged over ours.")  # fmt: skip
    return result


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


def _require_json(value: Any, file: str, path: str = "", above: tuple[int, ...] = ()) -> None:
    """Only what JSON has: no dates, no numbers as keys, nothing that holds itself. Raises UserError."""
    if id(value) in above:
        raise _refused(file, f"{path} holds itself", "Write it out.")
    above = (*above, id(value))
    if isinstance(value, dict):
        for key, each in value.items():
            if not isinstance(key, str):
                raise _refused(file, f"the key {key} in {path or 'it'} is no text", "Put it in quotes.")
            _require_json(each, file, f"{path}.{key}".lstrip("."), above)
    elif isinstance(value, list):
        for number, each in enumerate(value):
            _require_json(each, file, f"{path}.{number}", above)
    elif value is not None and not isinstance(value, str | bool | int | float):
        raise _refused(file, f"{path} is a {type(value).__name__}", "Put it in quotes.")


def _at(manifest: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        manifest = manifest.get(key) if isinstance(manifest, dict) else None
    return manifest


def _refused(file: str, why: str, fix: str) -> UserError:
    return UserError(field="-cfg overlay", value=file, why=why, fix=fix)


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
