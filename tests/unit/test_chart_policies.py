"""The chart's network policies: what each pod may reach, and who may reach it."""

from __future__ import annotations

import pytest

from .chart import EXTERNAL, SERVE, Manifest, Render, documents, one, template

WORLD = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
    {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]}},
]
ELSEWHERE = ("mlflow.enabled=false", "cluster.trackingUri=http://mlflow.shared.svc:5000")


def egress(manifests: list[Manifest], name: str) -> list[Manifest]:
    """Rules that name ports; jobs reach each other at all."""
    return [rule for rule in one(manifests, "NetworkPolicy", name)["spec"]["egress"] if "ports" in rule]


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


def test_dns_is_reached_in_pods_and_at_the_node_s_addresses(render: Render) -> None:
    first = next(rule for rule in egress(render(), "ur-jobs") if {"port": 53, "protocol": "UDP"} in rule["ports"])
    assert first["to"] == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}},
        {"ipBlock": {"cidr": "169.254.20.10/32"}},
        {"ipBlock": {"cidr": "169.254.169.254/32"}},
    ]
    assert first["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]


def test_dns_of_another_namespace_and_port(helm: str) -> None:
    values = "global: {networkPolicy: {dnsNamespace: openshift-dns, dnsPorts: [53, 5353], dnsAddresses: []}}"
    manifests = documents(template(helm, values=values).stdout)
    for name in ("ur-jobs", "ur-operator", "ur-mlflow", "ur-test", "ur-bootstrap"):
        (rule,) = [rule for rule in egress(manifests, name) if {"port": 5353, "protocol": "UDP"} in rule["ports"]]
        assert rule["to"] == [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "openshift-dns"}}}]


@pytest.mark.parametrize("name", ["ur-jobs", "ur-mlflow", "ur-serve", "ur-test"])
def test_a_store_of_ones_own_is_reached_where_it_may_be_and_nowhere_else(render: Render, name: str) -> None:
    ports = [{"port": 9443}]
    assert {"to": WORLD, "ports": ports} in egress(render(*EXTERNAL, *SERVE), name)
    manifests = render(*EXTERNAL, *SERVE, "global.objectStore.cidrs={10.1.0.0/16,fd12:3456::/32}")
    (rule,) = [rule for rule in egress(manifests, name) if rule["ports"] == ports]
    assert rule["to"] == [{"ipBlock": {"cidr": "10.1.0.0/16"}}, {"ipBlock": {"cidr": "fd12:3456::/32"}}]


@pytest.mark.parametrize(
    ("endpoint", "port"),
    [("", 443), ("https://s3.example.org", 443), ("http://s3.example.org/", 80), ("http://s3.example.org:9000/", 9000),
     ("https://[fd12::1]", 443), ("https://[fd12::1]:9000", 9000)],
)  # fmt: skip
def test_the_store_s_port_is_that_of_its_address(render: Render, endpoint: str, port: int) -> None:
    manifests = render(*EXTERNAL, f"global.objectStore.endpoint={endpoint}")
    assert {"to": WORLD, "ports": [{"port": port}]} in egress(manifests, "ur-jobs")


def test_a_database_of_ones_own_is_reached_at_its_port(render: Render) -> None:
    assert {"to": WORLD, "ports": [{"port": 5432}]} in egress(render(*EXTERNAL), "ur-mlflow")
    assert {"to": WORLD, "ports": [{"port": 6432}]} in egress(
        render(*EXTERNAL, "mlflow.database.port=6432"), "ur-mlflow"
    )
    assert not [rule for rule in egress(render(), "ur-mlflow") if rule["to"] == WORLD]


@pytest.mark.parametrize("name", ["ur-jobs", "ur-operator-tracking"])
@pytest.mark.parametrize(
    ("uri", "to", "ports"),
    [
        (
            "http://mlflow.shared.svc:5000",
            [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shared"}}}],
            [5000],
        ),
        (
            "http://mlflow.shared.svc.cluster.local/",
            [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "shared"}}}],
            [80, 5000],
        ),
        ("http://mlflow", [{"podSelector": {}}], [80, 5000]),
        ("https://mlflow.example.org/team", WORLD, [443]),
        ("https://mlflow.example.org:8443", WORLD, [8443]),
        ("http://10.0.0.7:5000", WORLD, [5000]),
    ],
)
def test_an_mlflow_of_ones_own_is_reached_by_jobs_and_the_operator(
    render: Render, name: str, uri: str, to: list[Manifest], ports: list[int]
) -> None:
    manifests = render("mlflow.enabled=false", f"cluster.trackingUri={uri}")
    assert {"to": to, "ports": [{"port": port} for port in ports]} in egress(manifests, name)


def test_the_bundled_mlflow_opens_nothing_more(render: Render) -> None:
    for sets in ((), ("cluster.trackingUri=http://ur-mlflow:5000/",)):
        manifests = render(*sets)
        assert not [m for m in manifests if m["metadata"]["name"] == "ur-operator-tracking"]
        assert len([rule for rule in egress(manifests, "ur-jobs") if {"port": 5000} in rule["ports"]]) == 1
    assert not [
        m for m in render(*ELSEWHERE, "operator.enabled=false") if m["metadata"]["name"] == "ur-operator-tracking"
    ]


def test_the_operator_s_second_policy_selects_the_operator(render: Render) -> None:
    first, second = (
        one(render(*ELSEWHERE), "NetworkPolicy", name)["spec"] for name in ("ur-operator", "ur-operator-tracking")
    )
    assert second["podSelector"] == first["podSelector"]
    assert second["policyTypes"] == ["Egress"]


def test_helm_test_goes_to_the_store_as_jobs_do(render: Render) -> None:
    extra = "cluster.networkPolicy.extraEgress[0]"
    manifests = render(
        *EXTERNAL, f"{extra}.to[0].namespaceSelector.matchLabels.name=minio", f"{extra}.ports[0].port=9000"
    )
    rule = {"to": [{"namespaceSelector": {"matchLabels": {"name": "minio"}}}], "ports": [{"port": 9000}]}
    assert rule in egress(manifests, "ur-jobs")
    assert rule in egress(manifests, "ur-test")
