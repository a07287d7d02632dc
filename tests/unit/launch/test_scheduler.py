"""Components become PyTorchJobs without a cluster; kubeflow-training's models are the oracle of what they may hold."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from torchx.runner import get_runner
from torchx.specs import AppDef, Resource, Role

from unified_reward.errors import UserError
from unified_reward.launch import components
from unified_reward.launch.job_status import RETRIES
from unified_reward.launch.manifest import manifest_text, merged
from unified_reward.launch.scheduler import PyTorchJobScheduler, create_scheduler
from unified_reward.launch.scheduler_options import Options
from unified_reward.launch.submission import Request

STAGES = ("import_data", "reward_train", "reward_eval", "generate", "score", "dpo_train", "policy_eval")


@pytest.fixture(autouse=True)
def without_a_cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    (tmp_path / "torchxconfig").touch()
    monkeypatch.setenv("TORCHXCONFIG", str(tmp_path / "torchxconfig"))
    monkeypatch.delenv("UR_NAMESPACE", raising=False)


def options(text: str = "") -> dict[str, Any]:
    return create_scheduler("torchx").run_opts().cfg_from_str(text)


def dry(app: AppDef, text: str = "") -> Any:
    with get_runner() as runner:
        request: Request = runner.dryrun(app, "pytorchjob", cfg=options(text)).request
    return yaml.safe_load(str(request))


def container(manifest: Any) -> Any:
    return manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"][0]


def environment(manifest: Any) -> dict[str, str]:
    return {one["name"]: one["value"] for one in container(manifest)["env"] if "value" in one}


@pytest.mark.parametrize(
    ("stage", "shape"),
    [
        *((stage, {}) for stage in STAGES),
        *((stage, {"nodes": 2, "processes": 4, "gpu": 8}) for stage in ("reward_train", "score")),
        *((stage, {"nodes": 2, "processes": 2, "min_nodes": 1}) for stage in ("reward_train", "dpo_train")),
    ],
)
def test_kubeflows_models_take_every_stage_and_lose_nothing_of_it(stage: str, shape: dict[str, int]) -> None:
    from kubeflow.training.api_client import ApiClient as Oracle
    from kubernetes.client import ApiClient

    manifest = dry(getattr(components, stage)(**shape), "namespace=ml,env=A:b,tolerations=nvidia.com/gpu,queue=team")
    read = Oracle().deserialize(SimpleNamespace(data=json.dumps(manifest)), "KubeflowOrgV1PyTorchJob")
    assert ApiClient().sanitize_for_serialization(read) == manifest


def test_the_same_values_reach_kubectl_as_were_meant() -> None:
    """kubectl reads YAML 1.1 as Go does: y is true, and 1e3 a number."""
    text = manifest_text({"a": "y", "b": "1e3", "c": "0o7", "d": "no", "e": "x1", "f": 3, "g": "12:30"})
    assert re.findall(r"^(\w): (.*)$", text, re.M) == [
        ("a", "'y'"), ("b", "'1e3'"), ("c", "'0o7'"), ("d", "'no'"), ("e", "x1"), ("f", "3"), ("g", "'12:30'"),
    ]  # fmt: skip


def test_options_reach_the_pods(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("spec: {pytorchReplicaSpecs: {Worker: {template: {spec: {hostNetwork: true}}}}}\n")
    manifest = dry(
        components.reward_train(),
        "namespace=ml,image=repo/judge:1,job_id=judge-1,queue=team,priority_class=high,service_account=me,"
        "node_selector=disk:ssd;zone:a,tolerations=nvidia.com/gpu::NoSchedule;team:red,secrets=hf;s3,env=A:b;C:d=e:f,"
        f"shm=8Gi,grace=120,deadline=3600,ttl=60,retries=crashed:2,gpu_resource=amd.com/gpu,overlay={overlay}",
    )
    pod = manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert (manifest["metadata"]["name"], manifest["metadata"]["namespace"]) == ("judge-1", "ml")
    assert manifest["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert manifest["metadata"]["annotations"][RETRIES] == "preempted=20,memory=1,crashed=2"
    assert manifest["spec"]["runPolicy"] == {
        "cleanPodPolicy": "Running", "backoffLimit": 0, "suspend": True, "ttlSecondsAfterFinished": 60,
    }  # fmt: skip
    assert (pod["priorityClassName"], pod["serviceAccountName"]) == ("high", "me")
    assert pod["nodeSelector"] == {"disk": "ssd", "zone": "a"}
    assert pod["tolerations"] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "team", "operator": "Equal", "value": "red"},
    ]
    assert (pod["terminationGracePeriodSeconds"], pod["activeDeadlineSeconds"], pod["hostNetwork"]) == (120, 3600, True)
    assert {"secretRef": {"name": "hf"}} in container(manifest)["envFrom"]
    assert container(manifest)["image"] == "repo/judge:1"
    assert (environment(manifest)["A"], environment(manifest)["C"]) == ("b", "d=e:f")
    assert {"medium": "Memory", "sizeLimit": "8Gi"} in [one["emptyDir"] for one in pod["volumes"]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("namspace=ml", "-cfg is namspace: pytorchjob has no such option. Did you mean namespace?"),
        ("ml", "-cfg is ml: it names no option."),
        ("grace=soon", "-cfg grace is soon: it is no whole number."),
        ("node_selector=ssd", "-cfg node_selector is ssd: it has no colon."),
    ],
)
def test_an_option_that_cannot_be_is_one_line(text: str, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        options(text)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("grace=1", "-cfg grace"), ("deadline=9999999999", "-cfg deadline"), ("ttl=9999999999", "-cfg ttl"), ("shm=3q", "-cfg shm"),
        ("image=no tag", "-cfg image"), ("namespace=Bad_NS", "-cfg namespace"), ("namespace=a.b", "-cfg namespace"),
        ("queue=a b", "-cfg queue"), ("priority_class=A_b", "-cfg priority_class"), ("service_account=-a", "-cfg service_account"),
        ("secrets=ok;A_B", "-cfg secrets"), ("image_pull_secrets=a b", "-cfg image_pull_secrets"),
        ("gpu_resource=gpu", "-cfg gpu_resource"), ("node_selector=a b:c", "-cfg node_selector"),
        ("node_selector=a:b c", "-cfg node_selector"), ("node_selector=:x", "-cfg node_selector"),
        ("annotations=a b:c", "-cfg annotations"), ("tolerations=a b", "-cfg tolerations"),
        ("tolerations=a::Nope", "-cfg tolerations 0.effect"), ("env=1A:b", "-cfg env"), ("env=:b", "-cfg env"),
        ("env=UR_HOME:/x", "-cfg env"), ("env=UR_NODE_RANK:1", "-cfg env"), ("retries=user:1", "-cfg retries"),
        ("job_id=A_b", "-cfg job_id"), ("overlay=/nowhere.yaml", "-cfg overlay"), ("workspace=/nowhere", "workspace"),
        ("workspace=~nobody-here/x", "workspace"), ("overlay=~nobody-here/x", "-cfg overlay"),
        ("tolerations=a:b:c:d", "-cfg tolerations"),
    ],
)  # fmt: skip
def test_a_value_that_cannot_be_names_its_option(text: str, field: str) -> None:
    with pytest.raises(UserError) as caught:
        dry(components.import_data(), text)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "it is no mapping"),
        ("spec: [", "it cannot be read (while parsing"),
        ("a: 1\n---\nb: 2", "it cannot be read (expected a single document"),
        ("\udcff", "it cannot be read ('utf-8' codec"),
        ("spec: {a: 1, a: 2}", "it cannot be read (a stands twice"),
        ("spce: {}", "a PyTorchJob has no section spce. Sections are apiVersion, kind, metadata, spec."),
        ("spec: {runPolicy: {x: [2026-01-01]}}", "spec.runPolicy.x.0 is a date. Put it in quotes."),
        ("spec: {1: x}", "the key 1 in spec is no text. Put it in quotes."),
        ("spec: &a {b: *a}", "spec.b holds itself."),
        ("kind: Job", "it changes kind. Leave it out of the file."),
        ("metadata: {name: mine}", "it changes metadata.name. Use -cfg job_id."),
        ("metadata: {namespace: mine}", "it changes metadata.namespace. Use -cfg namespace."),
        ("metadata: null", "it changes metadata.name."),
        ("metadata: {labels: null}", "it changes metadata.labels.app.kubernetes.io/managed-by. Leave it out"),
        ("spec: 3", "no container pytorch is left in spec.pytorchReplicaSpecs.Worker.template.spec.containers."),
        ("spec: {pytorchReplicaSpecs: {Worker: {template: {spec: {containers: [{image: x}]}}}}}", "no container pytorch is left"),
    ],
)  # fmt: skip
def test_an_overlay_that_cannot_be_is_one_line(tmp_path: Path, text: str, told: str) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(UserError, match=re.escape(f"-cfg overlay is {overlay}: {told}")):
        dry(components.import_data(), f"overlay={overlay}")


def test_an_overlay_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="it is no file"):
        dry(components.import_data(), f"overlay={tmp_path / 'pipe'}")


def test_programs_cannot_pass_unknown_options_either() -> None:
    with pytest.raises(UserError, match="Did you mean queue"):
        PyTorchJobScheduler("torchx").run_opts().resolve({"queu": "x"})
    assert isinstance(PyTorchJobScheduler("torchx").run_opts(), Options)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("grace", "60", "-cfg grace is 60: it is not a whole number."),
        ("secrets", "hf", "-cfg secrets is hf: it is not a list of texts."),
        ("env", {"A": 1}, "-cfg env is {'A': 1}: it is not a mapping of texts to texts."),
        ("ttl", -1, "-cfg ttl is -1: it is not in 0..2147483647."),
    ],
)
def test_a_program_that_passes_another_type_is_told_in_one_line(name: str, value: Any, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        PyTorchJobScheduler("torchx").run_opts().resolve({name: value})


def test_macros_are_filled_in_and_all_other_dollars_stand_as_written() -> None:
    role = Role(
        name="echo", image="repo/own:1", entrypoint="/bin/echo", args=["${replica_id} ${app_id} $$HOME $(X)"],
        env={"WHO": "${rank0_env}"}, resource=Resource(cpu=1, gpu=0, memMB=64),
    )  # fmt: skip
    manifest = dry(AppDef(name="echo", roles=[role]), "job_id=e,namespace=ns")
    # The kubelet makes $$ into $ and fills in $(UR_NODE_RANK).
    assert container(manifest)["command"] == ["/bin/echo", "$(UR_NODE_RANK) e $$HOME $$(X)"]
    assert container(manifest)["image"] == "repo/own:1"
    assert environment(manifest)["WHO"] == "TORCHX_RANK0_HOST"
    assert environment(manifest)["TORCHX_RANK0_HOST"] == "e-worker-0"
    assert environment(manifest)["TORCHX_JOB_ID"] == "pytorchjob://torchx/ns:e"


def test_names_leave_room_for_a_pods_and_an_attempts_number() -> None:
    role = Role(name="r", image="i:1", entrypoint="x", resource=Resource(1, 0, 64))
    names = {dry(AppDef(name="9_Long!" * 20, roles=[role]))["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", name) and len(f"{name}-a99-worker-999") <= 63 for name in names)


def test_a_job_of_two_roles_is_refused() -> None:
    roles = [Role(name=name, image="i:1", entrypoint="x", resource=Resource(1, 0, 64)) for name in "ab"]
    with pytest.raises(UserError, match="2 roles"):
        dry(AppDef(name="two", roles=roles))


def test_an_overlay_changes_named_things_and_removes_what_is_null() -> None:
    below = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "words": [1, 2], "gone": {"x": 1}}
    above = {"env": [{"name": "B", "value": "3"}, {"name": "C"}], "words": [3], "gone": None, "new": 1}
    assert merged(below, above) == {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C"}], "words": [3], "new": 1,
    }  # fmt: skip
