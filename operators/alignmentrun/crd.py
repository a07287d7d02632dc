"""The custom resource's definition, made from the pydantic models: `python -m operators.alignmentrun.crd [--check]`.

Structural, with defaults; every string, list and map is bounded, so that the API server can afford the CEL rules.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic.alias_generators import to_camel

from unified_reward.config import RunSpec, forms
from unified_reward.config.run import PROMPT_FIELDS, SHAPES, PolicyKind
from unified_reward.launch.rendered import render_file
from unified_reward.pipeline.resource import GROUP, KIND, PLURAL, SHORT, VERSION, ResourceStatus

FILE = Path(__file__).parents[2] / "charts/unified-reward/charts/operator/files/alignmentruns.unifiedreward.dev.yaml"
HEAD = "# Rendered from the config models by `python -m operators.alignmentrun.crd`; do not edit.\n"
Schema = dict[str, Any]
LONGEST_TEXT, MOST_ITEMS, MOST_KEYS = 2048, 64, 64
MUTABLE = ("suspend", "cancel", "ttlSecondsAfterFinished")
COLUMNS = [
    ("Phase", "string", ".status.phase", 0),
    ("Stage", "string", ".status.stage", 0),
    ("Progress", "string", ".status.progress", 0),
    ("Reason", "string", ".status.reason", 0),
    ("Message", "string", ".status.message", 1),
    ("MLflow", "string", ".status.tracking.url", 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
]


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition."""
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "schema": {"openAPIV3Schema": _root()},
        "additionalPrinterColumns": [
            {"name": name, "type": kind, "jsonPath": path, **({"priority": priority} if priority else {})}
            for name, kind, path, priority in COLUMNS
        ],
        "selectableFields": [{"jsonPath": ".status.phase"}, {"jsonPath": ".spec.cluster.queue"}],
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": [SHORT],
        "categories": ["unified-reward"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }


def render() -> str:
    return HEAD + yaml.safe_dump(definition(), sort_keys=False, width=132)


def main() -> int:
    return render_file("Render the definition of AlignmentRun.", FILE, render(), "operators.alignmentrun.crd")


def _root() -> Schema:
    spec = _structural(RunSpec.model_json_schema(by_alias=True), defaults=True)
    status = _structural(ResourceStatus.model_json_schema(by_alias=True), defaults=False)
    for name, properties in spec["properties"].items():
        if name not in MUTABLE:
            properties.setdefault("x-kubernetes-validations", []).append(
                {
                    "rule": "self == oldSelf",
                    "message": f"spec.{name} is fixed once the run exists: make a run of another name",
                }
            )
    spec["properties"]["cancel"]["x-kubernetes-validations"] = [
        {"rule": "!oldSelf || self", "message": "a cancelled run stays cancelled: make a run of another name"}
    ]
    spec["default"] = {name: each["default"] for name, each in spec["properties"].items() if "default" in each}
    _rules(spec)
    status["properties"]["conditions"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
    status["properties"]["stages"] |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    return {
        "type": "object",
        "description": "One run of the whole method, from data to aligned policies.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec,
            "status": status,
        },
        "x-kubernetes-validations": [
            {
                "rule": f"size(self.metadata.name) <= {forms.RUN_NAME.longest}",
                "message": f"metadata.name is longer than {forms.RUN_NAME.longest}: names of pods would be too long",
            }
        ],
    }


def _rules(spec: Schema) -> None:
    """What fields ask of each other, as the models do (the batch at each size of an elastic job is left to them)."""
    policies = spec["properties"]["policies"]
    policies |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    policy = policies["items"]["properties"]
    for stage in (each for place in (spec["properties"], policy) for each in place.values()):
        fields = stage.get("properties", {})
        if "processes" in fields:
            _rule(stage, "self.processes % self.nodes == 0", "processes must be a multiple of nodes")
            _rule(stage, "self.minNodes <= self.nodes", "minNodes must not be above nodes")
        if "globalBatch" in fields:
            _rule(stage, "self.globalBatch % self.processes == 0", "globalBatch must be a multiple of processes")
        if "select" in fields:
            _rule(
                stage,
                "self.select != 'best' || self.validateEvery > 0",
                "select is best: set validateEvery, to choose by",
            )
    _rule(policy["generate"], "self.candidates % 2 == 0", "candidates must be even: they are ranked in disjoint pairs")
    _rule(
        policy["generate"], f"self.engine == 'vllm' || ({_empty('self.engineOptions')} && self.tensorParallel == 1)",
        "engineOptions and tensorParallel are vllm's: set engine to vllm, or leave them out",
    )  # fmt: skip
    _rule(
        policy["generate"],
        "self.engine != 'vllm' || self.gpu == 0 || self.gpu >= self.processes / self.nodes * self.tensorParallel",
        "gpu must be processes of a pod x tensorParallel, or more: each has an engine of its own",
    )
    _rule(
        policies["items"], "self.kind != 'diffusion' || self.generate.engine != 'vllm'",
        "a diffusion policy draws images, and generate.engine vllm writes text",
    )  # fmt: skip
    _rule(
        policy["policyEval"], "self.grader != 'truth' || (self.judge == '' && self.judgeTemplate == '')",
        "grader is truth, so no judge is asked: leave one of them out",
    )  # fmt: skip
    _rule(
        policy["policyEval"], "self.judge != '' || self.judgeTemplate == ''",
        "this run's judge speaks the words it was trained with: leave judgeTemplate out, or name another judge",
    )  # fmt: skip
    _rule(
        spec["properties"]["cluster"]["properties"]["image"], "!self.endsWith(':latest')",
        "an image needs a version or a digest: with latest a retry may run other code",
    )  # fmt: skip
    for kind, field in PROMPT_FIELDS.items():
        _rules_for_prompts(spec, kind, to_camel(field))


