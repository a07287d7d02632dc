"""The chart as Helm renders it: what its tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from unified_reward.config import ClusterDefaults, read_defaults

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "unified-reward"
PACKED = ROOT.parent / "shared" / "cluster" / "bin" / "helm.xz"
FLAGS = ("--kube-version", "1.34.2", "--namespace", "ns")
EXTERNAL = (
    "global.objectStore.bundled=false", "global.objectStore.endpoint=https://s3.example.org:9443",
    "global.objectStore.existingSecret=keys", "mlflow.artifacts.existingSecret=mlflow-keys",
    "mlflow.database.bundled=false", "mlflow.database.existingSecret=database",
)  # fmt: skip
SERVE = ("serve.enabled=true", "serve.model=run:shapes")
Manifest = dict[str, Any]
Render = Callable[..., list[Manifest]]


def template(
    helm: str,
    sets: tuple[str, ...] = (),
    release: str = "ur",
    values: str = "",
    options: tuple[str, ...] = (),
    chart: Path = CHART,
) -> subprocess.CompletedProcess[str]:
    """values: text of a values file."""
    given = [part for text in sets for part in ("--set", text)]
    command = [helm, "template", release, str(chart), *FLAGS, "--values", "-", *given, *options]
    return subprocess.run(command, input=values, capture_output=True, text=True, timeout=60)


def documents(rendered: str) -> list[Manifest]:
    return [found for found in yaml.safe_load_all(rendered) if found]


def one(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Name and pod spec of everything that starts pods."""
    for manifest in manifests:
        if manifest["kind"] == "Pod":
            yield manifest["metadata"]["name"], manifest["spec"]
        elif "template" in manifest.get("spec", {}):
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def defaults_of(manifests: list[Manifest]) -> ClusterDefaults:
    return read_defaults(one(manifests, "ConfigMap", "ur-cluster")["data"]["cluster.yaml"])
