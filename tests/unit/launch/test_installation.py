"""The offer of a namespace's installation is found by its label, whatever name the release has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from unified_reward.config import ClusterDefaults
from unified_reward.errors import UserError
from unified_reward.launch import kube
from unified_reward.launch.installation import offered_by

from ..api_server import Api, offer  # noqa: TID252  (tests are no package that could be named)

CONFIGMAPS = "/api/v1/namespaces/ml/configmaps"
OTHER = {"metadata": {"name": "ur-cluster", "labels": {"app": "another"}}, "data": {"cluster.yaml": "store: s3://no"}}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Api]:
    found = Api()
    monkeypatch.setenv("KUBECONFIG", found.kubeconfig(tmp_path))
    yield found
    found.http.shutdown()
    found.http.server_close()


def test_one_installation_is_taken_by_its_label(api: Api) -> None:
    api.objects[CONFIGMAPS] = [OTHER, offer("prod-cluster", "store: s3://ours\nserviceAccount: prod-jobs")]
    found = offered_by(kube.connect(), "ml")
    assert (found.store, found.service_account) == ("s3://ours", "prod-jobs")


def test_without_one_the_package_s_own_hold(api: Api) -> None:
    api.objects[CONFIGMAPS] = [OTHER]
    assert offered_by(kube.connect(), "ml") == ClusterDefaults()


def test_of_two_none_is_guessed(api: Api) -> None:
    api.objects[CONFIGMAPS] = [offer("b-cluster", ""), offer("a-cluster", "")]
    with pytest.raises(UserError, match=r"^namespace is ml: more than one .* there \(a-cluster, b-cluster\)\."):
        offered_by(kube.connect(), "ml")
