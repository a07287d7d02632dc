"""The resource's definition: current, small, and bounded, so that every API server installs it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from operators.alignmentrun.crd import FILE, definition, render
from unified_reward.pipeline.resource import ResourceStatus

from .world import World

CLIENT_SIDE_APPLY_BYTES = 256 * 1024
Schema = dict[str, Any]


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if isinstance(schema.get(name), dict):
            yield from nodes(schema[name], f"{path}[]")


def root() -> Schema:
    schema: Schema = definition()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def test_the_file_in_the_chart_is_current_and_small_enough_for_kubectl_apply() -> None:
    assert FILE.read_text(encoding="utf-8") == render()
    assert len(render()) < CLIENT_SIDE_APPLY_BYTES


def test_every_text_list_and_map_is_bounded() -> None:
    for name in ("spec", "status"):
        for path, schema in nodes(root()["properties"][name], name):
            kind = schema["type"]
            if kind == "string" and "enum" not in schema:
                assert "maxLength" in schema, path
            if kind == "array":
                assert "maxItems" in schema, path
            if kind == "object" and "properties" not in schema:
                assert "maxProperties" in schema, path


def test_it_is_structural() -> None:
    for path, schema in nodes(root()):
        assert not {"$ref", "anyOf", "allOf", "oneOf", "$defs"} & set(schema), path
        assert "type" in schema, path


def test_only_what_may_change_may_change() -> None:
    spec = root()["properties"]["spec"]["properties"]
    fixed = {name for name, each in spec.items()
             if any(rule["rule"] == "self == oldSelf" for rule in each.get("x-kubernetes-validations", []))}  # fmt: skip
    assert set(spec) - fixed == {"suspend", "cancel", "ttlSecondsAfterFinished"}
    assert spec["cancel"]["x-kubernetes-validations"][0]["rule"] == "!oldSelf || self"


def test_all_that_a_status_says_is_in_the_schema() -> None:
    """An API server drops, or refuses, what is not."""
    world = World()
    world.settle()
    world.fail("r-import-a1", 137)
    world.settle()
    said = ResourceStatus.model_validate(world.run["status"]).document()

    def check(value: Any, schema: Schema, path: str) -> None:
        if isinstance(value, dict):
            for name, child in value.items():
                known = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
                assert known, f"{path}.{name}"
                check(child, known, f"{path}.{name}")
        if isinstance(value, list):
            assert len(value) <= schema["maxItems"]
            for child in value:
                check(child, schema["items"], f"{path}[]")
        if isinstance(value, str):
            assert len(value) <= schema.get("maxLength", len(value))
            assert value in schema.get("enum", [value])

    check(said, root()["properties"]["status"], "status")
