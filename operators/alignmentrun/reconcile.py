"""Pure: a run, its jobs and their pods -> what to write. No I/O and no clock, so every rule is a table in the tests.

The same inputs give the same outcome, and what an outcome asks for is no longer asked for once it is done: a restart of the
operator, a lost or doubled event, or a write that failed half way change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from operators.alignmentrun import records
from operators.alignmentrun.invalid import of_invalid
from operators.alignmentrun.jobs import acted
from operators.alignmentrun.outcome import Outcome, Seen, Turn
from operators.alignmentrun.stages import advanced, with_ahead
from operators.alignmentrun.status import generation, retry_at, run_status, with_conditions
from unified_reward.config import AlignmentRun, ClusterDefaults, Placement, placement, validate
from unified_reward.config.graph import Node, build_graph, by_urgency
from unified_reward.errors import UserError
from unified_reward.launch.causes import Cause
from unified_reward.launch.pods import Resource
from unified_reward.launch.pytorchjob import defaults_for
from unified_reward.launch.times import epoch_seconds
from unified_reward.pipeline.decide import ActionKind, Decision, Limits, RunState, State, View, decide
from unified_reward.pipeline.resource import MOST_STAGES, Phase, ResourceStatus, StageRecord

UNLIMITED = 10**9


def reconcile(seen: Seen, defaults: ClusterDefaults, now: float) -> Outcome:
    """What to write now."""
    before = ResourceStatus.model_validate(seen.run.get("status") or {})
    if before.phase.terminal and not (before.phase is Phase.FAILED and _asks_again(seen.run, before)):
        return _after_the_end(seen, before, now)
    try:
        document = _document(seen.run)
    except UserError as error:
        return of_invalid(seen, before, str(error), now)
    offered = defaults_for(defaults, store=document.spec.store, tracking_uri=document.spec.tracking.uri)
    try:
        place: Placement | str = placement(offered, document.spec.cluster)
    except UserError as error:
        if not before.stages:
            return of_invalid(seen, before, str(error), now)
        place = str(error)  # the installation has changed: what runs may end, nothing new starts
    return _of_accepted(Turn(seen, before, document, now), place)


def _of_accepted(turn: Turn, place: Placement | str) -> Outcome:
    nodes = build_graph(turn.document)
    known = {record.name: record for record in turn.before.stages}
    if _asks_again(turn.seen.run, turn.before) and not turn.document.spec.cancel:
        known = {name: records.forgiven(record) for name, record in known.items()}
        turn.tell("Retrying", "the failed stages are tried again, as asked")
    now = {node.id: advanced(turn, node, known.get(node.id) or StageRecord(name=node.id)) for node in nodes.values()}
    now = {name: with_ahead(turn, record) for name, record in now.items()}
    decision = _decided(turn, nodes, now)
    for action in decision.actions:
        now[action.node] = acted(turn, action, nodes[action.node], now[action.node], place)
    if decision.next_look:
        turn.deadlines.append(decision.next_look)
    return turn.outcome(run_status(turn, _settled(decision.state, now), now))


def _decided(turn: Turn, nodes: dict[str, Node], stages: dict[str, StageRecord]) -> Decision:
    """The decision, after all results that are there have been marked so: one may make the next one count."""
    spec = turn.document.spec
    while True:
        views = [_view(node, stages[node.id]) for node in by_urgency(nodes)]
        decision = decide(views, _limits(turn.document), now=turn.now, cancelled=spec.cancel, suspended=spec.suspend)
        found = [action.node for action in decision.actions if action.kind is ActionKind.REUSE]
        if not found:
            return decision
        for node in found:
            stages[node] = records.reused(stages[node], turn.moment)
            turn.tell("CacheHit", f"{node}: its result is in the store, nothing it depends on has changed")


def _view(node: Node, record: StageRecord) -> View:
    failures = tuple(Cause(cause) for cause, count in sorted(record.failures.items()) for _ in range(count))
    return View(
        id=node.id,
        needs=frozenset(node.needs),
        processes=node.config.processes,
        state=record.state,
        committed=record.state is State.WAITING and bool(record.key),
        failures=failures,
        last_ended=epoch_seconds(record.ended),
        earlier=record.earlier,
    )


def _limits(document: AlignmentRun) -> Limits:
    """The scheduler of the cluster says how much runs at once."""
    asked = document.spec.cluster.retries
    retries = {
        Cause.USER: 0,
        Cause.PREEMPTED: asked.preempted,
        Cause.MEMORY: asked.memory,
        Cause.CRASHED: asked.crashed,
    }
    return Limits(UNLIMITED, retries, asked.backoff_seconds)


def _settled(state: RunState, stages: Mapping[str, StageRecord]) -> RunState:
    """An end is one only when nothing runs any more."""
    alive = any(record.state is State.RUNNING for record in stages.values())
    return RunState.RUNNING if alive and state in (RunState.CANCELLED, RunState.FAILED) else state


def _document(run: Resource) -> AlignmentRun:
    metadata = run["metadata"]
    values = {
        "apiVersion": run["apiVersion"],
        "kind": run["kind"],
        "spec": run.get("spec") or {},
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"]},
    }
    document = validate(AlignmentRun, values)
    count = len(build_graph(document))
    if count > MOST_STAGES:
        raise UserError(
            field="spec.policies", value=f"{count} stages", why=f"a run has at most {MOST_STAGES}",
            fix="Split the policies, or the seeds of a sweep, over several runs.",
        )  # fmt: skip
    return document


def _asks_again(run: Resource, before: ResourceStatus) -> bool:
    return retry_at(run) not in ("", before.retried)


def _after_the_end(seen: Seen, before: ResourceStatus, now: float) -> Outcome:
    """Nothing but the page in MLflow and the TTL."""
    status = before.model_copy(
        update={
            "observed_generation": generation(seen.run),
            "tracking": seen.tracking or before.tracking,
            "retried": retry_at(seen.run) or before.retried,
        }
    )
    status = with_conditions(status, before, seen, now)
    ttl = int((seen.run.get("spec") or {}).get("ttlSecondsAfterFinished", 0))
    if not ttl:
        return Outcome(status=status)
    goes = epoch_seconds(before.ended) + ttl
    return Outcome(status=status, gone=now >= goes, next_look=goes)
