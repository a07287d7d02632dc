"""Values of the chart: good ones are taken, mistaken ones refused by the field's name before anything is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from unified_reward.config import forms

from .chart import CHART, EXTERNAL, defaults_of, documents, one, template

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
    (",".join((*EXTERNAL, "mlflow.artifacts.bucket=unified-reward")), "mlflow.artifacts.bucket"),
    ("global.objectStore.existingSecret=keys,mlflow.artifacts.existingSecret=keys", "mlflow.artifacts.existingSecret"),
    ("mlflow.artifacts.existingSecret=ur-store", "mlflow.artifacts.existingSecret"),
    ("global.objectStore.bucket=a..b", "/global/objectStore/bucket"),
    ("global.objectStore.cidrs={10.0.0.0}", "/global/objectStore/cidrs/0"),
    ("global.objectStore.cidrs={10.0.0.0/33}", "/global/objectStore/cidrs/0"),
    *(
        (f"global.objectStore.cidrs={{{block}}}", "global.objectStore.cidrs")
        for block in (
            "0.0.0.0/1",
            "169.0.0.0/8",
            "169.254.0.0/16",
            "169.254.169.254/32",
            "8000::/1",
            "fe80::/10",
            "febf::/64",
            "fd00::/8",
            "fd00::/20",
            "fd00:ec2::/32",
            "fd00:ec2::254/128",
        )
    ),
    ("global.networkPolicy.dnsAddresses={node}", "/global/networkPolicy/dnsAddresses/0"),
    ("global.networkPolicy.dnsPorts={0}", "/global/networkPolicy/dnsPorts/0"),
    ("global.imagePullSecrets={a.-b}", "/global/imagePullSecrets/0"),
    ("cluster.nodeSelector.pool=not a label", "/cluster/nodeSelector/pool"),
    ("cluster.nodeSelector.a b=c", "propertyName 'a b'"),
    ("cluster.tolerations[0].key=a b", "/cluster/tolerations/0/key"),
    ("cluster.tolerations[0].value=a b", "/cluster/tolerations/0/value"),
    ("cluster.gpuResource=-/x", "/cluster/gpuResource"),
    ("cluster.priorityClass=a..b", "/cluster/priorityClass"),
    ("cluster.queue=team.", "/cluster/queue"),
    ("users.subjects[0].kind=ServiceAccount,users.subjects[0].name=robot", "/users/subjects/0"),
    (
        "users.subjects[0].kind=ServiceAccount,users.subjects[0].name=robot,users.subjects[0].namespace=ns,"
        "users.subjects[0].apiGroup=rbac.authorization.k8s.io",
        "/users/subjects/0/apiGroup",
    ),
    ("mlflow.database.port=0", "/mlflow/database/port"),
    ("minio.persistence.size=0.0Gi", "/minio/persistence/size"),
    ("minio.resources.requests.cpu=-1", "/minio/resources/requests/cpu"),
    ("trainingOperator.watchNamespace=a.b", "/trainingOperator/watchNamespace"),
]


@pytest.mark.parametrize(("mistake", "named"), BAD, ids=[mistake for mistake, _ in BAD])
def test_a_mistake_is_refused_by_the_field_s_name(helm: str, mistake: str, named: str) -> None:
    done = template(helm, (mistake,))
    assert done.returncode != 0
    where = named if "." in named or "/" not in named else f"at '{named}'"
    assert where in done.stderr, done.stderr


GOOD = [
    "cluster.queue=team.a",
    "cluster.env.a-b=c",
    "global.objectStore.bucket=runs.example.org",
    "minio.persistence.size=1.5Ti",
    "minio.persistence.size=0.5Ti",
    "minio.resources.limits.memory=1Ei",
    "minio.resources.requests.cpu=0",
    "serve.modelSpace=1.5Ti",
    "mlflow.enabled=false,mlflow.database.bundled=false,cluster.trackingUri=https://mlflow.example.org",
    "users.subjects[0].kind=ServiceAccount,users.subjects[0].name=robot,users.subjects[0].namespace=ns",
    "users.subjects[0].kind=User,users.subjects[0].name=ada,users.subjects[0].apiGroup=rbac.authorization.k8s.io",
    ",".join((*EXTERNAL, "global.objectStore.existingSecret=both", "mlflow.artifacts.existingSecret=both")),
    *(
        f"global.objectStore.cidrs={{{block}}}"
        for block in ("10.0.0.0/8", "169.1.2.0/24", "fd12:3456::/32", "2600::/16")
    ),
]


@pytest.mark.parametrize("values", GOOD)
def test_what_kubernetes_takes_is_taken(helm: str, values: str) -> None:
    done = template(helm, (values,))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("objectName", forms.OBJECT), ("optionalName", forms.OPTIONAL_OBJECT), ("namespace", forms.NAMESPACE),
        ("queue", forms.QUEUE), ("key", forms.KEY), ("optionalKey", forms.OPTIONAL_KEY), ("labelValue", forms.LABEL_VALUE),
        ("variable", forms.VARIABLE), ("resource", forms.RESOURCE),
    ],
)  # fmt: skip
def test_the_chart_takes_the_names_that_the_operator_takes(name: str, form: forms.Form) -> None:
    found = json.loads((CHART / "values.schema.json").read_text())["$defs"][name]
    assert found == {"type": "string", "pattern": form.anchored, "maxLength": form.longest}


def test_what_the_operator_reads_has_the_operator_s_forms() -> None:
    cluster: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())["properties"]["cluster"][
        "properties"
    ]
    used = {"queue": "queue", "priorityClass": "optionalName", "gpuResource": "resource", "nodeSelector": "labels",
            "tolerations": "tolerations", "env": "env"}  # fmt: skip
    assert {field: cluster[field]["$ref"] for field in used} == {
        field: f"#/$defs/{name}" for field, name in used.items()
    }


def test_large_numbers_are_not_written_as_powers_of_ten(helm: str) -> None:
    values = """
serve: {enabled: true, model: "run:shapes", queue: 2000000, batch: 1000000}
cluster: {ttlSecondsAfterFinished: 31536000}
"""
    done = template(helm, values=values)
    assert done.returncode == 0, done.stderr
    manifests = documents(done.stdout)
    (server,) = one(manifests, "Deployment", "ur-serve")["spec"]["template"]["spec"]["containers"]
    assert {"--queue=2000000", "--batch=1000000"} <= set(server["args"])
    assert defaults_of(manifests).ttl_seconds_after_finished == 31536000


@pytest.mark.parametrize("name", ["ur.prod", "1ur"])
def test_a_release_s_name_begins_the_names_of_services(helm: str, name: str) -> None:
    done = template(helm, release=name)
    assert done.returncode != 0
    assert f"release name {name} cannot begin the name of a Service" in done.stderr


def test_a_release_s_name_that_is_too_long_for_its_objects(helm: str) -> None:
    done = template(helm, release="a-release-with-a-name-of-more-than-thirty")
    assert done.returncode != 0
    assert "Choose one of at most 30" in done.stderr
