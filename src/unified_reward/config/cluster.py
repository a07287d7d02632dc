"""What runs need of a Kubernetes cluster: what an installation offers (ClusterDefaults), what a document asks (ClusterSpec).

`placement.py` joins the two. On one machine none of this is looked at.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from unified_reward.config.forms import (
    Image,
    Key,
    LabelValue,
    ObjectName,
    OptionalKey,
    OptionalObjectName,
    QueueName,
    Resource,
    Size,
    VariableName,
)
from unified_reward.config.model import Model, fault

PULL_POLICIES = Literal["IfNotPresent", "Always", "Never"]
Value = Annotated[str, StringConstraints(max_length=253)]
Long = Annotated[str, StringConstraints(max_length=4096)]
DEFAULT_IMAGE = "localhost/ur-trainer:dev"


class Toleration(Model):
    """Of a node's taint, as in a pod."""

    key: OptionalKey = Field("", description="empty with Exists: every taint")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Equal asks for value too, Exists for key alone")
    value: LabelValue = Field("", description="of the taint, with Equal")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="of the taint; empty = every effect"
    )


class Retries(Model):
    """Further attempts of a stage after failures of each cause. A user's mistake is never tried again."""

    preempted: int = Field(20, ge=0, le=1000, description="after a preemption, an eviction or a lost node")
    memory: int = Field(1, ge=0, le=20, description="after memory ran out")
    crashed: int = Field(1, ge=0, le=20, description="after any other failure")
    backoff_seconds: float = Field(5.0, ge=0, le=3600, description="before the second attempt; doubled each time")


class ClusterSpec(Model):
    """How the jobs of a run are placed. Empty = what the installation offers (ConfigMap NAME-cluster)."""

    image: Image = Field("", description="trainer image")
    queue: QueueName = Field("", description="Kueue local queue; jobs then start suspended and Kueue admits them")
    priority_class: OptionalObjectName = Field("", description="priorityClassName of the pods")
    node_selector: dict[Key, LabelValue] = Field(
        default_factory=dict, max_length=32, description="labels a node must have"
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, max_length=16, description="taints of nodes that the pods may run on all the same"
    )
    env: dict[VariableName, Long] = Field(
        default_factory=dict, max_length=64, description="more environment of the stages"
    )
    secrets: list[ObjectName] = Field(
        default_factory=list,
        max_length=16,
        description="Secrets whose keys become environment; the installation lists allowed ones",
    )
    annotations: dict[Key, Value] = Field(
        default_factory=dict,
        max_length=32,
        description="more annotations of the pods (a fake node's seconds, a topology)",
    )
    shm: Size = Field("", description="size of /dev/shm; empty = half of the pod's memory")
    grace_seconds: int = Field(60, ge=10, le=3600, description="from SIGTERM to SIGKILL: a checkpoint must fit in")
    start_timeout_seconds: int = Field(3600, ge=10, description="a stage that cannot start for so long has failed")
    deadline_seconds: int = Field(0, ge=0, description="a stage's longest attempt; 0 = no limit")
    workspace: str = Field(
        "",
        pattern=r"^$|^[0-9a-f]{64}$",
        description="sha256 of a tar of code in the store that is put over the image's",
    )
    retries: Retries = Field(default_factory=Retries)

    @model_validator(mode="after")
    def _check_image(self) -> Self:
        if self.image.endswith(":latest"):
            why = "an image needs a version or a digest: with latest a retry may run other code"
            raise fault("image", self.image, why, "Name a version, or a digest (NAME@sha256:...).")
        return self


class ClusterDefaults(Model):
    """What an installation offers its runs: the ConfigMap that the chart writes."""

    store: str = Field("s3://unified-reward", description="store of runs that name none")
    store_endpoint: str = Field(
        "http://ur-minio:9000", description="S3 endpoint as pods reach it; empty = the cloud's own"
    )
    store_secret: str = Field(
        "ur-store", description="Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the jobs"
    )
    store_service: str = Field(
        "ur-minio", description="Service to forward to from outside; empty = the endpoint is reachable"
    )
    tracking_uri: str = Field("http://ur-mlflow:5000", description="MLflow as pods reach it")
    image: str = Field(DEFAULT_IMAGE, description="trainer image of runs that name none")
    image_pull_policy: PULL_POLICIES = "IfNotPresent"
    image_pull_secrets: list[ObjectName] = Field(default_factory=list)
    service_account: ObjectName = Field("ur-jobs", description="of the jobs; without a token")
    env: dict[VariableName, str] = Field(default_factory=dict)
    node_selector: dict[Key, LabelValue] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    queue: QueueName = ""
    priority_class: OptionalObjectName = ""
    allowed_secrets: list[ObjectName] = Field(
        default_factory=list, description="Secrets that documents may name under cluster.secrets"
    )
    gpu_resource: Resource = "nvidia.com/gpu"
    ttl_seconds_after_finished: int = Field(604800, ge=0, description="after which a finished job goes; 0 = never")
