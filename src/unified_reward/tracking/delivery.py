"""The only module that calls MLflow: it applies spool entries to a tracking server or an SQLite file.

Every entry may be applied twice. MLflow's SQL store, behind the server or not, makes that harmless for metrics: its
primary key is (run, key, step, timestamp, value). Runs are found again by a tag, parameters and model versions are
looked up before they are written, files are overwritten. The file store appends metrics blindly and is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from unified_reward.errors import UserError
from unified_reward.names import KEY_TAG, PARENT_TAG
from unified_reward.tracking.spool import Entry

FINISHED, FAILED, KILLED, RUNNING = "FINISHED", "FAILED", "KILLED", "RUNNING"

# One request fails fast and the courier waits, instead of four minutes of retries inside the client.
CLIENT_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
# The answers that say the entry itself is wrong; anything else may pass with time.
REFUSALS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS"}
METRICS_PER_REQUEST = 1000
TAGS_PER_REQUEST = 100


class RefusedError(Exception):
    """MLflow will never take this entry."""


class UnavailableError(Exception):
    """MLflow cannot take this entry now."""


class NotYetError(UnavailableError):
    """The entry waits for another run, not for MLflow."""


def check_uri(uri: str) -> None:
    """Raise UserError unless `uri` is an http(s) server or an SQL store."""
    scheme = urlparse(uri).scheme.split("+")[0]
    if scheme not in ("http", "https", "sqlite", "postgresql", "mysql"):
        raise UserError(
            field="tracking.uri",
            value=uri,
            why="metrics are kept exactly once only by an MLflow server or an SQL store",
            fix="Use http://HOST:PORT or sqlite:////DIR/mlflow.db.",
        )


def sqlite_path(uri: str) -> Path | None:
    """The file of an SQLite URI, None for any other."""
    prefix = "sqlite:///"
    return Path(unquote(uri.removeprefix(prefix)).split("?")[0]).absolute() if uri.startswith(prefix) else None


class Delivery:
    """Applies entries to one tracking URI. Not thread-safe. The MLflow client is imported on first use."""

    def __init__(self, uri: str) -> None:
        check_uri(uri)
        self.uri = uri
        self._client: Any = None
        self._experiments: dict[str, str] = {}
        self._resumed: dict[str, dict[str, int]] = {}

    @property
    def client(self) -> Any:
        """MLflow's client. Creates the database of an SQLite URI (seconds, once)."""
        if self._client is None:
            with _one_process_at_a_time(self.uri):
                self._client = _connect(self.uri)
        return self._client

    def experiment_id(self, name: str) -> str:
        if name not in self._experiments:
            with translated():
                self._experiments[name] = self._find_or_create_experiment(name)
        return self._experiments[name]

    def find_run(self, experiment: str, key: str) -> Any | None:
        with translated():
            runs = self.client.search_runs(
                [self.experiment_id(experiment)], f"tags.`{KEY_TAG}` = '{key}'", max_results=1
            )
        return runs[0] if runs else None

    def open_run(self, entry: Entry) -> str:
        """The run of an "open" entry, found by its key or created, RUNNING and under its parent."""
        parent = self._parent(entry)
        tags = {**entry["tags"], KEY_TAG: entry["key"], **({PARENT_TAG: parent} if parent else {})}
        found = self.find_run(entry["experiment"], entry["key"])
        with translated():
            if found is None:
                experiment = self.experiment_id(entry["experiment"])
                run = self.client.create_run(experiment, entry["time"], tags, run_name=entry["name"])
                return str(run.info.run_id)
            run_id = str(found.info.run_id)
            self._resumed[run_id] = {}
            self.client.update_run(run_id, status=RUNNING)
            self._set_tags(run_id, {key: value for key, value in tags.items() if found.data.tags.get(key) != value})
            return run_id

    def close_run(self, run_id: str, status: str, time_ms: int | None = None) -> None:
        with translated():
            self.client.set_terminated(run_id, status, time_ms)

    def apply(self, run_id: str, entry: Entry, spool: Path) -> None:
        """Apply one entry that is neither "open" nor "metrics"."""
        with translated():
            _APPLIERS[entry["op"]](self, run_id, entry, spool)

    def log_metrics(self, run_id: str, entries: list[Entry]) -> None:
        from mlflow.entities import Metric

        metrics = [
            Metric(key, value, entry["time"], entry["step"])
            for entry in entries
            for key, value in entry["values"].items()
            if entry["step"] > self._last_step(run_id, key)
        ]
        with translated():
            for start in range(0, len(metrics), METRICS_PER_REQUEST):
                self.client.log_batch(run_id, metrics=metrics[start : start + METRICS_PER_REQUEST])

    def _last_step(self, run_id: str, metric: str) -> int:
        """Of a run that an earlier attempt wrote to, perhaps on another machine: what it has is not logged twice."""
        known = self._resumed.get(run_id)
        if known is None:
            return -1
        if metric not in known:
            with translated():
                history = self.client.get_metric_history(run_id, metric)
            known[metric] = max((point.step for point in history), default=-1)
        return known[metric]

    def _parent(self, entry: Entry) -> str:
        if entry["parent_run_id"] or not entry["parent_key"]:
            return str(entry["parent_run_id"])
        found = self.find_run(entry["experiment"], entry["parent_key"])
        if found is None:
            raise NotYetError(f"the parent run {entry['parent_key']} is not in MLflow yet")
        return str(found.info.run_id)

    def _find_or_create_experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            database = sqlite_path(self.uri)
            location = (database.parent / "artifacts" / name).as_uri() if database else None
            # Without this tag, the page opens on views for chat traces.
            tags = {"mlflow.experimentKind": "custom_model_development"}
            try:
                return str(self.client.create_experiment(name, artifact_location=location, tags=tags))
            except Exception:
                found = self.client.get_experiment_by_name(name)  # another process may just have created it
                if found is None:
                    raise
        if found.lifecycle_stage == "deleted":
            self.client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _set_tags(self, run_id: str, tags: dict[str, str]) -> None:
        from mlflow.entities import RunTag

        listed = [RunTag(key, value) for key, value in tags.items()]
        for start in range(0, len(listed), TAGS_PER_REQUEST):
            self.client.log_batch(run_id, tags=listed[start : start + TAGS_PER_REQUEST])

    def _apply_params(self, run_id: str, entry: Entry, _: Path) -> None:
        """MLflow refuses to change a parameter, so a value that differs in a later attempt becomes a tag."""
        from mlflow.entities import Param

        known = self.client.get_run(run_id).data.params
        new = [Param(key, value) for key, value in entry["values"].items() if key not in known]
        for start in range(0, len(new), TAGS_PER_REQUEST):
            self.client.log_batch(run_id, params=new[start : start + TAGS_PER_REQUEST])
        changed = {k: v for k, v in entry["values"].items() if k in known and known[k] != v}
        self._set_tags(run_id, {f"changed.{key}": value for key, value in changed.items()})

    def _apply_tags(self, run_id: str, entry: Entry, _: Path) -> None:
        self._set_tags(run_id, entry["values"])

    def _apply_input(self, run_id: str, entry: Entry, _: Path) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=entry["name"],
            digest=entry["digest"][:32],  # MLflow takes 36 characters; the whole digest stands in the profile
            source_type=entry["source_type"],
            source=json.dumps({"uri": entry["source"]}),
            profile=json.dumps({"sha256": entry["digest"], **entry["profile"]}),
        )
        tag = InputTag("mlflow.data.context", entry["context"])
        self.client.log_inputs(run_id, [DatasetInput(dataset, [tag])])

    def _apply_file(self, run_id: str, entry: Entry, spool: Path) -> None:
        folder = os.path.dirname(entry["path"]) or None
        payload = spool / entry["payload"]
        if not payload.exists():
            raise RefusedError(f"{entry['path']}: its file is gone from the spool")
        if payload.is_dir():
            self.client.log_artifacts(run_id, str(payload), entry["path"])
            return
        self.client.log_artifact(run_id, str(payload), folder)
        if entry.get("table"):
            self._list_table(run_id, entry["path"])

    def _list_table(self, run_id: str, path: str) -> None:
        """Name a JSON file as a table in the tag by which MLflow's page finds tables."""
        from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_ARTIFACTS

        tags = self.client.get_run(run_id).data.tags
        listed = json.loads(tags.get(MLFLOW_LOGGED_ARTIFACTS, "[]"))
        if {"path": path, "type": "table"} not in listed:
            listed.append({"path": path, "type": "table"})
            self.client.set_tag(run_id, MLFLOW_LOGGED_ARTIFACTS, json.dumps(listed))

    def _apply_model(self, run_id: str, entry: Entry, _: Path) -> None:
        name = entry["name"]
        source = entry["source"] or f"runs:/{run_id}/{entry['path']}"
        if not self.client.search_registered_models(f"name = '{name}'"):
            self.client.create_registered_model(name)
        versions = self.client.search_model_versions(f"name = '{name}'")
        if not any(version.run_id == run_id and version.source == source for version in versions):
            self.client.create_model_version(name, source, run_id, tags=entry["tags"], await_creation_for=0)

    def _apply_end(self, run_id: str, entry: Entry, _: Path) -> None:
        self.client.set_terminated(run_id, entry["status"], entry["time"])


