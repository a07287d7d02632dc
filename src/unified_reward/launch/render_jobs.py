"""Writes jobs/stages/: a PyTorchJob for each stage, as `torchx run -s pytorchjob ur.<stage>` would submit it.

    python -m unified_reward.launch.render_jobs [--check]

They are those of jobs/examples/shapes.yaml, for an installation of the release name `ur`.
"""

from __future__ import annotations

import argparse
import enum
import inspect
import shlex
import sys
import textwrap
from pathlib import Path
from typing import Any

import yaml

from unified_reward.config import STAGE_CONFIGS, ClusterDefaults, Placement, Stage, load_document, placement
from unified_reward.config.graph import Node, build_graph
from unified_reward.launch import components
from unified_reward.launch.appdef import EMBEDDED_POLICIES, component_name, node_app
from unified_reward.launch.plan import job_plan
from unified_reward.launch.pytorchjob import JobIdentity, job_name, pytorch_job

JOBS = Path(__file__).parents[3] / "jobs"
EXAMPLE = JOBS / "examples" / "shapes.yaml"
HEAD = """\
{summary}
Rendered from {example} by `python -m unified_reward.launch.render_jobs`; do not edit.

    kubectl apply -n NAMESPACE -f jobs/stages/{file}

Needs an installation named ur (helm install ur charts/unified-reward) in that namespace, and {needs}.
The same stage by TorchX:

{torchx}

A further attempt goes on from the last checkpoint: delete the job and apply it again."""


def render() -> dict[str, str]:
    """File name -> content, for each stage once."""
    document = load_document(EXAMPLE)
    nodes: dict[Stage, Node] = {}
    for node in build_graph(document).values():
        nodes.setdefault(node.stage, node)
    place = placement(ClusterDefaults(), document.spec.cluster)
    return {f"{node.stage}.yaml": _file(node, document.metadata.name, place) for node in nodes.values()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Render a PyTorchJob for each stage.")
    parser.add_argument("--check", action="store_true", help="only say whether the files are up to date")
    check = parser.parse_args().check
    directory = JOBS / "stages"
    wanted = render()
    known = {path.name: path.read_text(encoding="utf-8") for path in directory.glob("*.yaml")}
    if check:
        stale = sorted(name for name in {*wanted, *known} if wanted.get(name) != known.get(name))
        if stale:
            print(
                f"jobs/stages: {', '.join(stale)} stale. Run: python -m unified_reward.launch.render_jobs",
                file=sys.stderr,
            )
        return 1 if stale else 0
    directory.mkdir(parents=True, exist_ok=True)
    for name in set(known) - set(wanted):
        (directory / name).unlink()
    for name, text in wanted.items():
        (directory / name).write_text(text, encoding="utf-8")
    return 0


def _file(node: Node, run: str, place: Placement) -> str:
    name = job_name(run, node.id, 1)
    identity = JobIdentity(name=name, namespace="", app=name, run=run, stage=node.stage.value, node=node.id)
    job = pytorch_job(job_plan(node_app(node, run)), place, identity)
    needs = ", ".join(sorted(node.needs))
    summary = (STAGE_CONFIGS[node.stage].__doc__ or "").strip().splitlines()[0]
    head = HEAD.format(
        summary=summary, example="jobs/examples/shapes.yaml", file=f"{node.stage}.yaml", torchx=_torchx(node, run),
        needs=f"what these stages of the run have left in the store: {needs}" if needs else "nothing else",
    )  # fmt: skip
    lines = [
        part for line in head.splitlines() for part in (textwrap.wrap(line, 128) if line[:1] != " " else [line]) or [""]
    ]
    comment = "\n".join(f"# {line}".rstrip() for line in lines)
    return f"{comment}\n{yaml.safe_dump(job, sort_keys=False, width=132, allow_unicode=True)}"


def _torchx(node: Node, run: str) -> str:
    """The command line of the stage, with what its component does not have as a default."""
    component = component_name(node.stage)
    defaults = inspect.signature(getattr(components, component)).parameters
    values = {"run": run, "seed": node.seed, **node.config.model_dump()}
    if (policy := node.policy) is not None:
        values["policy"] = policy.name
        if EMBEDDED_POLICIES.get(policy.name) != (policy.kind.value, policy.base):
            values |= {"policy_kind": policy.kind, "policy_base": policy.base}
    words = {name: _word(value) for name, value in values.items()}
    options = [f"--{name} {shlex.quote(word)}" for name, word in words.items() if word != _word(defaults[name].default)]
    command = f"torchx run -s pytorchjob -cfg namespace=NAMESPACE ur.{component}"
    lines = textwrap.wrap(" ".join(options), 120, break_on_hyphens=False, break_long_words=False)
    return " \\\n".join(f"    {line}" for line in [command, *(f"    {line}" for line in lines)])


def _word(value: Any) -> str:
    """A value as a component takes it on its command line."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    return str(value.value if isinstance(value, enum.Enum) else value)


if __name__ == "__main__":
    sys.exit(main())
