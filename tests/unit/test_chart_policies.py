"""The chart's network policies: what each pod may reach, and who may reach it."""

from __future__ import annotations

from .chart import SERVE, Render


def test_every_pod_lies_under_a_policy_of_both_directions(render: Render) -> None:
    manifests = render("trainingOperator.install=true", *SERVE)
    policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
    assert all(policy["policyTypes"] == ["Ingress", "Egress"] for policy in policies)
    selected = [policy["podSelector"]["matchLabels"].items() for policy in policies]
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet", "Job", "Pod"):
            template = manifest if manifest["kind"] == "Pod" else manifest["spec"]["template"]
            labels = template["metadata"]["labels"].items()
            assert any(wanted <= labels for wanted in selected), manifest["metadata"]["name"]


def test_policies_can_be_left_out(render: Render) -> None:
    assert not [m for m in render("global.networkPolicy.enabled=false") if m["kind"] == "NetworkPolicy"]
