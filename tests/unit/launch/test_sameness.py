"""A job id that is taken: the same work is no error, other work is one, and what a server adds makes no difference."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from torchx.specs import AppDef, Resource, Role

from unified_reward.config import ClusterDefaults
from unified_reward.errors import UserError
from unified_reward.launch import scheduler as scheduler_module
from unified_reward.launch.sameness import SUBMITTED, difference
from unified_reward.launch.scheduler import PyTorchJobScheduler
from unified_reward.launch.submission import make_request

from ..api_server import Api, offer  # noqa: TID252  (tests are no package that could be named)

JOBS = "/apis/kubeflow.org/v1/namespaces/ml/pytorchjobs"
PLAIN: dict[str, Any] = {"job_id": "j", "env": {"A": "1"}, "node_selector": {"disk": "ssd"}}


def manifest(steps: str = "5", **changed: Any) -> dict[str, Any]:
    role = Role(name="r", image="i:1", entrypoint="train", args=["--steps", steps], resource=Resource(1, 0, 64))
    given = {**PLAIN, **changed}
    return make_request(AppDef(name="r", roles=[role]), given, ClusterDefaults(), "ml", "pytorchjob://torchx/").manifest


def as_the_cluster_has_it(submitted: dict[str, Any]) -> dict[str, Any]:
    """With what a server, a queue and a person who cancels put into it."""
    found = copy.deepcopy(submitted)
    found["metadata"] |= {"uid": "u", "resourceVersion": "7"}
    found["metadata"]["annotations"]["kueue"] = "x"
    found["spec"]["runPolicy"] |= {"suspend": True, "schedulingPolicy": {}}
    pod = found["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    pod["dnsPolicy"] = "ClusterFirst"
    pod["containers"].insert(0, {"name": "sidecar", "image": "s:1"})
    pod["containers"][1]["env"].append({"name": "INJECTED", "value": "1"})
    return found


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({}, ""),
        ({"steps": "6"}, 'containers.pytorch.command is ["train", "--steps", "5"] there and ["train", "--steps", "6"] here'),
        ({"image": "i:2"}, "containers.pytorch.image is i:1 there and i:2 here"),
        ({"env": {"A": "2"}}, "containers.pytorch.env.A.value is 1 there and 2 here"),
        ({"env": {"A": "2", "B": "3"}, "shm": "1Gi"},
         "containers.pytorch.env.A.value is 1 there and 2 here (and containers.pytorch.env.B, volumes.shm.emptyDir.sizeLimit)"),
        ({"node_selector": {"disk": "hdd"}}, "nodeSelector.disk is ssd there and hdd here"),
        ({"retries": {"memory": "3"}}, "metadata.annotations.unifiedreward.dev/retries is"),
        ({"env": {}}, "it has something that is not asked for now"),
    ],
)  # fmt: skip
def test_what_differs_is_named(changed: dict[str, Any], told: str) -> None:
    found = difference(as_the_cluster_has_it(manifest()), manifest(**changed))
    assert found.startswith(told)
    assert bool(found) == bool(told)


def test_a_workspace_is_part_of_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("VALUE = 1\n")
    before = manifest(workspace=str(tmp_path))
    assert difference(as_the_cluster_has_it(before), manifest(workspace=str(tmp_path))) == ""
    (tmp_path / "a.py").write_text("VALUE = 2\n")
    assert "env.UR_WORKSPACE.value is" in difference(as_the_cluster_has_it(before), manifest(workspace=str(tmp_path)))


def test_a_job_without_a_digest_is_judged_by_what_is_asked_for() -> None:
    there = as_the_cluster_has_it(manifest())
    del there["metadata"]["annotations"][SUBMITTED]
    assert difference(there, manifest()) == ""
    assert "i:2" in difference(there, manifest(image="i:2"))


def test_an_offer_that_comes_too_late_is_not_passed_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Slow(Api):
        asked = 0

        def answer(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
            self.asked += path.endswith("/configmaps")
            if self.asked == 1:
                return 503, self.status(503, "ServiceUnavailable", "starting")
            return super().answer(method, path, query)

    api = Slow()
    api.objects["/api/v1/namespaces/ml/configmaps"] = [offer("prod-cluster", "store: s3://ours")]
    monkeypatch.setattr(scheduler_module, "DRY_RUN_RETRY_SECONDS", 0.0)
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig(tmp_path))
    (tmp_path / "torchxconfig").touch()
    monkeypatch.setenv("TORCHXCONFIG", str(tmp_path / "torchxconfig"))
    app = AppDef(name="r", roles=[Role(name="r", image="i:1", entrypoint="train", resource=Resource(1, 0, 64))])
    with pytest.raises(UserError, match="it said too late what its installation offers"):
        PyTorchJobScheduler("torchx").submit(app, PLAIN)
    assert api.written == []
    api.http.shutdown()
    api.http.server_close()


def test_submitting_under_a_taken_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Taken(Api):
        def answer(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
            if method == "POST":
                return 409, self.status(409, "AlreadyExists", "it exists", name="j", kind="pytorchjobs")
            return super().answer(method, path, query)

    api = Taken()
    monkeypatch.setenv("KUBECONFIG", api.kubeconfig(tmp_path))
    (tmp_path / "torchxconfig").touch()
    monkeypatch.setenv("TORCHXCONFIG", str(tmp_path / "torchxconfig"))
    api.objects[f"{JOBS}/j"] = as_the_cluster_has_it(manifest())
    role = Role(name="r", image="i:1", entrypoint="train", args=["--steps", "5"], resource=Resource(1, 0, 64))
    app, scheduler = AppDef(name="r", roles=[role]), PyTorchJobScheduler("torchx")
    assert scheduler.submit(app, PLAIN) == "ml:j"
    assert "ml:j is there already; nothing was submitted" in capsys.readouterr().err
    told = "-cfg job_id is j: namespace ml has another job of this name: containers.pytorch.image is i:1 there and i:2 here."
    with pytest.raises(UserError, match=re.escape(told)):
        scheduler.submit(app, {**PLAIN, "image": "i:2"})
    api.http.shutdown()
    api.http.server_close()