_APPLIERS: dict[str, Callable[[Delivery, str, Entry, Path], None]] = {
    "params": Delivery._apply_params,
    "tags": Delivery._apply_tags,
    "input": Delivery._apply_input,
    "file": Delivery._apply_file,
    "model": Delivery._apply_model,
    "end": Delivery._apply_end,
}


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn what MLflow and its transports raise into RefusedError or UnavailableError."""
    try:
        yield
    except (RefusedError, UnavailableError, UserError):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        if getattr(error, "error_code", "") in REFUSALS:
            raise RefusedError(text) from error
        raise UnavailableError(f"{type(error).__name__}: {text}") from error


def _connect(uri: str) -> Any:
    for name, value in CLIENT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for noisy in ("alembic", "mlflow.store.db.utils", "urllib3.connectionpool"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    with translated():
        from mlflow.tracking import MlflowClient

        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)  # creates the tables of a new database
        return client


@contextlib.contextmanager
def _one_process_at_a_time(uri: str) -> Iterator[None]:
    """Two processes that create one SQLite database at once fail; so one waits for the other."""
    database = sqlite_path(uri)
    if database is None:
        yield
        return
    try:
        database.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(database.with_name(database.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise UserError(
            field="tracking.uri",
            value=uri,
            why=f"its directory cannot be written ({error.strerror})",
            fix="Choose another directory, or an MLflow server (http://HOST:PORT).",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
