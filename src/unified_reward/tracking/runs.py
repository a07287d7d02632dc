"""Runs in MLflow as the rest of the code sees them: a parent for the whole method, a child for each stage.

    with stage_run(target, spools, key=..., name="reward-train", parent_key=...) as run:
        run.params(config)
        run.metrics({"loss": 0.3}, step=1)

A run writes to its spool and returns at once; a courier (buffer.py) does the rest. Whatever happens, the run is closed:
FINISHED, FAILED (an exception), KILLED (SIGTERM, Ctrl-C), and KILLED by the courier after a kill -9.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from unified_reward.errors import UserError
from unified_reward.names import TRACKING_CLOSE_SECONDS, TRACKING_SPOOL
from unified_reward.tracking import system
from unified_reward.tracking.buffer import CLOSE_TIMEOUT_S, Courier
from unified_reward.tracking.delivery import FAILED, FINISHED, KILLED, check_uri
from unified_reward.tracking.spool import Entry, SpoolWriter, load_cursor

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL.Image import Image

logger = logging.getLogger(__name__)

KILLED_TIMEOUT_S = 5.0  # a scheduler follows SIGTERM with SIGKILL; what is not delivered by then waits in the spool
LONGEST_VALUE = 500
KILL_CODES = (128 + signal.SIGTERM, 128 + signal.SIGINT)


@dataclass(frozen=True)
class Target:
    """Where runs go: an MLflow server (http://HOST:PORT) or an SQL store (sqlite:////DIR/mlflow.db)."""

    uri: str
    experiment: str

    def __post_init__(self) -> None:
        check_uri(self.uri)
        if not self.experiment.strip():
            raise UserError(field="tracking.experiment", value=None, why="every run belongs to one", fix="Name one.")


def embedded_uri(directory: Path) -> str:
    """The tracking URI of an SQLite file in `directory`; artifacts go to `directory`/artifacts."""
    return f"sqlite:///{directory.absolute() / 'mlflow.db'}"


class StageRun:
    """What one run logs. Every method returns at once, and none raises because of MLflow."""

    def __init__(self, spool: SpoolWriter | None) -> None:
        self._spool = spool
        self._lost = 0

    @property
    def run_id(self) -> str:
        """MLflow's id of this run; "" until MLflow has been told of it, and where tracking is off."""
        return load_cursor(self._spool.directory).run_id if self._spool else ""

    def params(self, values: Mapping[str, Any]) -> None:
        """Parameters; nested mappings become `outer.inner`, long values are cut, None and empty ones left out."""
        self._put({"op": "params", "values": flatten(values)})

    def tags(self, values: Mapping[str, str]) -> None:
        self._put({"op": "tags", "values": {_name(key): _short(value) for key, value in values.items()}})

    def metric(self, name: str, value: float, step: int = 0) -> None:
        self.metrics({name: value}, step)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        """Values at a step. A step that an earlier attempt of this run has logged is left as it was."""
        if self._spool is None:
            return
        named = {_name(key): float(value) for key, value in values.items()}
        new = {key: value for key, value in named.items() if not self._spool.is_replay(key, step)}
        if new:
            self._put({"op": "metrics", "step": step, "time": _now(), "values": new})

    def input(
        self, name: str, *, prefix: str, digest: str, source: str, context: str = "input", rows: int | None = None
    ) -> None:
        """A dataset or model this run reads: its prefix in the store, the sha256 of its manifest, the store's URL."""
        scheme = source.split(":", 1)[0] if "://" in source else "local"
        self._put({
            "op": "input",
            "name": name,
            "digest": digest,
            "source_type": "local" if scheme == "file" else scheme,
            "source": redact(f"{source.rstrip('/')}/{prefix}"),
            "context": context,
            "profile": {"prefix": prefix} | ({} if rows is None else {"num_rows": rows}),
        })  # fmt: skip

    def figure(self, name: str, figure: Figure) -> None:
        """A matplotlib figure as figures/NAME.png. The figure stays usable."""
        from unified_reward.tracking.style import save_png

        self._write(f"figures/{name}.png", lambda path: save_png(figure, path))

    def image(self, name: str, image: np.ndarray | Image) -> None:
        """A picture (uint8 [H, W, 3], or PIL) as images/NAME.png."""
        from PIL import Image as images

        picture = image if isinstance(image, images.Image) else images.fromarray(image)
        self._write(f"images/{name}.png", lambda path: picture.save(path, "PNG"))

    def table(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Rows as tables/NAME.json, which MLflow's page shows as a table and compares between runs."""
        columns = list(dict.fromkeys(column for row in rows for column in row))
        data = [[_cell(row.get(column)) for column in columns] for row in rows]
        text = json.dumps({"columns": columns, "data": data}, ensure_ascii=False)
        self._write(f"tables/{name}.json", lambda path: path.write_text(text, encoding="utf-8"), table=True)

    def text(self, name: str, text: str) -> None:
        """Plain text as NAME (give it an ending: notes.txt). Text from datasets belongs here, never into html."""
        self._write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def html(self, name: str, page: str) -> None:
        """A page that is ours from end to end (report.render escapes what came from data), as NAME.html."""
        self._write(f"{name}.html", lambda path: path.write_text(page, encoding="utf-8"))

    def file(self, source: Path, path: str = "") -> None:
        """A copy of a small file, as `path` (default: its name)."""
        self._write(path or source.name, lambda target: shutil.copyfile(source, target))

    def directory(self, source: Path, path: str) -> None:
        """A copy of a small directory, as `path`. Checkpoints and datasets stay in the store."""
        self._write(path, lambda target: shutil.copytree(source, target))

    def register_model(self, name: str, source: Path | str, tags: Mapping[str, str]) -> None:
        """A new version in the model registry, once per run and source.

        source: the model's URI in the object store (s3://...), or a directory, which becomes the run's artifact
        `model/`: a server takes no `file://` URI. tags: the lineage (digests of data, base, judge).
        """
        if isinstance(source, Path):
            self.directory(source, "model")
        named = {_name(key): _short(value) for key, value in tags.items()}
        uri = source if isinstance(source, str) else ""
        self._put({"op": "model", "name": name, "source": uri, "path": "model", "tags": named})

    def next_system_step(self) -> int:
        return self._spool.next_step(system.PROCESS_TREE_MEMORY) if self._spool else 0

    def end(self, status: str, error: str = "") -> None:
        if error:
            self.tags({"error": error})
        if self._lost:
            self.tags({"unified_reward.lost_entries": str(self._lost)})
        self._put({"op": "end", "status": status, "time": _now()})

    def _write(self, path: str, write: Any, *, table: bool = False) -> None:
        relative = PurePosixPath(path)
        if relative.is_absolute() or ".." in relative.parts or not relative.name:
            raise ValueError(f"artifact path {path!r} must be relative and stay inside the run")
        if self._spool is None:
            return
        with self._guarded():
            payload = self._spool.payload(relative.name)
            write(payload)
            stored = payload.relative_to(self._spool.directory).as_posix()
            self._spool.append({"op": "file", "path": str(relative), "payload": stored, "table": table})

    def _put(self, entry: Entry) -> None:
        if self._spool is not None:
            with self._guarded():
                self._spool.append(entry)

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """A full disk must not fail a stage: what is lost is counted, said once, and tagged on the run."""
        try:
            yield
        except OSError as error:
            if not self._lost:
                logger.warning("tracking: the spool cannot be written (%s); entries are lost from here on", error)
            self._lost += 1


@contextlib.contextmanager
def stage_run(
    target: Target | None,
    spool_root: Path,
    *,
    key: str,
    name: str,
    parent_key: str = "",
    parent_run_id: str = "",
    tags: Mapping[str, str] | None = None,
    system_metrics: bool = True,
    close_timeout_s: float = 0.0,
) -> Iterator[StageRun]:
    """A run for the length of the block; without a target (ranks > 0, tracking off) one that logs nothing.

    key: names the execution ([A-Za-z0-9._-]); the same key resumes the same MLflow run.
    parent_key: the key of the parent's run; parent_run_id: its MLflow id where that is known instead.
    Where UR_TRACKING_SPOOL names a directory, the launcher delivers, this process never imports MLflow, and
    `spool_root` is not used. Otherwise a thread of this process delivers, and `close_timeout_s` bounds its last wait
    (0: $UR_TRACKING_CLOSE_SECONDS, else half a minute; a pod's spool goes with it, so there it is minutes).
    """
    close_timeout_s = close_timeout_s or float(os.environ.get(TRACKING_CLOSE_SECONDS, CLOSE_TIMEOUT_S))
    if target is None:
        yield StageRun(None)
        return
    delivered_elsewhere = os.environ.get(TRACKING_SPOOL, "")
    root = Path(delivered_elsewhere or spool_root)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", key):
        raise ValueError(f"run key {key!r}: letters, digits, '.', '_' and '-' only")
    spool = SpoolWriter(root / key)
    run = StageRun(spool)
    spool.append({
        "op": "open",
        "uri": target.uri,
        "experiment": target.experiment,
        "key": key,
        "name": name,
        "parent_key": parent_key,
        "parent_run_id": parent_run_id,
        "time": _now(),
        "tags": _run_tags(spool.attempt, tags or {}),
    })  # fmt: skip
    courier = None if delivered_elsewhere else Courier(root).start()
    status, error = FINISHED, ""
    try:
        with _terminable(), _sampled(run, system_metrics):
            yield run
    except BaseException as raised:
        status, error = outcome(raised)
        raise
    finally:
        run.end(status, error)
        spool.close()
        if courier is not None:
            courier.close(
                min(close_timeout_s, KILLED_TIMEOUT_S) if status == KILLED else close_timeout_s, spool.directory
            )


def outcome(raised: BaseException) -> tuple[str, str]:
    """The status and the error text of a run that this exception ended."""
    if isinstance(raised, KeyboardInterrupt):
        return KILLED, "interrupted"
    if isinstance(raised, SystemExit):
        if raised.code in (None, 0):
            return FINISHED, ""
        return (KILLED if raised.code in KILL_CODES else FAILED), f"exit status {raised.code}"
    return FAILED, _short(f"{type(raised).__name__}: {raised}")


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested values as `outer.inner` -> text, as MLflow's parameters need them."""
    flat: dict[str, str] = {}
    for key, value in values.items():
        name = _name(f"{prefix}{key}")
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{name}."))
        elif isinstance(value, (list, tuple)):
            flat[name] = _short(json.dumps(value, default=str, ensure_ascii=False))
        elif value is not None and value != "":
            flat[name] = _short(value)
    return flat


def redact(text: str) -> str:
    """The text with user names and passwords taken out of its URLs."""
    return re.sub(r"(?<=://)[^/@\s]+@", "***@", text)


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM unwind the stack with exit status 143, unless the program already handles it."""
    mine = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not mine:
        yield
        return

    def terminate(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut the closing short
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGTERM) is terminate:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextlib.contextmanager
def _sampled(run: StageRun, enabled: bool) -> Iterator[None]:
    if not enabled:
        yield
        return
    with system.sampling(run.metrics, run.next_system_step()):
        yield


def _run_tags(attempt: int, tags: Mapping[str, str]) -> dict[str, str]:
    user = os.environ.get("USER") or os.environ.get("LOGNAME") or ""
    own = {"unified_reward.attempts": str(attempt), "mlflow.source.name": "unified-reward", "mlflow.user": user}
    return {_name(key): _short(value) for key, value in {**own, **tags}.items() if value}


def _name(text: str) -> str:
    """A key that MLflow takes: at most 250 of its characters."""
    return re.sub(r"[^/\w.\- :]", "_", text)[:250]


def _short(value: object) -> str:
    text = redact(" ".join(str(value).split()))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value if isinstance(value, (int, str, bool, type(None))) else str(value)


def _now() -> int:
    return time.time_ns() // 1_000_000
