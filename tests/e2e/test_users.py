"""A person with no right but the chart's Role: everything the pages promise works for them, and nothing else does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .conftest import Cluster
from .documents import judge_only
from .test_torchx import IMPORT

PERSON = "ada"
FORBIDDEN = [
    ("create", "pods"), ("create", "pods/exec"), ("list", "secrets"), ("get", "secrets/ur-minio-root"),
    ("get", "secrets/ur-mlflow-store"), ("patch", "configmaps"), ("create", "deployments.apps"), ("delete", "pods"),
]  # fmt: skip


@pytest.fixture(scope="module")
def environment(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Of a process that is this person."""
    cluster.kubectl("create", "serviceaccount", PERSON)
    cluster.kubectl("create", "rolebinding", PERSON, "--role=ur-user", f"--serviceaccount={cluster.namespace}:{PERSON}")
    config = json.loads(cluster.kubectl("config", "view", "--raw", "--minify", "-o", "json"))
    config["users"][0]["user"] = {"token": cluster.kubectl("create", "token", PERSON, "--duration=1h").strip()}
    config["contexts"][0]["context"]["namespace"] = cluster.namespace
    path = tmp_path_factory.mktemp("ada") / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    yield {**os.environ, "KUBECONFIG": str(path), "HOME": str(path.parent)}
    cluster.kubectl("delete", "rolebinding,serviceaccount", PERSON)


def told(environment: dict[str, str], *words: str, cwd: Path | None = None) -> str:
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600, check=False, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_run_from_its_document_to_its_summary(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(judge_only("ada", steps=20)))
    told(environment, "unified-reward", "run", "run.yaml", "--on", "cluster", cwd=tmp_path)
    assert "Succeeded" in told(environment, "unified-reward", "status", "--on", "cluster")
    assert "judge" in json.loads(told(environment, "unified-reward", "summary", "ada", "--on", "cluster", "--json"))
    assert "records" in told(environment, "unified-reward", "logs", "ada", "import", "--on", "cluster")


def test_a_job_with_local_edits(environment: dict[str, str], tmp_path: Path) -> None:
    torchx = [sys.executable, "-m", "torchx.cli.main"]
    (tmp_path / "sitecustomize.py").write_text("print('an edit of ada', flush=True)\n")  # every Python imports it
    words = ["run", "-s", "pytorchjob", "-cfg", "workspace=true", "--wait", "--log", *IMPORT]
    out = told(environment, *torchx, *words, cwd=tmp_path)
    assert "an edit of ada" in out
    handle = next(line for line in out.splitlines() if line.startswith("pytorchjob://"))
    assert "SUCCEEDED" in told(environment, *torchx, "status", handle)
    told(environment, *torchx, "delete", handle)


@pytest.mark.parametrize(("verb", "what"), FORBIDDEN, ids=lambda word: word)
def test_no_more_than_that(cluster: Cluster, environment: dict[str, str], verb: str, what: str) -> None:
    words = ["kubectl", "auth", "can-i", verb, what, "-n", cluster.namespace]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("no", 1)
