"""In the pod of a stage that has just finished: which other stages of the run need not run, and, at the very end, the page.

    UR_DOCUMENT='{"metadata": ...}' python -m unified_reward.pipeline.afterwards

On a cluster nobody but the stages reaches the store, so each of them looks ahead for the operator: what it finds committed
goes into the result file under `ahead` (a node is named with its key), and no job is started for it. The stage that finds
everything committed writes the run's page; two that find it at once write the same one.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from unified_reward.config import AlignmentRun, TrackingSpec, validate
from unified_reward.config.graph import Node, build_graph
from unified_reward.errors import EXIT_USER_ERROR, UserError
from unified_reward.home import Home
from unified_reward.names import DOCUMENT, PARENT_KEY, RESULT_FILE, STORE
from unified_reward.pipeline.decide import RunState, State
from unified_reward.pipeline.status import Cost, RunStatus, StageStatus
from unified_reward.stages.context import Commit, read_commit, read_pointer, write_pointer
from unified_reward.stages.standalone import make_spec, tracking_of_environment
from unified_reward.store import ObjectStore, open_store
from unified_reward.tracking import Target, stage_run


def main() -> int:
    try:
        document = validate(AlignmentRun, json.loads(os.environ[DOCUMENT]), DOCUMENT)
        store = open_store(document.spec.store or os.environ[STORE])
        done = finished_stages(document, store)
        _note("ahead", {node: commit.key for node, commit in done.items()})
        if len(done) == len(build_graph(document)):
            publish(document, store, done, os.environ.get(PARENT_KEY, ""), Home.at())
            _note("page", True)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return EXIT_USER_ERROR
    return 0


def finished_stages(document: AlignmentRun, store: ObjectStore) -> dict[str, Commit]:
    """The nodes of the run whose result is in the store, with it. A node's key is known once all its inputs are.

    The run's pointers are set to what was found, as if it had just been made.
    """
    done: dict[str, Commit] = {}
    for node in build_graph(document).values():
        if all(need in done for need in node.needs):
            found = _commit_of(node, document, store, done)
            if found is not None:
                done[node.id] = found
                if read_pointer(store, document.metadata.name, node.id) != found.key:
                    write_pointer(store, document.metadata.name, node.id, found.key)
    return done


def publish(
    document: AlignmentRun, store: ObjectStore, done: Mapping[str, Commit], parent_key: str, home: Home
) -> None:
    """The run's page, in the store under `runs/NAME/report.html` and on the parent's page in MLflow."""
    from unified_reward.pipeline.report import publish_report  # draws, so it is slow to import

    tracking = tracking_of_environment(home)
    status = status_of(document, store, done, tracking)
    with tempfile.TemporaryDirectory() as directory:
        target = Target(tracking.uri, tracking.experiment) if parent_key else None
        with stage_run(target, home.spools, key=parent_key, name=status.name, system_metrics=False,
                       tags={"run": status.name}) as parent:  # fmt: skip
            page = publish_report(status, done, store, Path(directory), parent)
        store.put(f"runs/{status.name}/report.html", Path(page).read_bytes())
    print(f"report: runs/{status.name}/report.html", flush=True)


def status_of(
    document: AlignmentRun, store: ObjectStore, done: Mapping[str, Commit], tracking: TrackingSpec
) -> RunStatus:
    """A finished run as its stages left it in the store. What its pods cost together is known to the cluster, not here."""
    nodes = build_graph(document)
    begun = min(commit.finished - commit.seconds for commit in done.values())
    return RunStatus(
        name=document.metadata.name, state=RunState.SUCCEEDED, store=store.url, document=json.loads(document.model_dump_json()),
        started=begun, ended=max(commit.finished for commit in done.values()), tracking_uri=tracking.uri,
        experiment=tracking.experiment, cost=Cost(),
        stages={
            name: StageStatus(
                stage=commit.stage, policy=commit.policy, state=State.DONE, key=commit.key, attempt=1, seconds=commit.seconds,
                started=commit.finished - commit.seconds, ended=commit.finished, needs=sorted(nodes[name].needs),
            )
            for name, commit in done.items()
        },
    )  # fmt: skip


def _commit_of(node: Node, document: AlignmentRun, store: ObjectStore, done: Mapping[str, Commit]) -> Commit | None:
    inputs = {name: done[source.node].output(source.output) for name, source in node.inputs.items()}
    spec = make_spec(node, inputs, store, run=document.metadata.name, work_dir=str(Home.at().work), tracking=None)
    return read_commit(store, node.stage, spec.key)


def _note(name: str, value: object) -> None:
    """Add to the result that the stage left."""
    path = os.environ.get(RESULT_FILE, "")
    if path:
        file = Path(path)
        known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.write_text(json.dumps({**known, name: value}), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
