"""From YAML to a checked `AlignmentRun`; every mistake becomes one line that names the field and the way out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from unified_reward.config.run import AlignmentRun
from unified_reward.errors import UserError

ModelType = TypeVar("ModelType", bound=BaseModel)


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, as Kubernetes does; plain YAML would silently take the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_document(path: Path, overrides: Sequence[str] = ()) -> AlignmentRun:
    """Read and check a run document. overrides: `spec.rewardTrain.steps=50`, YAML values.

    Raises UserError naming the first mistake.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = f"it cannot be read ({error})"
        raise UserError(field="FILE", value=path, why=why, fix="Name a YAML file.") from error
    return parse_document(text, name=str(path), overrides=overrides)


def parse_document(text: str, *, name: str, overrides: Sequence[str] = ()) -> AlignmentRun:
    """`load_document` for text already in memory."""
    try:
        documents = [d for d in yaml.load_all(text, StrictLoader) if d is not None]
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        why = f"it is no valid YAML: {' '.join(str(error).split())}"
        raise UserError(field="FILE", value=name, why=why, fix="Mend the syntax.") from error
    if len(documents) != 1 or not isinstance(documents[0], dict):
        raise UserError(
            field="FILE", value=name, why=f"it holds {len(documents)} documents where one mapping is wanted",
            fix="Write one AlignmentRun per file (see jobs/examples/shapes.yaml).",
        )  # fmt: skip
    document = documents[0]
    for override in overrides:
        _override(document, override)
    return validate(AlignmentRun, document)


def override_value(override: str) -> tuple[str, Any]:
    """`PATH=VALUE` -> path and value, which is YAML. Raises UserError."""
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise UserError(field="--set", value=override, why="it is not of the form PATH=VALUE",
                        fix="Write for example --set spec.rewardTrain.steps=50.")  # fmt: skip
    try:
        return path, yaml.load(text, StrictLoader)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        why = f"its value is no valid YAML ({getattr(error, 'problem', None) or error})"
        raise UserError(field="--set", value=override, why=why, fix="Mend it, or put it in quotes.") from error


def validate(model: type[ModelType], values: Mapping[str, Any], prefix: str = "") -> ModelType:
    """`model.model_validate` with pydantic's complaint turned into a UserError."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _explain(model, error, prefix) from None


def _override(document: dict[str, Any], override: str) -> None:
    path, value = override_value(override)
    *parents, last = path.split(".")
    node: Any = document
    for depth, part in enumerate(parents):
        node = node[int(part)] if isinstance(node, list) and part.isdigit() and int(part) < len(node) else (
            node.setdefault(part, {}) if isinstance(node, dict) else None
        )  # fmt: skip
        if not isinstance(node, dict | list):
            why = f"{'.'.join(parents[: depth + 1])} is no section"
            fix = "Follow the document's structure; list items go by number (spec.policies.0.score.way)."
            raise UserError(field="--set", value=override, why=why, fix=fix)
    if isinstance(node, list) and last.isdigit() and int(last) < len(node):
        node[int(last)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(field="--set", value=override, why="it points into a list", fix="Name an item by its number.")


def _explain(model: type[BaseModel], error: ValidationError, prefix: str) -> UserError:
    first = error.errors()[0]
    if first["loc"][-1:] == ("[key]",):  # of a mapping: told as the mapping's, with the key as its value
        first["loc"] = first["loc"][:-2]
    path = ".".join([prefix, *map(str, first["loc"])] if prefix else map(str, first["loc"]))
    more = f" ({error.error_count() - 1} more mistakes follow.)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1, cutoff=0.5)
        fix = f"Did you mean {near[0]}?" if near else f"Fields here: {', '.join(known)}."
        return UserError(field=path, value=first["input"], why="there is no such field", fix=fix + more)
    if first["type"] == "missing":
        return UserError(field=path, value=None, why="it is required", fix="Set it." + more)
    if first["type"] == "fault":
        context = first["ctx"]
        field = ".".join(filter(None, (path, context["field"])))
        return UserError(
            field=field or "document", value=context["value"], why=context["why"], fix=context["fix"] + more
        )
    return UserError(field=path or "document", value=first["input"], why=first["msg"], fix=_hint(first) + more)


def _hint(first: Any) -> str:
    expected = (first.get("ctx") or {}).get("expected")
    return f"Use {expected}." if expected else "Correct the value."


def _fields_at(model: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """The names that the document may use at `location`."""
    node: Any = model
    for part in location:
        if isinstance(part, int):
            continue
        for name, info in node.model_fields.items():
            if part in (name, info.alias):
                node = _model_in(info.annotation) or node
    return [info.alias or name for name, info in node.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((m for a in getattr(annotation, "__args__", ()) if (m := _model_in(a))), None)
