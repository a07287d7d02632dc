"""Every mistake in a document becomes one line that names the field, its value and the way out."""

from pathlib import Path

import pytest
import yaml

from unified_reward.config import AlignmentRun, Grader, PolicyKind, Stage, load_document, parse_document
from unified_reward.config.graph import Node, Source, build_graph, by_urgency
from unified_reward.errors import UserError

EXAMPLES = sorted((Path(__file__).parents[3] / "jobs" / "examples").glob("*.yaml"))
SHAPES = (Path(__file__).parents[3] / "jobs" / "examples" / "shapes.yaml").read_text()

MISTAKES = [
    ("spec.rewardTrain.stpes=3", "spec.rewardTrain.stpes is 3: there is no such field. Did you mean steps?"),
    ("spec.policies.0.generate.candidates=9", "spec.policies.0.generate.candidates is 9: candidates are ranked in disjoint pairs. Use 8 or 10."),  # noqa: E501
    ("spec.rewardTrain.globalBatch=31", "spec.rewardTrain.globalBatch is 31: 2 processes cannot share it evenly. Use 30 or 32, or change processes."),  # noqa: E501
    ("spec.policies.1.kind=foo", "spec.policies.1.kind is foo: Input should be 'vlm' or 'diffusion'. Use 'vlm' or 'diffusion'."),
    ("spec.policies.1.name=vlm", "spec.policies is vlm: two entries have this name. Give each policy a name of its own."),
    ("spec.rewardTrain.select=best", "spec.rewardTrain.select is best: validateEvery is 0, so there is nothing to choose by. Set validateEvery."),  # noqa: E501
    ("spec.seed=[1", "--set is spec.seed=[1: its value is no valid YAML (expected ',' or ']', but got '<stream end>'). Mend it, or put it in quotes."),  # noqa: E501
    ("spec.seed=2024-13-45", "--set is spec.seed=2024-13-45: its value is no valid YAML (month must be in 1..12). Mend it, or put it in quotes."),  # noqa: E501
    ("spec.seed", "--set is spec.seed: it is not of the form PATH=VALUE. Write for example --set spec.rewardTrain.steps=50."),
    ("spec.import.source=files", "spec.import.vlmPrompts is []: policy vlm (vlm) would be asked nothing: source is files. Name files of prompts (docs/data.md), or remove the policy."),  # noqa: E501
    ("spec.import.vlmPrompts=[q.jsonl]", "spec.policies.0.dpoTrain.validateEvery is 40: validation grades answers by known facts, and prompts from files tell none. Use 0 (and select: last)."),  # noqa: E501
    ("spec.policies.0.policyEval={grader: truth, judge: store:j}", "spec.policies.0.policyEval.judge is store:j: grader is truth, so no judge is asked. Leave one of them out."),  # noqa: E501
    ("spec.policies.0.policyEval={judgeTemplate: default}", "spec.policies.0.policyEval.judgeTemplate is default: this run's judge speaks the words it was trained with. Leave it out, or name another judge."),  # noqa: E501
    ("spec.policies.1.generate.engine=vllm", "spec.policies.1.generate.engine is vllm: this policy draws images, and vLLM writes text. Leave it out."),  # noqa: E501
    ("spec.policies.0.generate.tensorParallel=2", "spec.policies.0.generate.tensorParallel is 2: engine is transformers. Set engine: vllm, or leave it out."),  # noqa: E501
    ("spec.policies.0.generate={engine: vllm, engineOptions: [x]}", "spec.policies.0.generate.engineOptions is ['x']: 'x' is not of the form NAME=VALUE, with a name of Python. Write max_model_len=8192, say."),  # noqa: E501
    ("spec.policies.0.generate={engine: vllm, engineOptions: [tensor_parallel_size=2]}", "spec.policies.0.generate.engineOptions is ['tensor_parallel_size=2']: how many GPUs an engine takes has a field of its own. Use tensorParallel."),  # noqa: E501
    ("spec.policies.0.generate={engine: vllm, gpu: 2, processes: 2, tensorParallel: 2}", "spec.policies.0.generate.gpu is 2: 2 engines of a pod with 2 GPUs each take 4. Use 4, or fewer processes."),  # noqa: E501
    ("foo=1", "foo is 1: there is no such field. Fields here: apiVersion, kind, metadata, spec."),
]  # fmt: skip


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_is_one_line_with_field_value_and_way_out(override: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_document(SHAPES, name="shapes.yaml", overrides=[override])
    assert str(caught.value) == message


def test_a_loss_of_no_such_name_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(
        UserError, match=r"spec\.policies\.0\.dpoTrain\.loss is sigmod: .*'sigmoid', 'robust', .* or 'sft'"
    ):
        parse_document(SHAPES, name="shapes.yaml", overrides=["spec.policies.0.dpoTrain.loss=sigmod"])


def test_a_missing_file_and_broken_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"FILE is .*none\.yaml: it cannot be read"):
        load_document(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="it is no valid YAML"):
        parse_document("a: [1", name="broken.yaml")
    with pytest.raises(UserError, match=r"it is no valid YAML: seed stands twice in .* line 2"):
        parse_document("seed: 1\nseed: 2\n", name="twice.yaml")
    with pytest.raises(UserError, match="it holds 2 documents"):
        parse_document(f"{SHAPES}\n---\n{SHAPES}", name="two.yaml")


