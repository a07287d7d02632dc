"""Names, keys and sizes: what Kubernetes would refuse is refused in words, at the field that says it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from unified_reward.config import load_document
from unified_reward.config.forms import IMAGE, KEY, LABEL_VALUE, OBJECT, QUEUE, RUN_NAME, SIZE, VARIABLE, Form
from unified_reward.errors import UserError

EXAMPLE = Path(__file__).parents[3] / "jobs/examples/shapes.yaml"


@pytest.mark.parametrize(
    ("form", "good", "bad"),
    [
        (RUN_NAME, ["a", "judge-7b", "a" * 40], ["", "7b", "A", "a-", "a_b", "a.b", "a" * 41, "a\n"]),
        (OBJECT, ["a", "7", "team-a.b", "a" * 253], ["", "a b", "A", ".a", "a..b", "-a", "a" * 254]),
        (QUEUE, ["", "team-a"], ["a_b", "a" * 64]),
        (KEY, ["disk", "nvidia.com/gpu.product", "A_b.C"], ["", "a b", "/a", "a/", "a/b/c", "A.com/b", "a" * 64]),
        (LABEL_VALUE, ["", "ssd", "NVIDIA-H100_80GB"], ["a b", "-a", "a" * 64]),
        (VARIABLE, ["HF_HOME", "a.b-c", "_x"], ["", "1A", "A B", "A=B"]),
        (
            IMAGE,
            ["", "a:1", "r.example:5000/a/b:1.2", "a@sha256:" + "0" * 64],
            ["a", "a b:1", "r:5000/a", "a@sha256:0"],
        ),
        (SIZE, ["", "8Gi", "512Mi", "2Ti"], ["8", "8GB", "0Gi", "8gi", "1.5Gi", " 8Gi"]),
    ],
)
def test_what_fits(form: Form, good: list[str], bad: list[str]) -> None:
    assert [text for text in good if not form.fits(text)] == []
    assert [text for text in bad if form.fits(text)] == []
    assert form.fits(form.example)


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("metadata.name", "Bad_Name", "metadata.name is Bad_Name: it is no name of at most 40"),
        ("spec.cluster.queue", "a b", "spec.cluster.queue is a b: it is no name of at most 63"),
        ("spec.cluster.image", "judge", "spec.cluster.image is judge: it is no image with a tag or a digest. As in"),
        ("spec.cluster.image", "judge:latest", "with latest a retry may run other code"),
        ("spec.cluster.nodeSelector", {"a b": "c"}, "spec.cluster.nodeSelector is a b: it is no key of the form"),
        ("spec.cluster.nodeSelector", {"a": "c d"}, "spec.cluster.nodeSelector.a is c d: it is no value that a label"),
        ("spec.cluster.env", {"1A": "b"}, "spec.cluster.env is 1A: it is no name of a variable. As in HF_HOME."),
        ("spec.cluster.secrets", ["hf", "A_B"], "spec.cluster.secrets.1 is A_B: it is no name"),
        ("spec.cluster.annotations", {"a/b/c": ""}, "spec.cluster.annotations is a/b/c: it is no key"),
        ("spec.cluster.tolerations", [{"key": "a b"}], "spec.cluster.tolerations.0.key is a b: it is no key"),
        (
            "spec.rewardTrain.memory",
            "12GB",
            "spec.rewardTrain.memory is 12GB: it is no size in Mi, Gi or Ti. As in 8Gi.",
        ),
    ],
)
def test_a_document_is_told_its_field_and_an_example(path: str, value: Any, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_document(EXAMPLE, [f"{path}={yaml.safe_dump(value, default_flow_style=True).removesuffix('...').strip()}"])
    assert told in str(caught.value)
