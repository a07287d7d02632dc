"""The components are those of the config models, TorchX can read them, and what they are given reaches the stage."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from torchx.specs import file_linter
from torchx.specs.builders import materialize_appdef
from torchx.specs.finder import get_components

from unified_reward.config import STAGE_CONFIGS, ImportConfig, Stage, StageSpec
from unified_reward.errors import UserError
from unified_reward.launch import components, render_components
from unified_reward.launch.appdef import component_name
from unified_reward.launch.plan import job_plan


def _component(stage: Stage):  # type: ignore[no-untyped-def]
    return getattr(components, component_name(stage))


def _options(command: tuple[str, ...]) -> dict[str, str]:
    """The options of `unified_reward.stages` by name."""
    words = command[command.index("unified_reward.stages") + 1 :]
    return dict(zip(words[::2], words[1::2], strict=True))


def test_the_file_is_what_the_config_models_say() -> None:
    assert render_components.FILE.read_text(encoding="utf-8") == render_components.render()


def test_torchx_finds_ours_and_keeps_its_own() -> None:
    found = set(get_components())
    assert {f"ur.{component_name(stage)}" for stage in Stage} <= found
    assert {"dist.ddp", "utils.echo", "utils.sh"} <= found


@pytest.mark.parametrize("stage", Stage)
def test_torchx_accepts_the_component_and_finds_help_for_every_argument(stage: Stage) -> None:
    component = _component(stage)
    assert file_linter.validate(str(render_components.FILE), component_name(stage)) == []
    description, help_texts = file_linter.get_fn_docstring(component)
    assert description.startswith((STAGE_CONFIGS[stage].__doc__ or "").strip()[:40])
    assert [name for name in inspect.signature(component).parameters if not help_texts[name].strip()] == []


@pytest.mark.parametrize("stage", Stage)
def test_the_defaults_are_those_of_the_config(stage: Stage) -> None:
    plan = job_plan(materialize_appdef(_component(stage), []))
    options = _options(plan.command)
    assert options["--stage"] == stage.value
    assert STAGE_CONFIGS[stage].model_validate(json.loads(options["--config"])) == STAGE_CONFIGS[stage]()
    assert plan.processes == STAGE_CONFIGS[stage]().processes


def test_arguments_arrive_with_their_types_and_a_dollar_stays_a_dollar() -> None:
    given = ["--source", "files", "--paths", "a.csv, b$$c.jsonl", "--allow_missing", "true", "--held_out", "0.5"]
    config = ImportConfig.model_validate(
        json.loads(_options(job_plan(materialize_appdef(components.import_data, given)).command)["--config"])
    )
    assert (config.source, config.allow_missing, config.held_out) == ("files", True, 0.5)
    assert config.paths == ["a.csv", "b$$c.jsonl"]


def test_inputs_and_the_policy_are_handed_on() -> None:
    given = ["--policy", "image", "--input_candidates", "stages/generate/x/candidates"]
    options = _options(job_plan(materialize_appdef(components.score, given)).command)
    assert options["--input"] == "candidates=stages/generate/x/candidates"
    assert (options["--policy-kind"], options["--policy-base"]) == ("diffusion", "builtin:shapes/image")
    own = ["--policy", "mine", "--policy_kind", "vlm", "--policy_base", "models/mine"]
    options = _options(job_plan(materialize_appdef(components.score, own)).command)
    assert (options["--policy-kind"], options["--policy-base"]) == ("vlm", "models/mine")


def test_a_mistake_names_the_argument() -> None:
    with pytest.raises(UserError) as caught:
        components.dpo_train(global_batch=31)
    assert str(caught.value).startswith("dpo-train.globalBatch is 31: 2 processes cannot share it evenly.")


@pytest.mark.parametrize("values", [{"run": "a b"}, {"run": ""}, {"run": "x" * 41}, {"policy": "My_Policy"}])
def test_a_name_that_the_stage_would_refuse_is_refused_before_it_is_started(values: dict[str, str]) -> None:
    (argument,) = values
    with pytest.raises(UserError, match=f"^{argument} is .*it is no name of at most 40"):
        components.score(**values)


def test_a_spec_file_says_all_and_must_be_of_the_stage(tmp_path: Path) -> None:
    file = tmp_path / "spec.json"
    spec = StageSpec(stage=Stage.SCORE, run="r", store="file:///x", key="0" * 16, config={"processes": 3}, work_dir="w")
    file.write_text(spec.model_dump_json())
    plan = job_plan(components.score(spec=str(file)))
    assert plan.processes == 3
    assert _options(plan.command) == {"--spec": str(file)}
    with pytest.raises(UserError, match=r"spec\.stage is score: this component runs generate\. Use ur\.score\."):
        components.generate(spec=str(file))
    with pytest.raises(UserError, match="it is no readable JSON"):
        components.generate(spec=str(tmp_path / "none.json"))
