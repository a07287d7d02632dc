"""Writes docs/document.md from the config models: every field of a document, its type, its default and what it means.

python -m unified_reward.launch.render_docs [--check]
"""

from __future__ import annotations

import enum
import inspect
import sys
import textwrap
import types
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from unified_reward.config import AlignmentRun, StageConfig, TrainLoopConfig
from unified_reward.config.forms import Form
from unified_reward.launch.rendered import render_file

FILE = Path(__file__).parents[3] / "docs" / "document.md"
EXAMPLE = """\
apiVersion: unifiedreward.dev/v1alpha1
kind: AlignmentRun
metadata:
  name: mine
spec:
  seed: 0
  import:                                   # data: judge records, and prompts for the policies
    source: files
    paths: [preferences.jsonl]
    vlmPrompts: [questions.jsonl]
  rewardTrain:                              # train the judge
    base: models/Qwen2.5-VL-7B-Instruct
    template: default
    steps: 2000
    learningRate: 2.5e-6
    optimizer: adamw
    processes: 8
  rewardEval: {batch: 32}                   # measure it on held-out records
  policies:                                 # align as many models with it as you like
    - name: qwen
      kind: vlm
      base: models/Qwen2.5-VL-3B-Instruct
      generate: {candidates: 10}            # answers of the policy
      score: {way: pair_point}              # the judge chooses the best and the worst of them
      dpoTrain: {steps: 500, learningRate: 5.0e-7, optimizer: adamw, processes: 8}
      policyEval: {grader: judge}           # before against after
"""
HEAD = f"""\
<!-- Rendered from the config models by `python -m unified_reward.launch.render_docs`; do not edit. -->

# The document

A run is one YAML file, the same on a laptop (`unified-reward run FILE`) and on a cluster (`kubectl apply -f FILE`):

```yaml
{EXAMPLE}```

`jobs/examples/` has documents of real sizes. What is left out has its default, which is that of the shapes world
([shapes.md](shapes.md)): for a real model set at least steps, learning rate and optimizer. A name that is not on this page is an
error, and so is a value that does not fit; the line says which, why, and the way out. `--set spec.rewardTrain.steps=50` changes one
field for one call, and `unified-reward schema` prints all fields as a JSON schema. A stage by itself takes the same ones, written
with underscores: `torchx run -s local_cwd ur.reward_train --learning_rate 1e-4`.

A star marks a field that says how a stage runs and not what it makes: after a change of it nothing is run again
([running.md](running.md)). A word with a colon before a meaning says where alone the field counts: on a *cluster*, with the
*shapes* world or *files* as `import.source`, for a *VLM* or a *diffusion* policy, with *lora* or *vllm*. A model (`base`, `judge`)
is `builtin:NAME` (ships with the package), a directory of Hugging Face files, or `store:PREFIX` ([store.md](store.md)).
"""
# What sections have in common stands once, under these titles.
SHARED: dict[type[BaseModel], str] = {StageConfig: "Every stage", TrainLoopConfig: "Both trainings"}
BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
WIDTH = 132
WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def render() -> str:
    """The whole page."""
    return HEAD + "".join(f"\n{_section(path, model)}" for path, model in _models(AlignmentRun, "").items())


def main() -> int:
    return render_file(
        "Render the page of the document from the config models.", FILE, render(), "unified_reward.launch.render_docs"
    )


def _models(model: type[BaseModel], path: str) -> dict[str, type[BaseModel]]:
    """The sections of the page in the order of the document: path -> model; what stages share, before the first of them."""
    found: dict[str, type[BaseModel]] = {path: model}
    for name, info in model.model_fields.items():
        inner, many = _model_in(info.annotation)
        if inner is None:
            continue
        if issubclass(inner, StageConfig):
            found |= {title: shared for shared, title in SHARED.items()}
        found |= _models(inner, _below(path, name, info, many=many))
    return found


def _section(path: str, model: type[BaseModel]) -> str:
    text = " ".join((model.__doc__ or "").split())
    title = path if model in SHARED else f"`{path}`" if path else "The whole"
    above = [f"[{name}](#{_anchor(name)})" for base, name in SHARED.items() if issubclass(model, base)]
    if model not in SHARED and above:
        text += f" It has the fields of {' and '.join(above)}, and:"
    own = [name for name in inspect.get_annotations(model) if name in model.model_fields]
    rows = [_row(path, name, model.model_fields[name]) for name in own]
    head = ["| field | type | default | meaning |", "|---|---|---|---|"]
    return "\n".join([f"## {title}", "", *textwrap.wrap(text, WIDTH, break_on_hyphens=False), "", *head, *rows, ""])


def _row(path: str, name: str, info: FieldInfo) -> str:
    extra = info.json_schema_extra
    star = r" \*" if isinstance(extra, dict) and extra.get("keyed") is False else ""
    inner, many = _model_in(info.annotation)
    meaning = info.description or ""
    if inner is not None:
        below = _below(path, name, info, many=many)
        meaning = f"{meaning}; its fields: [`{below}`](#{_anchor(below)})".removeprefix("; ")
    cells = [f"`{info.alias or name}`{star}", _type(info), _default(info), meaning]
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _below(path: str, name: str, info: FieldInfo, *, many: bool) -> str:
    return f"{path}.{info.alias or name}".lstrip(".") + ("[]" if many else "")


def _type(info: FieldInfo) -> str:
    inner, many = _model_in(info.annotation)
    if inner is not None:
        return "list of sections" if many else "section"
    return _named(info.annotation, info.metadata)


def _named(kind: Any, metadata: list[Any]) -> str:
    """A type in words, with its bounds and, of a name or a size, an example."""
    if get_origin(kind) is Annotated:
        kind, *metadata = get_args(kind)
    if get_origin(kind) is list:
        (item,) = get_args(kind)
        return f"list: {_named(item, [])}"
    if get_origin(kind) is dict:
        key, value = get_args(kind)
        return f"mapping: {_named(key, [])} to {_named(value, [])}"
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind) if value)
    if issubclass(kind, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return ", ".join([WORDS[kind], *_bounds(metadata), *_example(metadata)])


def _bounds(metadata: list[Any]) -> list[str]:
    said = {name: getattr(one, name) for one in metadata for name in BOUNDS if hasattr(one, name)}
    if "ge" in said and "le" in said:
        return [f"{said['ge']} to {said['le']}"]
    return [f"{sign} {said[name]}" for name, sign in BOUNDS.items() if name in said]


def _example(metadata: list[Any]) -> list[str]:
    checks = [getattr(one.func, "__self__", None) for one in metadata if isinstance(one, AfterValidator)]
    return [f"as `{form.example}`" for form in checks if isinstance(form, Form)]


def _default(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if isinstance(default, BaseModel) or default in (None, "", [], {}):
        return ""
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default.value if isinstance(default, enum.Enum) else default}`"


def _model_in(kind: Any) -> tuple[type[BaseModel] | None, bool]:
    """The section that a field holds, if it holds one, and whether it is a list of them."""
    if get_origin(kind) is list:
        return _model_in(get_args(kind)[0])[0], True
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(option for option in get_args(kind) if option is not type(None))
    return (kind, False) if isinstance(kind, type) and issubclass(kind, BaseModel) else (None, False)


def _anchor(title: str) -> str:
    """As GitHub makes it of a heading."""
    return "".join(letter for letter in title.lower().replace(" ", "-") if letter.isalnum() or letter in "-_")


if __name__ == "__main__":
    sys.exit(main())
