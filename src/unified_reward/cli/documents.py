"""`schema`, `render`, `import`: documents without running them, and one stage by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from unified_reward.cli.console import print_json, say
from unified_reward.config import AlignmentRun, ClusterDefaults, Stage, load_document, placement
from unified_reward.config.graph import Node, build_graph
from unified_reward.config.load import override_value
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.launch.local import run_app
from unified_reward.models.refs import STORED

WORLDS = ("shapes",)


def schema() -> int:
    """The JSON schema of the document, on standard output."""
    print_json(AlignmentRun.model_json_schema(by_alias=True))
    return 0


def render(file: Path, overrides: Sequence[str], *, on: str, as_json: bool) -> int:
    """The job of each stage, in order, with what it needs; on a cluster, its PyTorchJob. Nothing is started."""
    document = load_document(file, overrides)
    one = _job if on == "local" else _manifest
    jobs = [one(node, document) for node in build_graph(document).values()]
    if as_json:
        print_json({"jobs": jobs})
    else:
        print(yaml.safe_dump_all(jobs, sort_keys=False, width=120), end="")
    return 0


def import_data(source: Sequence[str], form: str, overrides: Sequence[str], run: str, home: str) -> int:
    """Import a world or published files by their component, as the run's datasets. Returns the exit code."""
    from unified_reward.data.formats import AUTO, format_named
    from unified_reward.data.sources import read_sources
    from unified_reward.launch import components

    values = dict(_field(text) for text in overrides)
    if len(source) == 1 and source[0] in WORLDS and form == AUTO:
        values["source"] = source[0]
    else:
        if any("," in path for path in source):
            raise UserError(field="SOURCE", value=next(path for path in source if "," in path),
                            why="a comma separates paths", fix="Rename it, or name its folder.")  # fmt: skip
        name = "files" if form == AUTO else format_named(form, "--format").name
        folder = str(values.get("folder", ""))
        try:
            if not folder.startswith(STORED):
                read_sources(source, name, Path(folder) / str(values.get("media_root", ".")), Path(folder))
        except UserError as error:
            raise _of_argument(error) from error
        values |= {"source": name, "paths": ",".join(source)}
    say(f"Importing for the run {run} ...")
    given: dict[str, Any] = {
        field: ",".join(map(str, value)) if isinstance(value, list) else value for field, value in values.items()
    }
    return run_app(components.import_data(run=run, home=str(Home.at(home).root), **given))


def _of_argument(error: UserError) -> UserError:
    """A mistake in `import.paths`, told of the argument it was given by."""
    if error.field != "import.paths":
        return error
    near = get_close_matches(str(error.value), WORLDS, n=1)
    fix = f"Did you mean {near[0]}?" if near else error.fix
    return UserError(field="SOURCE", value=error.value, why=error.why, fix=fix)


def _job(node: Node, document: AlignmentRun) -> dict[str, Any]:
    from unified_reward.launch.appdef import alone, node_app
    from unified_reward.launch.plan import job_plan

    here = replace(node, config=alone(node.config))
    plan = asdict(job_plan(node_app(here, document.metadata.name)))
    return {"stage": node.id, "needs": sorted(map(str, node.needs)), **plan, "command": list(plan["command"])}


def _manifest(node: Node, document: AlignmentRun) -> dict[str, Any]:
    """As the operator of an installation named `ur` with no changes would make it."""
    from unified_reward.launch.appdef import node_app
    from unified_reward.launch.plan import job_plan
    from unified_reward.launch.pytorchjob import JobIdentity, defaults_for, job_name, pytorch_job

    spec, run = document.spec, document.metadata.name
    defaults = defaults_for(ClusterDefaults(), store=spec.store, tracking_uri=spec.tracking.uri)
    name = job_name(run, node.id, 1)
    identity = JobIdentity(
        name=name, namespace=document.metadata.namespace, app=name, run=run, stage=node.stage.value, node=node.id
    )
    return pytorch_job(job_plan(node_app(node, run)), placement(defaults, spec.cluster), identity)


def _field(text: str) -> tuple[str, Any]:
    from unified_reward.config import ImportConfig

    name, value = override_value(text)
    known = {info.alias or field: field for field, info in ImportConfig.model_fields.items()}
    field = known.get(name, name)
    if field not in ImportConfig.model_fields:
        raise UserError(field="--set", value=name, why=f"{Stage.IMPORT} has no such field",
                        fix=f"Fields: {', '.join(ImportConfig.model_fields)}.")  # fmt: skip
    return field, value