def _rules_for_prompts(spec: Schema, kind: PolicyKind, field: str) -> None:
    """Every policy is asked something, and nothing counts on a truth that its prompts do not tell."""
    none = _empty(f"self.__import__.{field}")  # import is a reserved word of CEL

    def no_policy(more: str = "") -> str:
        return f"(!has(self.policies) || !self.policies.exists(p, p.kind == '{kind}'{more}))"

    _rule(
        spec, f"self.__import__.source == '{SHAPES}' || !{none} || {no_policy()}",
        f"import.{field} is empty: a {kind} policy would be asked nothing. Name files of prompts, or remove the policy",
    )  # fmt: skip
    for wish, way_out in (
        ("p.policyEval.grader == 'truth'", "policyEval.grader cannot be truth: use judge, or leave it out"),
        ("p.dpoTrain.validateEvery > 0", "dpoTrain.validateEvery must be 0 (and select: last)"),
    ):
        _rule(
            spec, f"{none} || {no_policy(f' && {wish}')}",
            f"prompts from import.{field} tell no facts to grade by: {way_out}",
        )  # fmt: skip


def _empty(path: str) -> str:
    """Lists are the fields for which the API server knows no default."""
    return f"(!has({path}) || size({path}) == 0)"


def _rule(schema: Schema, rule: str, message: str) -> None:
    """A CEL rule of the API server's."""
    schema.setdefault("x-kubernetes-validations", []).append({"rule": rule, "message": message})


def _structural(schema: Schema, *, defaults: bool) -> Schema:
    """JSON schema as pydantic writes it, as the API server wants it."""
    return _convert(schema, schema.get("$defs", {}), defaults)


def _convert(schema: Schema, definitions: dict[str, Schema], defaults: bool) -> Schema:
    if "$ref" in schema:
        merged = {
            **definitions[schema["$ref"].rpartition("/")[2]],
            **{key: value for key, value in schema.items() if key != "$ref"},
        }
        return _convert(merged, definitions, defaults)
    for several in ("anyOf", "allOf"):
        if several in schema:
            options = [option for option in schema[several] if option.get("type") != "null"]
            rest = {key: value for key, value in schema.items() if key not in (several, "default")}
            found = _convert({**options[0], **rest}, definitions, defaults)
            found.pop("default", None)
            return {**found, "nullable": True} if len(options) < len(schema[several]) else found
    kind = schema.get("type") or ("string" if "enum" in schema or "const" in schema else "object")
    found = {"type": kind}
    for name in (
        "description",
        "enum",
        "pattern",
        "minLength",
        "maxLength",
        "minimum",
        "maximum",
        "minItems",
        "maxItems",
    ):
        if name in schema:
            found[name] = schema[name]
    if "const" in schema:
        found["enum"] = [schema["const"]]
    for name, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if name in schema:
            found |= {bound: schema[name], name: True}
    _rule_for_fractions(found)
    _bound(found, schema)
    if kind == "object" and "properties" in schema:
        found["properties"] = {
            name: _convert(each, definitions, defaults) for name, each in schema["properties"].items()
        }
        if schema.get("required"):
            found["required"] = schema["required"]
        elif defaults:
            found["default"] = {
                name: each["default"] for name, each in found["properties"].items() if "default" in each
            }
    elif kind == "object":
        keyed = schema.get("patternProperties", {})
        pattern, values = next(iter(keyed.items()), ("", schema.get("additionalProperties") or {"type": "string"}))
        found["additionalProperties"] = _convert(values, definitions, defaults)
        if pattern:
            form = next(form for form in (forms.KEY, forms.VARIABLE) if form.anchored == pattern)
            _rule(
                found, f"self.all(key, key.matches(r'{pattern}'))", f"a key is {form.else_it_is}. As in {form.example}"
            )
    if kind == "array":
        found["items"] = _convert(schema["items"], definitions, defaults)
    if defaults and schema.get("default") is not None:
        found["default"] = schema["default"]
    return found


def _rule_for_fractions(found: Schema) -> None:
    """The API server cuts a bound like 0.5 to a whole number where the value is one, and then refuses 0; CEL does not."""
    bound = found.get("maximum")
    if isinstance(bound, float) and not bound.is_integer():
        sign = "<" if found.pop("exclusiveMaximum", False) else "<="
        del found["maximum"]
        found["x-kubernetes-validations"] = [
            {"rule": f"double(self) {sign} {bound}", "message": f"must be {sign} {bound}"}
        ]


def _bound(found: Schema, schema: Schema) -> None:
    if found["type"] == "string" and "enum" not in found:
        found.setdefault("maxLength", LONGEST_TEXT)
    elif found["type"] == "array":
        found.setdefault("maxItems", MOST_ITEMS)
    elif found["type"] == "object" and "properties" not in schema:
        found["maxProperties"] = schema.get("maxProperties", MOST_KEYS)


if __name__ == "__main__":
    sys.exit(main())
