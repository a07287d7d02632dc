"""The base of all config models: unknown keys are errors, documents are camelCase, Python is snake_case."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic_core import PydanticCustomError


class Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, populate_by_name=True, validate_default=True
    )


def unkeyed(default: Any, **field: Any) -> Any:
    """A field that says how a stage runs, not what it makes: it stays out of the stage's key."""
    return Field(default, json_schema_extra={"keyed": False}, **field)


def keyed_values(config: Model) -> dict[str, Any]:
    """The values of `config` that decide what the stage makes, as JSON types by field name."""
    kept = {
        name for name, info in type(config).model_fields.items()
        if not (isinstance(info.json_schema_extra, dict) and info.json_schema_extra.get("keyed") is False)
    }  # fmt: skip
    return config.model_dump(mode="json", include=kept)


def fault(field: str, value: object, why: str, fix: str) -> PydanticCustomError:
    """A mistake of one field that only shows beside others; `load` turns it into a UserError with the field's path.

    field: below the model that notices it, dotted (`policies.0.policy_eval.grader`); "" = the one that is looked at.
    """
    path = ".".join(to_camel(part) for part in field.split("."))
    context = {"field": path, "value": str(value), "why": why, "fix": fix}
    return PydanticCustomError("fault", "{field} is {value}: {why}. {fix}", context)