def test_an_override_reaches_into_lists_and_keeps_types() -> None:
    run = parse_document(SHAPES, name="shapes.yaml", overrides=["spec.policies.1.dpoTrain.beta=7", "spec.seed=3"])
    assert run.spec.policies[1].dpo_train.beta == 7.0
    assert run.spec.seed == 3


@pytest.mark.parametrize("path", EXAMPLES, ids=[path.stem for path in EXAMPLES])
def test_every_example_is_a_valid_document(path: Path) -> None:
    run = load_document(path)
    assert run.metadata.name == path.stem
    assert build_graph(run)


def test_a_document_written_out_reads_back_the_same() -> None:
    run = parse_document(SHAPES, name="shapes.yaml")
    assert parse_document(yaml.safe_dump(run.document()), name="again") == run


FROM_FILES = ["spec.import.imagePrompts=[c.txt]", "spec.policies.1.dpoTrain={}"]


def evaluation(policy: str, *overrides: str) -> Node:
    return build_graph(parse_document(SHAPES, name="x", overrides=overrides))[f"policy-eval/{policy}"]


def test_captions_from_files_serve_image_policies_and_no_others() -> None:
    run = parse_document(SHAPES, name="x", overrides=FROM_FILES)
    assert [run.spec.truth_known(kind) for kind in PolicyKind] == [True, False]
    with pytest.raises(
        UserError, match=r"spec.policies.1.policyEval.grader is truth: prompts from files tell no facts"
    ):
        evaluation("image", *FROM_FILES, "spec.policies.1.policyEval={grader: truth}")
    files = ["spec.import.source=files", *FROM_FILES]
    with pytest.raises(UserError, match=r"spec.import.vlmPrompts is \[\]: policy vlm"):
        parse_document(SHAPES, name="x", overrides=files)
    assert parse_document(
        SHAPES, name="x", overrides=[*files, "spec.policies.0.kind=diffusion", "spec.policies.0.dpoTrain={}"]
    )


def test_where_no_truth_is_known_policy_eval_waits_for_the_judge() -> None:
    assert "judge" not in evaluation("image").inputs
    assert evaluation("image").config.grader is Grader.TRUTH  # type: ignore[attr-defined]
    judged = evaluation("image", *FROM_FILES)
    assert judged.inputs["judge"] == Source("reward-train", "judge")
    assert judged.config.grader is Grader.JUDGE  # type: ignore[attr-defined]
    assert evaluation("vlm", *FROM_FILES).inputs == evaluation("vlm").inputs
    assert "reward-train" in evaluation("vlm", "spec.policies.0.policyEval={grader: judge}").needs


def test_another_judge_is_a_model_that_the_key_depends_on() -> None:
    other = evaluation("vlm", "spec.policies.0.policyEval={judge: builtin:shapes/vlm}")
    assert other.config.grader is Grader.JUDGE  # type: ignore[attr-defined]
    assert other.models["judge"] == "builtin:shapes/vlm"
    assert "judge" not in other.inputs


def test_a_sweep_is_written_out_as_one_policy_per_seed_and_way() -> None:
    sweep = {"seeds": [0, 1], "ways": ["pair_point", "random"]}
    run = parse_document(SHAPES, name="x", overrides=[f"spec.policies.0.sweep={sweep}"])
    names = [policy.name for policy in run.spec.expanded_policies()]
    assert names == ["vlm-pair-point-s0", "vlm-pair-point-s1", "vlm-random-s0", "vlm-random-s1", "image"]
    assert {p.score.way.value for p in run.spec.expanded_policies() if p.group == "vlm/random"} == {"random"}


def test_the_graph_has_seven_stages_each_after_what_it_reads() -> None:
    graph = build_graph(AlignmentRun.model_validate(yaml.safe_load(SHAPES)))
    assert {node.stage for node in graph.values()} == set(Stage)
    seen: set[str] = set()
    for node in graph.values():
        assert node.needs <= seen, f"{node.id} stands before {node.needs - seen}"
        seen.add(node.id)


def test_the_stages_that_most_others_wait_for_come_first() -> None:
    run = parse_document(SHAPES, name="x")
    order = [node.id for node in by_urgency(build_graph(run))]
    assert order[:4] == ["import", "reward-train", "generate/vlm", "generate/image"]
    assert set(order[-3:]) == {"reward-eval", "policy-eval/vlm", "policy-eval/image"}
