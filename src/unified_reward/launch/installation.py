"""What the installation in a namespace offers its runs, as a person outside of it finds it, whatever its release is named."""

from __future__ import annotations

from unified_reward.config import ClusterDefaults, read_defaults
from unified_reward.errors import UserError
from unified_reward.launch.kube import Kube, core_path

LABEL, KEY = "unifiedreward.dev/cluster=defaults", "cluster.yaml"


def offered_by(cluster: Kube, namespace: str) -> ClusterDefaults:
    """The package's own defaults where there is no installation.

    Raises UserError when the cluster does not answer, and where two installations are in the namespace.
    """
    found = cluster.objects(core_path(namespace, "configmaps"), labels=LABEL)
    if len(found) > 1:
        names = ", ".join(sorted(one["metadata"]["name"] for one in found))
        raise UserError(field="namespace", value=namespace, why=f"more than one installation offers something there ({names})",
                        fix="Give each a namespace of its own: helm list, helm uninstall.")  # fmt: skip
    return read_defaults((found[0].get("data") or {}).get(KEY, "")) if found else ClusterDefaults()
