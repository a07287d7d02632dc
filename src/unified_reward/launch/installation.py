"""What the installation in a namespace offers its runs, as a person outside of it finds it: ConfigMap ur-cluster."""

from __future__ import annotations

from unified_reward.config import ClusterDefaults, read_defaults
from unified_reward.launch.kube import Kube, core_path

CONFIGMAP, KEY = "ur-cluster", "cluster.yaml"


def offered_by(cluster: Kube, namespace: str) -> ClusterDefaults:
    """The package's own defaults where there is no installation. Raises UserError when the cluster does not answer."""
    found = cluster.get(core_path(namespace, "configmaps", CONFIGMAP))
    return read_defaults((found.get("data") or {}).get(KEY, "")) if found else ClusterDefaults()
