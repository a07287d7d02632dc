"""The chart as Helm renders it: what holds for every object of it, and for each of its parts."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from unified_reward.config import ClusterDefaults

from .api_server import Api
from .chart import CHART, EXTERNAL, SERVE, Manifest, Render, containers, defaults_of, documents, one, pods, template


def test_the_linter_has_no_complaint(helm: str) -> None:
    done = subprocess.run([helm, "lint", "--strict", CHART], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "sets",
    [("trainingOperator.install=true", "mlflow.replicas=3", *SERVE), (*EXTERNAL, *SERVE)],
    ids=["bundled", "external"],
)
def test_every_pod_passes_restricted_pod_security(render: Render, sets: tuple[str, ...]) -> None:
    found = dict(pods(render(*sets)))
    assert {"ur-operator", "ur-mlflow", "ur-serve", "ur-test-store"} <= set(found)
    for name, spec in found.items():
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True, name
        assert security["runAsUser"] == 10001, name
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["enableServiceLinks"] is False, name
        for container in containers(spec):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
            }, name  # fmt: skip
            assert {"cpu", "memory"} <= set(container["resources"]["requests"]), name
            assert "memory" in container["resources"]["limits"], name
            assert not container["image"].endswith(":latest"), name


def test_only_those_who_talk_to_the_api_server_get_a_token(render: Render) -> None:
    with_token = {
        name
        for name, spec in pods(render("trainingOperator.install=true", *SERVE))
        if spec["automountServiceAccountToken"]
    }
    assert with_token == {"ur-operator", "ur-training-operator", "ur-test-alignmentrun"}


def test_every_server_is_probed(render: Render) -> None:
    for manifest in render("trainingOperator.install=true", *SERVE):
        if manifest["kind"] in ("Deployment", "StatefulSet"):
            for container in manifest["spec"]["template"]["spec"]["containers"]:
                assert {"livenessProbe", "readinessProbe"} <= set(container), manifest["metadata"]["name"]


def test_the_operator_may_do_what_it_does_and_no_more(render: Render) -> None:
    rules = one(render(), "Role", "ur-operator")["rules"]
    granted = {(group, resource, verb) for rule in rules for group in rule["apiGroups"]
               for resource in rule["resources"] for verb in rule["verbs"]}  # fmt: skip
    assert ("kubeflow.org", "pytorchjobs", "create") in granted
    assert ("unifiedreward.dev", "alignmentruns/status", "patch") in granted
    assert not [right for right in granted if "secrets" in right[1] or "exec" in right[1] or "*" in right]
    assert not [right for right in granted if right[1] == "alignmentruns" and right[2] in ("create", "update")]
    assert ("unifiedreward.dev", "alignmentruns", "delete") in granted  # ttlSecondsAfterFinished
    assert not [m for m in render() if m["kind"] in ("ClusterRole", "ClusterRoleBinding")]


def test_people_read_one_secret_by_its_name(render: Render) -> None:
    (secrets,) = [rule for rule in one(render(), "Role", "ur-user")["rules"] if "secrets" in rule["resources"]]
    assert secrets == {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["ur-store"], "verbs": ["get"]}


def test_people_are_bound_when_named(render: Render) -> None:
    binding = one(render("users.subjects[0].kind=Group", "users.subjects[0].name=ml-team"), "RoleBinding", "ur-user")
    assert binding["subjects"] == [{"kind": "Group", "name": "ml-team"}]


def test_runs_and_data_outlive_the_release(render: Render) -> None:
    manifests = render("trainingOperator.install=true")
    kept = {(m["kind"], m["metadata"]["name"]) for m in manifests
            if m["metadata"].get("annotations", {}).get("helm.sh/resource-policy") == "keep"}  # fmt: skip
    assert kept == {
        ("CustomResourceDefinition", "alignmentruns.unifiedreward.dev"), ("CustomResourceDefinition", "pytorchjobs.kubeflow.org"),
        ("Secret", "ur-minio-root"), ("Secret", "ur-store"), ("Secret", "ur-mlflow-store"), ("Secret", "ur-postgres"),
    }  # fmt: skip
    assert not [m for m in manifests if m["kind"] == "PersistentVolumeClaim"], "Helm would delete it with the release"


def test_the_defaults_of_runs_are_those_of_the_config_model(render: Render) -> None:
    found = defaults_of(render("global.image.tag=dev"))
    assert found == ClusterDefaults(env={"AWS_REGION": "us-east-1"})
    assert one(render(), "ConfigMap", "ur-cluster")["metadata"]["labels"]["unifiedreward.dev/cluster"] == "defaults"


def test_what_runs_are_offered_comes_from_the_values(render: Render) -> None:
    found = defaults_of(render(
        "global.image.registry=registry.example.org/team", "cluster.image.tag=1.2", "global.imagePullSecrets={pull}",
        "cluster.env.HF_ENDPOINT=https://hub.example.org", "cluster.queue=gpus", "cluster.allowedSecrets={hf-token}",
        "cluster.tolerations[0].key=nvidia.com/gpu", "cluster.tolerations[0].operator=Exists", "cluster.nodeSelector.pool=gpu",
    ))  # fmt: skip
    assert found.image == "registry.example.org/team/ur-trainer:1.2"
    assert found.image_pull_secrets == ["pull"]
    assert found.env == {"AWS_REGION": "us-east-1", "HF_ENDPOINT": "https://hub.example.org"}
    assert (found.queue, found.allowed_secrets, found.node_selector) == ("gpus", ["hf-token"], {"pool": "gpu"})
    assert [(toleration.key, toleration.operator) for toleration in found.tolerations] == [("nvidia.com/gpu", "Exists")]


def test_a_store_and_a_database_of_ones_own(render: Render) -> None:
    manifests = render(*EXTERNAL)
    assert not [m for m in manifests if m["kind"] in ("StatefulSet", "Secret", "Job")]
    found = defaults_of(manifests)
    assert (found.store_endpoint, found.store_service, found.store_secret) == (
        "https://s3.example.org:9443",
        "",
        "keys",
    )
    (server,) = one(manifests, "Deployment", "ur-mlflow")["spec"]["template"]["spec"]["containers"]
    assert server["envFrom"] == [{"secretRef": {"name": "mlflow-keys"}}]
    uri = {"name": "MLFLOW_BACKEND_STORE_URI", "valueFrom": {"secretKeyRef": {"name": "database", "key": "uri"}}}
    assert uri in server["env"]
    ports = [rule["ports"] for rule in one(manifests, "NetworkPolicy", "ur-mlflow")["spec"]["egress"]]
    assert [{"port": 9443}] in ports


def test_the_cloud_s_own_endpoint_needs_none(render: Render) -> None:
    manifests = render(*(text for text in EXTERNAL if "endpoint" not in text))
    assert defaults_of(manifests).store_endpoint == ""
    assert "MLFLOW_S3_ENDPOINT_URL" not in json.dumps(manifests)


def test_existing_secrets_are_used_and_none_is_made(render: Render) -> None:
    names = {
        "global.objectStore.existingSecret": "my-keys", "minio.existingSecret": "my-root",
        "mlflow.artifacts.existingSecret": "my-mlflow", "mlflow.database.existingSecret": "my-database",
    }  # fmt: skip
    manifests = render(*(f"{field}={name}" for field, name in names.items()))
    assert not [m for m in manifests if m["kind"] == "Secret"]
    text = json.dumps(manifests)
    for name in names.values():
        assert f'"{name}"' in text
    assert not re.search(r'"ur-(store|minio-root|mlflow-store)"', text)


def test_mlflow_knows_every_name_of_its_service_with_and_without_a_port(render: Render) -> None:
    (server,) = one(render("mlflow.allowedHosts={ml.example.org}"), "Deployment", "ur-mlflow")["spec"]["template"][
        "spec"
    ]["containers"]
    (hosts,) = [
        argument.removeprefix("--allowed-hosts=").split(",")
        for argument in server["args"]
        if "allowed-hosts" in argument
    ]
    for name in (
        "ur-mlflow",
        "ur-mlflow.ns",
        "ur-mlflow.ns.svc",
        "ur-mlflow.ns.svc.cluster.local",
        "localhost",
        "ml.example.org",
    ):
        assert name in hosts
        assert f"{name}:*" in hosts
    assert {"name": "MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "value": "false"} in server["env"]


def test_one_knob_for_registry_and_tag_and_a_digest_before_a_tag(render: Render) -> None:
    digest = f"sha256:{'a' * 64}"
    manifests = render(
        "global.image.registry=registry.example.org/team", "global.image.tag=1.2", f"operator.image.digest={digest}",
        "mlflow.image.registry=other.example.org", "trainingOperator.install=true",
    )  # fmt: skip
    images = {container["image"] for _, spec in pods(manifests) for container in containers(spec)}
    assert images == {
        f"registry.example.org/team/ur-operator@{digest}", "other.example.org/ur-mlflow:1.2",
        "registry.example.org/team/ur-postgres:1.2", "registry.example.org/team/minio:RELEASE.2026-02-12",
        "ghcr.io/kubeflow/training-v1/training-operator:v1-93c5489",
    }  # fmt: skip


def test_a_disruption_budget_only_where_another_replica_remains(render: Render) -> None:
    assert not [m for m in render() if m["kind"] == "PodDisruptionBudget"]
    assert one(render("mlflow.replicas=3"), "PodDisruptionBudget", "ur-mlflow")["spec"]["maxUnavailable"] == 1


def test_one_operator_at_a_time(render: Render) -> None:
    spec = one(render(), "Deployment", "ur-operator")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_the_training_operator_s_certificate_is_not_wiped_by_an_upgrade(render: Render) -> None:
    manifests = render("trainingOperator.install=true")
    secret = one(manifests, "Secret", "ur-training-operator-webhook-cert")
    assert not {"data", "stringData"} & set(secret)
    bindings = [m for m in manifests if m["kind"] == "ClusterRole"]
    assert not [rule for role in bindings for rule in role["rules"] if "secrets" in rule["resources"]]


def test_the_resource_of_runs_stays_below_what_helm_and_kubectl_hold(render: Render) -> None:
    crd = one(render(), "CustomResourceDefinition", "alignmentruns.unifiedreward.dev")
    assert len(json.dumps(crd)) < 200_000
    assert crd["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "Helm"


def test_the_document_of_helm_test_is_valid(helm: str) -> None:
    from unified_reward.config import AlignmentRun

    assert helm
    AlignmentRun.model_validate(json.loads((CHART / "files" / "tests" / "alignmentrun.json").read_text()))


def test_no_judge_is_served_unless_asked_for(render: Render) -> None:
    assert not [m for m in render() if m["metadata"]["name"] == "ur-serve"]


def test_a_judge_as_a_service_finds_the_store_as_jobs_do(render: Render) -> None:
    manifests = render(*SERVE, "global.objectStore.bucket=runs", "global.image.tag=dev")
    spec = one(manifests, "Deployment", "ur-serve")["spec"]["template"]["spec"]
    (server,) = spec["containers"]
    assert server["image"] == "localhost/ur-trainer:dev"
    assert server["command"] == ["python", "-m", "unified_reward.cli", "serve"]
    assert {"--model=run:shapes", "--host=0.0.0.0", "--port=8000", "--device=cpu"} <= set(server["args"])
    given = {each["name"]: each["value"] for each in server["env"]}
    assert given == {"UR_STORE": "s3://runs", "UR_S3_ENDPOINT": "http://ur-minio:9000", "AWS_REGION": "us-east-1",
                     "UR_HOME": "/scratch/ur", "HOME": "/tmp"}  # fmt: skip
    assert server["envFrom"] == [{"secretRef": {"name": "ur-store"}}]
    assert one(manifests, "Service", "ur-serve")["spec"]["ports"] == [
        {"name": "http", "port": 8000, "targetPort": "http"}
    ]
    assert {"port": 9000} in [port for rule in one(manifests, "NetworkPolicy", "ur-serve")["spec"]["egress"]
                              for port in rule["ports"]]  # fmt: skip
    admitted = one(manifests, "NetworkPolicy", "ur-minio")["spec"]["ingress"][0]["from"]
    assert {"app.kubernetes.io/name": "serve", "app.kubernetes.io/instance": "ur"} in [
        peer["podSelector"]["matchLabels"] for peer in admitted
    ]


def test_a_served_judge_has_time_to_load_and_to_finish(render: Render) -> None:
    spec = one(render(*SERVE), "Deployment", "ur-serve")["spec"]["template"]["spec"]
    (server,) = spec["containers"]
    startup = server["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] == 600
    assert spec["terminationGracePeriodSeconds"] == 120
    assert server["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "5"]
    assert [server[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")] == [
        "/healthz",
        "/readyz",
    ]


def test_a_served_judge_s_gpu_token_and_options(render: Render) -> None:
    manifests = render(*SERVE, "serve.gpus=1", "serve.gpuResource=amd.com/gpu", "serve.replicas=3", "serve.tokenSecret=judge",
                       "serve.fetch={https://media.example.org/a/}", "serve.name=judge-1")  # fmt: skip
    deployment = one(manifests, "Deployment", "ur-serve")["spec"]
    (server,) = deployment["template"]["spec"]["containers"]
    assert server["resources"] == {
        "requests": {"cpu": "1", "memory": "2Gi"},
        "limits": {"memory": "4Gi", "amd.com/gpu": 1},
    }
    assert {"--device=cuda", "--fetch=https://media.example.org/a/", "--name=judge-1"} <= set(server["args"])
    token = {"name": "UR_SERVE_TOKEN", "valueFrom": {"secretKeyRef": {"name": "judge", "key": "UR_SERVE_TOKEN"}}}
    assert token in server["env"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert one(manifests, "PodDisruptionBudget", "ur-serve")["spec"]["maxUnavailable"] == 1


def test_our_images_have_one_version_when_none_is_named(render: Render) -> None:
    images = {container["image"] for _, spec in pods(render(*SERVE)) for container in containers(spec)}
    ours = {image.rpartition(":")[0]: image.rpartition(":")[2] for image in images if "/ur-" in image}
    assert ours == {f"localhost/ur-{name}": "0.1.0" for name in ("trainer", "operator", "mlflow", "postgres")}
    versions = {yaml.safe_load(path.read_text())["version"] for path in CHART.rglob("Chart.yaml")}
    assert versions == {"0.1.0"}


def test_postgres_has_time_to_recover_and_room_for_the_official_image_s_socket(render: Render) -> None:
    (server,) = one(render(), "StatefulSet", "ur-postgres")["spec"]["template"]["spec"]["containers"]
    assert server["startupProbe"]["periodSeconds"] * server["startupProbe"]["failureThreshold"] == 1800
    given = {each["name"]: each["value"] for each in server["env"]}
    assert int(given["PGCTLTIMEOUT"]) >= 1800
    assert {"name": "tmp", "mountPath": "/var/run/postgresql", "subPath": "run"} in server["volumeMounts"]


def rights(role: Manifest) -> set[tuple[str, str]]:
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
            if "resourceNames" not in rule}  # fmt: skip


def test_the_training_operator_changes_no_webhook_but_its_own(render: Render) -> None:
    role = one(render("trainingOperator.install=true"), "ClusterRole", "ur-training-operator-ns")
    hooks = "validatingwebhookconfigurations"
    assert {right for right in rights(role) if right[0] == hooks} == {(hooks, "list"), (hooks, "watch")}
    (own,) = [rule for rule in role["rules"] if "resourceNames" in rule]
    assert (own["resourceNames"], own["verbs"]) == (["validator.training-operator.kubeflow.org"], ["get", "update"])


def test_a_training_operator_of_one_namespace_has_rights_in_that_alone(render: Render) -> None:
    everywhere = one(render("trainingOperator.install=true"), "ClusterRole", "ur-training-operator-ns")
    manifests = render("trainingOperator.install=true", "trainingOperator.watchNamespace=team")
    cluster, role = (
        one(manifests, *name)
        for name in (("ClusterRole", "ur-training-operator-ns"), ("Role", "ur-training-operator-jobs"))
    )
    assert {resource for resource, _ in rights(cluster)} == {"priorityclasses", "validatingwebhookconfigurations"}
    assert rights(cluster) | rights(role) == rights(everywhere)
    binding = one(manifests, "RoleBinding", "ur-training-operator-jobs")
    assert {each["metadata"]["namespace"] for each in (role, binding)} == {"team"}
    assert binding["roleRef"]["name"] == "ur-training-operator-jobs"
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "ur-training-operator", "namespace": "ns"}]


def test_the_training_operator_is_installed_away_from_people(helm: str) -> None:
    people = ("trainingOperator.install=true", "users.subjects[0].kind=Group", "users.subjects[0].name=ml-team")
    refused = template(helm, people)
    assert refused.returncode != 0
    file = "values-training-operator.yaml"
    assert "users.subjects" in refused.stderr
    assert f"-f charts/unified-reward/{file}" in refused.stderr
    done = template(helm, release="training", values=(CHART / file).read_text())
    assert done.returncode == 0, done.stderr
    started = {
        manifest["metadata"]["name"]
        for manifest in documents(done.stdout)
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job")
    }
    assert started == {"training-training-operator"}


@pytest.mark.parametrize(
    ("release", "labels", "refused"),
    [
        ("other", {}, True),
        ("ur", {}, False),
        ("other", {"app.kubernetes.io/part-of": "another-platform"}, False),
        ("other", {"app.kubernetes.io/name": "mlflow"}, False),
    ],
    ids=["another-release", "this-release", "another-operator", "another-part"],
)
def test_a_namespace_has_one_operator(
    helm: str, render: Render, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    release: str, labels: dict[str, str], refused: bool,
) -> None:  # fmt: skip
    there: dict[str, Any] = one(render(), "Deployment", "ur-operator")["metadata"]
    there = {
        "name": f"{release}-operator",
        "labels": {**there["labels"], "app.kubernetes.io/instance": release, **labels},
    }
    api = Api()
    for version, path, resource, kind in (
        ("v1", "/api/v1", "secrets", "Secret"),
        ("apps/v1", "/apis/apps/v1", "deployments", "Deployment"),
    ):
        found = {"name": resource, "kind": kind, "namespaced": True, "verbs": ["get", "list"]}
        api.objects[path] = {"kind": "APIResourceList", "groupVersion": version, "resources": [found]}
    api.objects["/apis/apps/v1/namespaces/ns/deployments"] = {
        "kind": "DeploymentList", "apiVersion": "apps/v1", "metadata": {},
        "items": [{"kind": "Deployment", "apiVersion": "apps/v1", "metadata": there}],
    }  # fmt: skip
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    done = template(helm, options=("--dry-run=server",))
    api.http.shutdown()
    api.http.server_close()
    assert (done.returncode != 0) == refused, done.stderr
    assert ("namespace ns has an operator of release other already" in done.stderr) == refused


@pytest.mark.parametrize(
    ("sets", "told"),
    [((), True), ((*EXTERNAL, "mlflow.database.bundled=true"), True), (EXTERNAL, False)],
    ids=["bundled", "external-s3", "external"],
)
def test_who_renders_without_the_cluster_is_told_of_generated_passwords(
    helm: str, tmp_path: Path, sets: tuple[str, ...], told: bool
) -> None:
    chart = shutil.copytree(CHART, tmp_path / "chart")
    (chart / "templates" / "NOTES.txt").rename(chart / "NOTES.txt")
    (chart / "templates" / "notes.yaml").write_text(
        'kind: Notes\nmetadata: {name: notes}\ntext: {{ tpl (.Files.Get "NOTES.txt") . | toJson }}\n'
    )
    done = template(helm, sets, chart=chart)
    assert done.returncode == 0, done.stderr
    notes = one(documents(done.stdout), "Notes", "notes")["text"]
    assert "Unified Reward 0.1.0 is installed as ur" in notes
    assert ("Passwords were generated once" in notes) == told


@pytest.mark.parametrize("migrate", [True, False])
def test_who_brings_mlflows_database_up_to_date(render: Render, migrate: bool) -> None:
    pod = one(render(f"mlflow.database.migrate={str(migrate).lower()}"), "Deployment", "ur-mlflow")["spec"]["template"]
    prepare = pod["spec"]["initContainers"][0]
    compile(prepare["args"][0], "prepare_database.py", "exec")
    assert {"name": "UR_MIGRATE", "value": str(migrate).lower()} in prepare["env"]
