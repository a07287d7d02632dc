"""Where things are on this machine when nothing else is said: one directory, `.unified-reward`, or $UR_HOME.

store/            the object store            mlflow/mlflow.db, mlflow/artifacts    tracking
runs/NAME/        status.json, logs           work/        scratch: caches, staging, tracking spools
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from unified_reward.names import HOME, STORE


@dataclass(frozen=True)
class Home:
    root: Path

    @classmethod
    def at(cls, directory: str = "") -> Home:
        """`directory`, else $UR_HOME, else .unified-reward in the current directory."""
        return cls(Path(directory or os.environ.get(HOME, "") or ".unified-reward").expanduser().absolute())

    @property
    def store_url(self) -> str:
        return (self.root / "store").as_uri()

    @property
    def named_store_url(self) -> str:
        """$UR_STORE, as a cluster's pods have it, else the one here."""
        return os.environ.get(STORE) or self.store_url

    @property
    def tracking_directory(self) -> Path:
        return self.root / "mlflow"

    @property
    def work(self) -> Path:
        return self.root / "work"

    @property
    def spools(self) -> Path:
        return self.work / "tracking"

    def run(self, name: str) -> Path:
        return self.root / "runs" / name
