"""The executor of this machine: observe the stages, let `decide` say what to do, do it, until the run has ended.

All state is on disk (status.json, the store), so that a run goes on wherever it was killed: leftovers of an earlier
executor are ended first, and a stage whose result is committed is never run again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

from unified_reward.config import AlignmentRun, ArtifactRef, StageSpec, TrackingSpec
from unified_reward.config.engines import EngineName
from unified_reward.config.graph import Node, build_graph, by_urgency
from unified_reward.config.keys import difference
from unified_reward.errors import EXIT_AWAY, UserError
from unified_reward.home import Home
from unified_reward.judge.pack import load_pack
from unified_reward.launch.causes import Cause, cause_of
from unified_reward.launch.local import Ended, LocalJob, LocalJobs, attempt_directory, end_leftovers
from unified_reward.models.refs import STORED, model_directory
from unified_reward.names import TRACKING_SPOOL
from unified_reward.pipeline.decide import (
    Action,
    ActionKind,
    Decision,
    Limits,
    RunState,
    State,
    View,
    decide,
)
from unified_reward.pipeline.lock import locked
from unified_reward.pipeline.status import FILE, Cost, RunStatus, StageStatus, read_status, stage_directory
from unified_reward.pipeline.usage import Usage
from unified_reward.stages.context import Commit, read_commit, write_pointer
from unified_reward.stages.standalone import make_spec, node_identity
from unified_reward.store import ObjectStore, open_store
from unified_reward.tracking import Courier, StageRun, Target, UnavailableError, embedded_uri, find_run_id, stage_run

OnChange = Callable[[RunStatus], None]
NEEDED_BYTES = 300_000_000
POLL_SECONDS = 0.2


def run_document(
    document: AlignmentRun, home: Home, *, again: Sequence[str] = (), on_change: OnChange | None = None
) -> RunStatus:  # fmt: skip
    """Drive the run to its end and return its status. Raises UserError before anything is started when it cannot be.

    again: the command that goes on with it, for the person who is told. on_change: called a few times a second.
    """
    directory = home.run(document.metadata.name)
    with locked(directory, document.metadata.name):
        end_leftovers(directory)
        return _Executor(document, home, directory, again, on_change or (lambda _: None)).run()


class _Executor:
    def __init__(
        self, document: AlignmentRun, home: Home, directory: Path, again: Sequence[str], on_change: OnChange
    ) -> None:  # fmt: skip
        self.document, self.home, self.directory, self.on_change = document, home, directory, on_change
        spec = document.spec
        self.store: ObjectStore = open_store(spec.store or home.store_url)
        self.store.check_writable()
        self.store.require_space(NEEDED_BYTES)
        check_named(document, self.store, home)
        home.tracking_directory.mkdir(parents=True, exist_ok=True)
        self.target = Target(spec.tracking.uri or embedded_uri(home.tracking_directory), spec.tracking.experiment)
        self.nodes: dict[str, Node] = build_graph(document)
        self.limits = Limits.default(max(_cores(), max(n.config.processes for n in self.nodes.values())))
        self.specs: dict[str, StageSpec] = {}
        self.commits: dict[str, Commit] = {}
        self.jobs: dict[str, LocalJob] = {}
        self.told_to_stop: set[str] = set()
        self.stopping = False
        self.launched_before = False
        content = document.model_dump_json()
        self.parent_key = f"{document.metadata.name}.{hashlib.sha256(content.encode()).hexdigest()[:12]}"
        self.before = _previous(home, document.metadata.name)
        self.status = self._fresh_status(json.loads(content), again)

    def run(self) -> RunStatus:
        started = time.time()
        if self._nothing_to_do():
            return self.status
        self.courier = Courier(self.home.spools, prepare=self.target.uri).start()
        with (
            self._tracked() as parent, self._signals(), Usage() as usage,
            closing(LocalJobs(self.home.spools)) as self.runner,
        ):  # fmt: skip
            while self._step():
                self._account(usage, started)
                self.on_change(self.status)
                time.sleep(POLL_SECONDS)
            self._account(usage, started)
            if self.status.state is RunState.CANCELLED:
                raise KeyboardInterrupt
            if self.status.state is RunState.FAILED:
                raise SystemExit(1)
            self._publish(parent)
        return self.status

    def _nothing_to_do(self) -> bool:
        """Whether every result and the report are there; then nothing is started, neither stages nor tracking."""
        while reused := [a for a in self._decide().actions if a.kind is ActionKind.REUSE]:
            for action in reused:
                self._reuse(action.node)
        before = self.before
        if before is None or before.state is not RunState.SUCCEEDED or before.document != self.status.document:
            return False
        same = {node: stage.key for node, stage in before.stages.items()} == {
            node: stage.key for node, stage in self.status.stages.items() if stage.state is State.DONE
        }
        undelivered = Courier(self.home.spools).backlog().pending
        if not same or undelivered or not Path(before.report).is_file():
            return False
        self.status.state, self.status.executor, self.status.ended = RunState.SUCCEEDED, 0, time.time()
        self.status.report, self.status.parent_run_id = before.report, before.parent_run_id
        self._save()
        return True

    def _publish(self, parent: StageRun) -> None:
        from unified_reward.pipeline.report import publish_report  # draws, so it is slow to import

        self.status.report = publish_report(self.status, self.commits, self.store, self.directory, parent)

    def _decide(self) -> Decision:
        return decide(self._views(), self.limits, now=time.time(), cancelled=self.stopping)

    def _step(self) -> bool:
        """One round; False when the run has ended."""
        for node in list(self.jobs):
            ended = self.runner.poll(self.jobs[node])
            if ended is not None:
                self._end(node, ended)
        decision = self._decide()
        for action in decision.actions:
            self._act(action)
        going = bool(self.jobs) or decision.state is RunState.RUNNING
        if not going:
            self.status.state = decision.state
        if decision.actions:
            self._save()
        return going

    def _act(self, action: Action) -> None:
        stage = self.status.stages[action.node]
        if action.kind is ActionKind.REUSE:
            self._reuse(action.node)
        elif action.kind is ActionKind.LAUNCH:
            self._launch(action.node, action.attempt)
        elif action.kind is ActionKind.STOP and action.node not in self.told_to_stop:
            if self.runner.stop(self.jobs[action.node]):
                self.told_to_stop.add(action.node)
        elif action.kind is ActionKind.FAIL:
            stage.state = State.FAILED
            stage.why = f"{stage.failures[-1].value}: {stage.error}"

    def _views(self) -> list[View]:
        return [self._view(node) for node in by_urgency(self.nodes)]

    def _view(self, node: Node) -> View:
        stage = self.status.stages[node.id]
        ready = all(self.status.stages[need].state is State.DONE for need in node.needs)
        committed = stage.state is State.WAITING and ready and self._committed(node)
        return View(
            id=node.id, needs=frozenset(node.needs), processes=node.config.processes, state=stage.state,
            committed=committed, failures=tuple(stage.failures), last_ended=stage.ended,
        )  # fmt: skip

    def _committed(self, node: Node) -> bool:
        """Whether the node's result is in the store. Its key is known once all its inputs are."""
        if node.id not in self.specs:
            inputs = {name: self._output(source.node, source.output) for name, source in node.inputs.items()}
            self.specs[node.id] = make_spec(
                node, inputs, self.store, run=self.status.name, work_dir=str(self.home.work),
                tracking=TrackingSpec(uri=self.target.uri, experiment=self.target.experiment), parent_key=self.parent_key,
            )  # fmt: skip
            stage = self.status.stages[node.id]
            stage.key, stage.identity = self.specs[node.id].key, node_identity(node, inputs, self.store)
        if node.id not in self.commits:
            found = read_commit(self.store, node.stage, self.specs[node.id].key)
            if found is not None:
                self.commits[node.id] = found
        return node.id in self.commits

    def _output(self, node: str, name: str) -> ArtifactRef:
        return self.commits[node].output(name)

    def _reuse(self, node: str) -> None:
        stage, done = self.status.stages[node], self.commits[node]
        old = self.before.stages.get(node) if self.before else None
        seconds = old.seconds if old is not None and old.key == stage.key and old.seconds else done.seconds
        stage.state, stage.reused, stage.seconds = State.DONE, True, seconds
        stage.why = f"nothing it depends on changed (key {stage.key[:8]})"
        write_pointer(self.store, self.status.name, node, stage.key)

    def _launch(self, node: str, attempt: int) -> None:
        stage = self.status.stages[node]
        if not self.launched_before:
            self.status.cost = Cost()
            self.launched_before = True
        directory = stage_directory(self.directory, node)
        if attempt == 1:
            shutil.rmtree(directory, ignore_errors=True)
        job = self.runner.start(self.specs[node], attempt_directory(directory, attempt))
        self.jobs[node] = job
        stage.state, stage.attempt, stage.started, stage.log = State.RUNNING, attempt, time.time(), str(job.directory)
        stage.why = self._why(node, stage)

    def _why(self, node: str, stage: StageStatus) -> str:
        if stage.failures:
            return f"attempt {stage.attempt} after {stage.failures[-1].value}"
        old = self.before.stages.get(node) if self.before else None
        if old is None or not old.identity:
            return "first time"
        changes = difference(old.identity, stage.identity)
        if changes:
            return "; ".join(changes[:3])
        return "it was not finished" if old.attempt else "first time"

    def _end(self, node: str, ended: Ended) -> None:
        stage = self.status.stages[node]
        del self.jobs[node]
        stage.ended = time.time()
        if self._committed(self.nodes[node]):
            stage.state, stage.seconds, stage.error = State.DONE, stage.ended - stage.started, ""
        elif self.stopping:
            stage.state, stage.why = State.CANCELLED, "stopped; run it again and it goes on where it was"
        else:
            stage.state, stage.error = State.WAITING, ended.error
            stage.failures.append(_cause(ended.code))
        self._save()

    def _account(self, usage: Usage, started: float) -> None:
        if not self.launched_before:
            return
        cost = self.status.cost
        cost.wall_seconds = self.earlier.wall_seconds + time.time() - started
        cost.cpu_seconds = self.earlier.cpu_seconds + usage.cpu_seconds
        cost.peak_rss_bytes = max(self.earlier.peak_rss_bytes, usage.peak_rss_bytes)

    def _fresh_status(self, content: dict[str, Any], again: Sequence[str]) -> RunStatus:
        """A status in which every stage waits. The cost of an unfinished run of the same document is carried on."""
        before = self.before if self.before is not None and self.before.document == content else None
        self.launched_before = before is not None and before.state is not RunState.SUCCEEDED
        self.earlier = before.cost if before is not None and self.launched_before else Cost()
        return RunStatus(
            name=self.document.metadata.name, store=self.store.url, started=time.time(), executor=os.getpid(),
            tracking_uri=self.target.uri, experiment=self.target.experiment, document=content, again=list(again),
            cost=replace(before.cost) if before is not None else Cost(),
            stages={
                node.id: StageStatus(node.stage.value, node.policy.name if node.policy else "", needs=sorted(map(str, node.needs)))
                for node in self.nodes.values()
            },
        )  # fmt: skip

    @contextmanager
    def _tracked(self) -> Iterator[StageRun]:
        """The parent run in MLflow, delivered with those of the stages; and the status as it was left."""
        os.environ[TRACKING_SPOOL] = str(self.home.spools)
        try:
            with stage_run(
                self.target, self.home.spools, key=self.parent_key, name=self.status.name, system_metrics=False,
                tags={"run": self.status.name},
            ) as parent:  # fmt: skip
                parent.params({"document": self.status.document["spec"]})
                self._save()
                yield parent
        except (KeyboardInterrupt, SystemExit):
            pass  # the run's end is in the status; the tracking run was closed as killed or failed
        except BaseException as error:
            self.status.state, self.status.message = RunState.FAILED, f"{type(error).__name__}: {error}"
            raise
        finally:
            self.status.ended, self.status.executor = time.time(), 0
            self._save()
            self._close_tracking()
            self._save()

    def _close_tracking(self) -> None:
        backlog = self.courier.close()
        if backlog.pending or backlog.refused:
            self.status.message = self.status.message or str(backlog)
        with contextlib.suppress(UnavailableError):  # the run is known without its page
            self.status.parent_run_id = find_run_id(self.target, self.parent_key, timeout_s=2.0)

    def _save(self) -> None:
        self.status.save(self.directory)
        self.on_change(self.status)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM stop the stages and end the run; a second one does not hurry them."""

        def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (the signature of a handler)
            self.stopping = True

        kept = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in kept.items():
                signal.signal(number, handler)


def _cause(code: int | None) -> Cause:
    """A store that is away is for the person to mend, who sits here and is told so."""
    if code == 0:
        return Cause.CRASHED
    return Cause.USER if code == EXIT_AWAY else cause_of(code)


def check_named(document: AlignmentRun, store: ObjectStore, home: Home) -> None:
    """What is named and not there is told before anything runs, by its field. Artifacts may come while the run goes on."""
    spec = document.spec
    folder = spec.import_.folder
    if folder and not folder.startswith(STORED) and not Path(folder).expanduser().is_dir():
        raise UserError(field="spec.import.folder", value=folder, why="there is no such directory",
                        fix="Name one, or store:PREFIX.")  # fmt: skip
    bases = {"spec.rewardTrain.base": spec.reward_train.base}
    packs = {"spec.rewardTrain.template": spec.reward_train.template}
    for place, policy in enumerate(spec.policies):
        bases[f"spec.policies.{place}.base"] = policy.base
        if policy.generate.engine is EngineName.VLLM:
            from unified_reward.engines.vllm_engine import require_vllm

            with _as_field(f"spec.policies.{place}.generate.engine"):
                require_vllm()
        if policy.policy_eval.judge:
            bases[f"spec.policies.{place}.policyEval.judge"] = policy.policy_eval.judge
        if policy.policy_eval.judge_template:
            packs[f"spec.policies.{place}.policyEval.judgeTemplate"] = policy.policy_eval.judge_template
    for field, ref in bases.items():
        if not ref.startswith(STORED):
            with _as_field(field):
                model_directory(ref, store, home.work / "artifacts")
    for field, ref in packs.items():
        with _as_field(field):
            load_pack(ref)


@contextmanager
def _as_field(field: str) -> Iterator[None]:
    """A mistake found inside is that of the document's field."""
    try:
        yield
    except UserError as error:
        inside = f" ({error.field})" if error.field not in ("model", "base", "template", "engine") else ""
        raise UserError(field=field + inside, value=error.value, why=error.why, fix=error.fix) from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _previous(home: Home, name: str) -> RunStatus | None:
    if not (home.run(name) / FILE).exists():
        return None
    with contextlib.suppress(UserError, KeyError, TypeError, ValueError):  # written by another version: start afresh
        return read_status(home, name)
    return None
