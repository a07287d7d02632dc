"""`unified-reward export`: the judge of a run, or a policy that it aligned, as a directory for other programs."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from unified_reward.cli.console import say
from unified_reward.config import Stage
from unified_reward.errors import UserError
from unified_reward.home import Home
from unified_reward.names import STORE
from unified_reward.pipeline.status import read_status
from unified_reward.stages.context import Commit, read_commit, read_pointer
from unified_reward.store import ObjectStore, open_artifact, open_store

OUTPUTS = {Stage.REWARD_TRAIN: "judge", Stage.DPO_TRAIN: "policy"}


def export(run: str, directory: Path, policy: str, home: str) -> int:
    """Write the files of the judge, or of the policy of this name; they are whole in `directory`, or not there."""
    place = Home.at(home)
    directory = directory.expanduser().absolute()
    if directory.exists():
        raise UserError(field="DIR", value=directory, why="it is there already", fix="Name one that is not.")
    stage = Stage.DPO_TRAIN if policy else Stage.REWARD_TRAIN
    store = _store(run, place)
    done = _commit(store, run, stage, policy)
    found = open_artifact(store, done.output(OUTPUTS[stage])).materialise(place.work / "artifacts")
    _copy(found, directory)
    say(f"{policy or 'The judge'} of {run} (stages/{stage}/{done.key}) is in {directory}.")
    return 0


def _store(run: str, home: Home) -> ObjectStore:
    """That of $UR_STORE, else the one that the run has used."""
    url = os.environ.get(STORE) or read_status(home, run).store
    return open_store(url, create=False)


def _commit(store: ObjectStore, run: str, stage: Stage, policy: str) -> Commit:
    node = f"{stage}/{policy}" if policy else stage.value
    key = read_pointer(store, run, node)
    done = read_commit(store, stage, key) if key else None
    if done is None:
        names = sorted(Path(path).stem for path in store.list(f"runs/{run}/{Stage.DPO_TRAIN}/"))
        known = (
            f"Policies that it has aligned: {', '.join(names) or 'none'}." if policy else "Let reward-train end first."
        )
        field, value = ("--policy", policy) if policy else ("RUN", run)
        raise UserError(field=field, value=value, why=f"run {run} has no finished {node} in {store.url}", fix=known)
    return done


def _copy(source: Path, directory: Path) -> None:
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as aside:
            os.rename(shutil.copytree(source, Path(aside) / "whole"), directory)
    except OSError as error:
        raise UserError(field="DIR", value=directory, why=f"it cannot be written ({error.strerror or error})",
                        fix="Name a place of yours that has room.") from error  # fmt: skip
