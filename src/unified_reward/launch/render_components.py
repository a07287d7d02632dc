"""Writes components.py from the config models: names, types, defaults and help are theirs.

    python -m unified_reward.launch.render_components [--check]

TorchX reads a component's source: annotations must be plain names, and the docstring is the command line's help.
"""

from __future__ import annotations

import enum
import sys
import textwrap
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from unified_reward.config import STAGE_CONFIGS, AlignmentRun, Grader, PolicyKind, Stage
from unified_reward.config.graph import build_graph
from unified_reward.launch.appdef import component_name
from unified_reward.launch.rendered import render_file

FILE = Path(__file__).with_name("components.py")
HEAD = '''"""The TorchX components: `torchx run -s local_cwd ur.<stage> --help`. Rendered from the config models; do not edit.

Write it again with: python -m unified_reward.launch.render_components
"""

# TorchX 0.7 cannot read postponed annotations, so there is no `from __future__ import annotations` here.
from torchx.specs import AppDef

from unified_reward.launch.appdef import component_app
'''
Argument = tuple[str, str, Any, str]  # name, type, default, help

RUN: list[Argument] = [
    ("run", "str", "shapes", "run that this stage belongs to; inputs not named below are those its last stages made"),
    ("home", "str", "", "directory of the embedded store and tracking; empty = $UR_HOME or .unified-reward"),
    ("store", "str", "", "store URL, file:///DIR or s3://BUCKET/PREFIX; empty = the embedded directory"),
    ("seed", "int", 0, "seed of everything that is drawn"),
    ("spec", "str", "", "file with a whole StageSpec as JSON; all other arguments are then not used"),
]
POLICY: list[Argument] = [
    ("policy", "str", "vlm", "name of the policy (vlm and image are those of the shapes world)"),
    ("policy_kind", "str", "", "vlm or diffusion; empty = that of the shapes world's policy"),
    ("policy_base", "str", "", "builtin:NAME, a directory or store:PREFIX; empty = that of the shapes world's policy"),
]


def render() -> str:
    """The source of components.py."""
    return HEAD + "".join(f"\n\n{_function(stage)}" for stage in Stage)


def main() -> int:
    return render_file(
        "Render the TorchX components from the config models.",
        FILE,
        render(),
        "unified_reward.launch.render_components",
    )


def _function(stage: Stage) -> str:
    inputs = _inputs(stage)
    arguments = [*RUN, *(POLICY if stage.per_policy else [])]
    arguments += [(f"input_{name}", "str", "", "prefix of the artifact to read; empty = see run") for name in inputs]
    arguments += [_argument(name, info) for name, info in STAGE_CONFIGS[stage].model_fields.items()]
    names = [name for name, *_ in arguments]
    assert len(names) == len(set(names)), f"{stage}: {names}"
    summary = (STAGE_CONFIGS[stage].__doc__ or stage.value).strip()
    lines = [f"def {component_name(stage)}("]
    lines += [f"    {name}: {kind} = {_literal(default)}," for name, kind, default, _ in arguments]
    lines += [") -> AppDef:", f'    """{summary}', "", "    Args:"]
    lines += [line for name, _, _, text in arguments for line in _documented(name, text)]
    lines += [
        '    """',
        f"    return component_app({_literal(stage.value)}, locals(), [{', '.join(map(_literal, inputs))}])",
    ]
    return "\n".join(lines) + "\n"


def _inputs(stage: Stage) -> list[str]:
    """The names of the stage's inputs, over both kinds of policy and both ways to measure them."""
    policies = [
        {"name": f"{kind.value}-{grader.value}", "kind": kind, "base": "any", "policyEval": {"grader": grader}}
        for kind in PolicyKind for grader in (Grader.TRUTH, Grader.JUDGE)
    ]  # fmt: skip
    run = AlignmentRun.model_validate({"metadata": {"name": "any"}, "spec": {"policies": policies}})
    names = [name for node in build_graph(run).values() if node.stage is stage for name in node.inputs]
    return list(dict.fromkeys(names))


def _argument(name: str, info: FieldInfo) -> Argument:
    default = info.get_default(call_default_factory=True)
    text = (info.description or "").replace("%", "%%")  # argparse formats help
    if isinstance(default, enum.Enum):
        return name, "str", default.value, text
    if isinstance(default, list):
        return name, "str", ",".join(default), f"{text} (comma-separated)"
    return name, type(default).__name__, default, text


def _literal(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _documented(name: str, text: str) -> list[str]:
    return textwrap.wrap(f"{name}: {text}", 118, initial_indent=" " * 8, subsequent_indent=" " * 12)


if __name__ == "__main__":
    sys.exit(main())
