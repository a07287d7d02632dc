"""What an installation offers and what a document asks, joined into what every job of a run has in common."""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml

from unified_reward.config.cluster import ClusterDefaults, ClusterSpec, Toleration
from unified_reward.config.load import validate
from unified_reward.errors import UserError


@dataclass(frozen=True)
class Placement:
    """What every job of a run has in common, resolved. Sizes are Kubernetes quantities, times seconds."""

    defaults: ClusterDefaults
    spec: ClusterSpec
    image: str
    queue: str
    priority_class: str
    env: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


def placement(defaults: ClusterDefaults, spec: ClusterSpec) -> Placement:
    """Join what is offered and what is asked. Raises UserError for a Secret that the installation does not allow."""
    for place, name in enumerate(spec.secrets):
        if name not in defaults.allowed_secrets:
            allowed = ", ".join(defaults.allowed_secrets) or "none"
            raise UserError(
                field=f"spec.cluster.secrets.{place}", value=name, why="this installation does not offer it to runs",
                fix=f"Allowed here: {allowed}. An admin adds to allowedSecrets.",
            )  # fmt: skip
    return Placement(
        defaults=defaults, spec=spec, image=spec.image or defaults.image, queue=spec.queue or defaults.queue,
        priority_class=spec.priority_class or defaults.priority_class, env={**defaults.env, **spec.env},
        node_selector={**defaults.node_selector, **spec.node_selector},
        tolerations=(*defaults.tolerations, *spec.tolerations),
    )  # fmt: skip


def read_defaults(text: str) -> ClusterDefaults:
    """From the ConfigMap's YAML. Raises UserError naming the first mistake."""
    try:
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that is none
        why = f"it is no valid YAML: {' '.join(str(error).split())}"
        raise UserError(field="FILE", value="cluster.yaml", why=why, fix="Mend the syntax.") from error
    if not isinstance(values, dict):
        why = "it is no mapping of fields"
        raise UserError(
            field="FILE", value="cluster.yaml", why=why, fix="Write for example trackingUri: http://HOST:PORT."
        )
    return validate(ClusterDefaults, values, "cluster.yaml")
