"""Values of the chart: good ones are taken, mistaken ones refused by the field's name before anything is changed."""

from __future__ import annotations

import pytest

from .chart import template

BAD = [
    ("global.image.tag=latest", "global.image.tag"),
    ("global.image.registry=https://registry.example.org", "/global/image/registry"),
    ("global.image.pullPolicy=Sometimes", "/global/image/pullPolicy"),
    ("global.imagePullSecrets={Not A Name}", "/global/imagePullSecrets/0"),
    ("global.objectStore.bucket=Upper_Case", "/global/objectStore/bucket"),
    ("global.objectStore.bundled=false", "/global/objectStore/existingSecret"),
    ("global.objectStore.endpoint=http://s3.example.org", "/global/objectStore/endpoint"),
    ("global.networkPolicy.apiServerPorts={70000}", "/global/networkPolicy/apiServerPorts/0"),
    ("cluster.gpuResource=gpu", "/cluster/gpuResource"),
    ("cluster.ttlSecondsAfterFinished=-1", "/cluster/ttlSecondsAfterFinished"),
    ("cluster.trackingUri=http://user:secret@mlflow", "/cluster/trackingUri"),
    ("cluster.env.ONE=1", "/cluster/env/ONE"),
    ("cluster.tolerations[0].efect=NoSchedule", "efect"),
    ("minio.image.digest=sha256:short", "/minio/image/digest"),
    ("minio.persistence.size=ten", "/minio/persistence/size"),
    ("minio.staleUploads=1day", "/minio/staleUploads"),
    ("minio.resources.limits.memory=1Gb", "/minio/resources/limits/memory"),
    ("mlflow.replicas=0", "/mlflow/replicas"),
    ("mlflow.replica=2", "replica"),
    ("mlflow.allowedHosts={https://ml.example.org}", "/mlflow/allowedHosts/0"),
    ("mlflow.database.bundled=false", "/mlflow/database/existingSecret"),
    ("operator.image.repository=UR", "/operator/image/repository"),
    ("operator.command=python", "/operator/command"),
    ("operator.replicas=2", "replicas"),
    ("serve.enabled=true", "/serve/model"),
    ("serve.model=shapes:latest", "/serve/model"),
    ("serve.gpus=2", "/serve/gpus"),
    ("serve.token=secret", "token"),
    ("serve.fetch={http://}", "/serve/fetch/0"),
    ("serve.startupSeconds=0", "/serve/startupSeconds"),
    ("serve.modelSpace=lots", "/serve/modelSpace"),
    ("trainingOperator.initImage=busybox", "/trainingOperator/initImage"),
    ("trainingOperator.install=true,trainingOperator.initImage=busybox:latest", "trainingOperator.initImage"),
    ("trainingoperator.install=true", "trainingoperator"),
    ("mlflow.enabled=false", "cluster.trackingUri"),
    ("mlflow.artifacts.bucket=unified-reward", "mlflow.artifacts.bucket"),
]


@pytest.mark.parametrize(("mistake", "named"), BAD, ids=[mistake for mistake, _ in BAD])
def test_a_mistake_is_refused_by_the_field_s_name(helm: str, mistake: str, named: str) -> None:
    done = template(helm, (mistake,))
    assert done.returncode != 0
    where = named if "." in named or "/" not in named else f"at '{named}'"
    assert where in done.stderr, done.stderr


def test_a_release_s_name_that_is_too_long_for_its_objects(helm: str) -> None:
    done = template(helm, release="a-release-with-a-name-of-more-than-thirty")
    assert done.returncode != 0
    assert "Choose one of at most 30" in done.stderr
