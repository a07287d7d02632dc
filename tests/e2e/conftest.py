"""Tests on a real cluster: `make test-cluster`. They need kubectl, helm, a kubeconfig, and the four images on its nodes.

One installation, of the chart as it stands, serves all of them. UR_CLUSTER_TESTS=1 turns them on; UR_REGISTRY and UR_TAG
name the images; UR_KEEP=1 leaves the namespace. UR_CONTROL_PLANE names a program that restarts a control plane's part
(`PROGRAM restart kube-apiserver -KILL`), where there is one.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NAMESPACE = os.environ.get("UR_NAMESPACE", "ur-e2e")
REGISTRY, TAG = os.environ.get("UR_REGISTRY", "localhost"), os.environ.get("UR_TAG", "dev")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = os.environ.get("UR_CLUSTER_TESTS") == "1"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)
            if not wanted:
                item.add_marker(pytest.mark.skip(reason="needs a cluster: make test-cluster"))


@dataclass(frozen=True)
class Cluster:
    """kubectl in one namespace."""

    namespace: str

    def kubectl(self, *words: str, text: str | None = None, check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", "-n", self.namespace, *words], input=text, capture_output=True, text=True, timeout=600, check=False
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
        return done.stdout if check else done.stdout + done.stderr

    def get(self, kind: str, name: str = "", selector: str = "") -> Any:
        words = ["get", kind, *([name] if name else []), *(["-l", selector] if selector else []), "-o", "json"]
        found = json.loads(self.kubectl(*words))
        return found if name else found["items"]

    def apply(self, document: dict[str, Any]) -> None:
        self.kubectl("apply", "--server-side", "-f", "-", text=json.dumps(document))

    def until(self, condition: Callable[[], Any], seconds: float, what: str) -> Any:
        """The first true value of `condition`; errors of the moment (an API server that restarts) are waited out."""
        deadline, last = time.monotonic() + seconds, ""
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError, ValueError, subprocess.TimeoutExpired):
                if found := condition():
                    return found
            time.sleep(1.0)
        last = self.kubectl("get", "arun,pytorchjobs,pods", check=False)
        raise AssertionError(f"{what}: not within {seconds:.0f} s\n{last}")

    @contextlib.contextmanager
    def forward(self, service: str, port: int) -> Iterator[int]:
        """A local port that reaches the Service."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            local = int(probe.getsockname()[1])
        command = ["kubectl", "-n", self.namespace, "port-forward", f"service/{service}", f"{local}:{port}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert b"Forwarding" in first, first
            try:
                yield local
            finally:
                process.kill()

    def secret(self, name: str) -> dict[str, str]:
        import base64

        return {key: base64.b64decode(value).decode() for key, value in self.get("secret", name)["data"].items()}

    def phase(self, run: str) -> str:
        return str(self.get("arun", run).get("status", {}).get("phase", ""))

    def ended(self, run: str, seconds: float) -> dict[str, Any]:
        """The run's resource once it has ended, whichever way."""
        return dict(self.until(lambda: _terminal(self.get("arun", run)), seconds, f"the end of {run}"))

    def pods_of(self, run: str, node: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(
            "pods", selector=f"unifiedreward.dev/run={run},unifiedreward.dev/node={node}"
        )
        return found

    def running(self, run: str, node: str, *, attempt: int = 1, seconds: float = 240.0) -> str:
        """The name of a pod of the stage, once its ranks have met and done some work."""

        def look() -> str:
            for pod in self.pods_of(run, node):
                name, labels = pod["metadata"]["name"], pod["metadata"]["labels"]
                runs = labels["unifiedreward.dev/attempt"] == str(attempt) and pod["status"]["phase"] == "Running"
                if runs and "progress" in self.kubectl("logs", name, check=False):
                    return str(name)
            if _terminal(self.get("arun", run)):
                pytest.fail(f"{run} ended before {node} was seen at work: it is too short for this test")
            return ""

        return str(self.until(look, seconds, f"attempt {attempt} at {node} of {run} at work"))


def _terminal(run: dict[str, Any]) -> dict[str, Any] | None:
    return run if run.get("status", {}).get("phase") in ("Succeeded", "Failed", "Cancelled") else None


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The namespace with our chart installed, under restricted Pod Security."""
    found = Cluster(NAMESPACE)
    if not os.environ.get("UR_KEEP"):
        found.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait")
    subprocess.run(["kubectl", "create", "namespace", NAMESPACE], capture_output=True, check=False)
    found.kubectl("label", "namespace", NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite")
    install = [
        "helm", "upgrade", "--install", "ur", str(ROOT / "charts/unified-reward"), "-n", NAMESPACE,
        "-f", str(ROOT / "charts/unified-reward/values-local.yaml"), "--set", f"global.image.registry={REGISTRY}",
        "--set", f"global.image.tag={TAG}", "--wait", "--timeout", "10m",
    ]  # fmt: skip
    done = subprocess.run(install, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr + found.kubectl("get", "pods,events", check=False)
    yield found
    if not os.environ.get("UR_KEEP"):
        found.kubectl("delete", "namespace", NAMESPACE, "--wait=false")
