"""The way to the MLflow page: the command that serves it, and links that land on the view one means."""

from __future__ import annotations

import sys

from unified_reward.tracking.delivery import check_uri, sqlite_path

# This version of MLflow opens an experiment on a view for chat traces unless told otherwise.
VIEW = "workflowType=machine_learning"


def ui_command(uri: str, *, host: str = "127.0.0.1", port: int = 5000) -> list[str]:
    """The command that serves the pages of an SQL store; empty when `uri` is a server, which serves them itself."""
    check_uri(uri)
    if uri.startswith("http"):
        return []
    server = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", host, "--port", str(port)]
    database = sqlite_path(uri)
    artifacts = ["--default-artifact-root", (database.parent / "artifacts").as_uri()] if database else []
    # Job execution starts nine more processes (2 GB) for features that are not used here.
    quiet = ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false", "MLFLOW_DISABLE_TELEMETRY=true"]
    return ["env", *quiet, *server, *artifacts, "--workers", "1"]


def runs_url(base: str, experiment_id: str) -> str:
    """The table of an experiment's runs. base: http://HOST:PORT of the server."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?{VIEW}"


def run_url(base: str, experiment_id: str, run_id: str) -> str:
    """The page of one run."""
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}?{VIEW}"
