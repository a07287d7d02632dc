"""The page of the document is that of the config models, and leaves no field out."""

from __future__ import annotations

import pytest
from pydantic import BaseModel

from unified_reward.config import STAGE_CONFIGS, AlignmentRun, ClusterSpec, TrackingSpec, parse_document
from unified_reward.config.cluster import Retries, Toleration
from unified_reward.config.run import Metadata, PolicySpec, RunSpec, Sweep
from unified_reward.launch import render_docs

SECTIONS: list[type[BaseModel]] = [
    AlignmentRun, Metadata, RunSpec, ClusterSpec, Toleration, Retries, TrackingSpec, PolicySpec, Sweep, *STAGE_CONFIGS.values()
]  # fmt: skip


def test_the_page_is_what_the_config_models_say() -> None:
    assert render_docs.FILE.read_text(encoding="utf-8") == render_docs.render()


@pytest.mark.parametrize("model", SECTIONS)
def test_every_field_is_on_the_page_and_says_what_it_means(model: type[BaseModel]) -> None:
    page = render_docs.render()
    for name, info in model.model_fields.items():
        rows = [line for line in page.splitlines() if line.startswith(f"| `{info.alias or name}`")]
        assert rows, name
        assert all(row.rsplit("|", 2)[1].strip() for row in rows), name


def test_links_of_the_page_lead_to_its_headings() -> None:
    page = render_docs.render()
    headings = {
        render_docs._anchor(line.removeprefix("## ")) for line in page.splitlines() if line.startswith("## ")
    }  # fmt: skip
    linked = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert linked <= headings
    assert len(headings) == page.count("\n## ")


def test_types_bounds_and_defaults_are_told() -> None:
    page = render_docs.render()
    assert "| `globalBatch` | whole number, at least 1 | `32` | samples per optimizer step, over all ranks |" in page
    assert r"| `gpu` \* | whole number, 0 to 64 | `0` | cluster: GPUs of a pod |" in page
    assert "| `heldOut` | number, above 0, below 1 | `0.25` |" in page
    assert "| `kind` | `vlm`, `diffusion` | required |" in page
    assert "| `shm` | text, as `8Gi` |  |" in page
    assert "| `sweep` | section |  | repeat the policy" in page


def test_the_example_on_the_page_is_a_document() -> None:
    run = parse_document(render_docs.EXAMPLE, name="example")
    assert [policy.name for policy in run.spec.policies] == ["qwen"]
