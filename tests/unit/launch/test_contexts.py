"""Two clusters in one kubeconfig: what was submitted to one of them is found there by its handle alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from torchx.runner import get_runner
from torchx.specs import AppDef, Resource, Role

from unified_reward.errors import UserError
from unified_reward.launch.scheduler import PyTorchJobScheduler

from ..api_server import Api  # noqa: TID252  (tests are no package that could be named)

JOBS = "/apis/kubeflow.org/v1/namespaces/ml/pytorchjobs"
OTHER = "arn:aws:eks:eu:1:cluster/other"
APP = AppDef(name="r", roles=[Role(name="r", image="i:1", entrypoint="x", resource=Resource(1, 0, 64))])


class Taking(Api):
    def answer(self, method: str, path: str, query: dict[str, list[str]]) -> tuple[int, bytes]:
        if method == "POST":
            _, body = self.written[-1]
            body["metadata"] |= {"uid": "u", "creationTimestamp": "2026-11-24T10:00:00Z"}
            self.objects[f"{path}/{body['metadata']['name']}"] = body
            return 201, json.dumps(body).encode()
        return super().answer(method, path, query)


@pytest.fixture
def clusters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[tuple[Taking, Taking]]:
    """The current context's and OTHER's."""
    usual, other = Taking(), Taking()
    (tmp_path / "other").mkdir()
    config, second = (
        json.loads(Path(api.kubeconfig(where)).read_text())
        for api, where in ((usual, tmp_path), (other, tmp_path / "other"))
    )
    second["clusters"][0]["name"] = "other"
    second["contexts"][0] |= {"name": OTHER}
    second["contexts"][0]["context"]["cluster"] = "other"
    for kind in ("clusters", "contexts"):
        config[kind] += second[kind]
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    (tmp_path / "torchxconfig").touch()
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    monkeypatch.setenv("TORCHXCONFIG", str(tmp_path / "torchxconfig"))
    for name in ("UR_NAMESPACE", "UR_KUBE_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    yield usual, other
    for api in (usual, other):
        api.http.shutdown()
        api.http.server_close()


def test_a_handle_leads_to_the_cluster_it_was_submitted_to(clusters: tuple[Taking, Taking]) -> None:
    usual, other = clusters
    with get_runner() as runner:
        there = runner.run(APP, "pytorchjob", {"context": OTHER, "job_id": "there"})
        here = runner.run(APP, "pytorchjob", {"job_id": "here"})  # of the same process
    assert there == "pytorchjob://torchx/ml:there@arn%3Aaws%3Aeks%3Aeu%3A1%3Acluster%2Fother"
    assert here == "pytorchjob://torchx/ml:here"
    assert (list(usual.objects)[-1], list(other.objects)[-1]) == (f"{JOBS}/here", f"{JOBS}/there")
    with get_runner() as later:
        assert later.status(there) is not None
        assert later.status(here) is not None
        assert later.status("pytorchjob://torchx/ml:there") is None
        later.cancel(there)
    assert other.written[-1][0] == f"{JOBS}/there"
    assert other.written[-1][1]["spec"] == {"runPolicy": {"suspend": True}}


@pytest.mark.usefixtures("clusters")
def test_a_context_that_is_asked_anyway_is_not_in_the_handle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UR_KUBE_CONTEXT", OTHER)
    with get_runner() as runner:
        assert runner.run(APP, "pytorchjob", {"context": OTHER, "job_id": "j"}) == "pytorchjob://torchx/ml:j"


@pytest.mark.usefixtures("clusters")
def test_a_handle_of_a_context_that_this_machine_has_not_is_one_line() -> None:
    with pytest.raises(UserError, match="nowhere"):
        PyTorchJobScheduler("torchx").describe("ml:j@nowhere")
