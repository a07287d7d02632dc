"""The page of a run: what its stages committed, put together, and written where a person finds it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unified_reward.data.media import Pixels, decode
from unified_reward.evaluation.policy_metrics import OPINION, OWN_JUDGE, WIN_RATE, shares
from unified_reward.pipeline.status import RunStatus
from unified_reward.records import Task
from unified_reward.stages.context import Commit
from unified_reward.stages.figures import marked
from unified_reward.store import ObjectStore, read_media
from unified_reward.tracking import StageRun
from unified_reward.tracking.figures import Share, curves, histogram, share_bars
from unified_reward.tracking.report import (
    Answered,
    Chart,
    Drawn,
    Group,
    Headline,
    PairExample,
    Policy,
    Preferences,
    ReportData,
    StageCost,
    VerdictExample,
    render,
)

PAGE = "report.html"
EXAMPLES = 8
MEASURED = ("before", "after", WIN_RATE, "judge_score_before", "judge_score_after")  # of policies, in MLflow
CHANCE = 0.5  # of a right verdict, for one who guesses
SHOWN_CURVES = {
    "loss": "Loss",
    "verdict_accuracy": "Share of verdict words that are the likeliest",
    "rewards/accuracies": "Share of pairs in which the policy gained more on the chosen than on the rejected",
    "implicit_accuracy": "Share of pairs in which the policy gained more on the chosen than on the rejected",
}


def publish_report(
    status: RunStatus, commits: Mapping[str, Commit], store: ObjectStore, directory: Path, parent: StageRun
) -> str:
    """Write the page to `directory` and to the parent's tracking run. Returns its path."""
    data = report_data(status, commits, store)
    page = render(data)
    path = directory / PAGE
    path.write_text(page, encoding="utf-8")
    parent.html("report", page)
    parent.table("judge", [{"task": task, **_row(values)} for task, values in data.judge.items()])
    parent.metrics(_headline_metrics(data))
    return str(path)


def report_data(status: RunStatus, commits: Mapping[str, Commit], store: ObjectStore) -> ReportData:
    """Everything the page shows."""
    pictures = _Pictures(store)
    judge = commits["reward-eval"]
    policies = [node.partition("/")[2] for node in commits if node.startswith("policy-eval/")]
    tasks = [str(task) for task in Task if task in judge.metrics]
    metrics: dict[str, dict[str, Any]] = {task: judge.metrics[task] for task in tasks}
    return ReportData(
        run=status.name,
        summary=" ".join(filter(None, (_summary(policies), _guessing(metrics)))),
        facts=_facts(status),
        headline=_headline(metrics, commits, policies),
        judge=metrics,
        judge_charts=list(_judge_charts(metrics, commits["reward-train"])),
        benchmarks=_benchmarks(judge),
        preferences=[_preferences(name, commits, pictures) for name in policies[:4]],
        policies=[_policy(name, commits, pictures) for name in policies[:4]],
        groups=_groups(status, commits, policies),
        verdicts=[_verdict(row, pictures) for row in judge.report["verdicts"]],
        costs=[StageCost(node, stage.seconds, stage.reused) for node, stage in status.stages.items()],
        wall_seconds=status.cost.wall_seconds,
        cpu_seconds=status.cost.cpu_seconds,
        peak_rss_bytes=status.cost.peak_rss_bytes,
        notes=_notes(status, commits),
    )


class _Pictures:
    """Media of the store as pixels."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store
        self._known: dict[str, Pixels] = {}

    def __call__(self, digest: str) -> Pixels:
        if digest not in self._known:
            self._known[digest] = decode(read_media(self.store, digest))
        return self._known[digest]

    def frames(self, digest: str) -> list[Pixels]:
        pixels = self(digest)
        if pixels.ndim == 3:
            return [pixels]
        return list(pixels[:: max(1, len(pixels) // 4)][:4])


def _summary(policies: Sequence[str]) -> str:
    made = "A judge was trained on the records of this run and measured on held-out ones, in both orders."
    if not policies:
        return made
    names = ", ".join(policies[:4]) + (" and others" if len(policies) > 4 else "")
    return (
        f"{made} It then ranked and scored what the policies {names} produced, and DPO aligned them with its choices."
    )


def _guessing(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Names the pair tasks whose interval contains guessing; "" when there are none."""
    bounds = {task: _interval(values) for task, values in metrics.items()}
    tasks = [task.replace("_", " ") for task, found in bounds.items() if found and found[0] <= CHANCE <= found[1]]
    if not tasks:
        return ""
    return f"What it says of {', '.join(tasks)} cannot be told from noise: the 95 % interval contains guessing."


def _facts(status: RunStatus) -> dict[str, str]:
    spec = status.document["spec"]
    facts = {"finished": time.strftime("%Y-%m-%d %H:%M", time.localtime()), "seed": str(spec["seed"])}
    store = "embedded" if status.store.startswith("file:") else status.store
    return facts | {"data": spec["import_"]["source"], "store": store}


def _headline(
    metrics: Mapping[str, Mapping[str, Any]], commits: Mapping[str, Commit], policies: Sequence[str]
) -> list[Headline]:
    pairs = [values["accuracy"] for values in metrics.values() if values.get("accuracy") is not None]
    shown = []
    if pairs:
        detail = f"mean over {len(pairs)} pair tasks, both orders averaged, held-out"
        shown.append(Headline("Judge, pairs", _percent(sum(pairs) / len(pairs)), detail))
    points = [values["pearson"] for values in metrics.values() if values.get("pearson") is not None]
    if points:
        detail = f"mean correlation with the truth over {len(points)} point tasks"
        shown.append(Headline("Judge, scores", f"{sum(points) / len(points):.3f}", detail))
    for name in policies[:2]:
        result = commits[f"policy-eval/{name}"].metrics
        if WIN_RATE in result:
            detail = "of what it makes preferred to what it made before, ties as half: win rate by the judge"
            shown.append(Headline(f"Policy {name}", _percent(result[WIN_RATE]), detail))
        else:
            before, after = _percent(result["before"]), _percent(result["after"])
            shown.append(Headline(f"Policy {name}", after, result["metric"], before))
    return shown


def _judge_charts(metrics: Mapping[str, Mapping[str, Any]], training: Commit) -> Iterable[Chart]:
    shares = [
        Share(task.replace("_", " "), values["accuracy"], _interval(values), values["single_order_accuracy"])
        for task, values in metrics.items()
        if values.get("accuracy") is not None
    ]
    if shares:
        figure = share_bars(shares, other_label="one order", value_label="both orders averaged", chance=CHANCE)
        yield Chart(figure, "Accuracy on held-out pairs. Asking in both orders and averaging costs twice.")
    facts = _facts_of(metrics)
    if facts:
        yield Chart(
            share_bars(facts, chance=CHANCE), "Accuracy by the fact that tells the two apart, over all pair tasks."
        )
    yield from _training_charts(training, "the judge's training")


def _benchmarks(judge: Commit) -> list[dict[str, Any]]:
    """As committed; those of drawn shapes are called so, since their numbers say nothing beside published ones."""
    of = "" if judge.config.get("benchmark_data") else " of drawn shapes"
    return [each | {"benchmark": f"{each['benchmark']}{of}"} for each in judge.report.get("benchmarks", ())]


def _facts_of(metrics: Mapping[str, Mapping[str, Any]]) -> list[Share]:
    """Accuracy per fact, pooled over the pair tasks by the number of records."""
    found: dict[str, list[tuple[float, int]]] = {}
    for values in metrics.values():
        for fact, row in (values.get("facts") or {}).items():
            if row.get("accuracy") is not None:
                found.setdefault(fact, []).append((row["accuracy"], row["n"]))
    return [Share(fact, sum(a * n for a, n in rows) / sum(n for _, n in rows)) for fact, rows in sorted(found.items())]


def _training_charts(training: Commit, what: str) -> Iterable[Chart]:
    series = training.report["curves"]
    for name, meaning in SHOWN_CURVES.items():
        if name in series:
            points = {name: [(step, value) for step, value in series[name]]}
            label = "loss" if name == "loss" else "share"
            yield Chart(curves(points, y_label=label, share=name != "loss"), f"{meaning}, over the steps of {what}.")
    validation = {name.removeprefix("validation/"): [(s, v) for s, v in points]
                  for name, points in series.items() if name.startswith("validation/")}  # fmt: skip
    if validation:
        figure = curves(validation, y_label="share", share=True)
        yield Chart(figure, f"The validation split during {what}; the best step's weights were kept.")


def _preferences(name: str, commits: Mapping[str, Commit], pictures: _Pictures) -> Preferences:
    score, generated = commits[f"score/{name}"], commits[f"generate/{name}"]
    report, metrics = score.report, score.metrics
    charts = []
    if report["scores"]:
        groups = {"chosen": report["chosen"], "rejected": report["rejected"], "all candidates": report["scores"]}
        caption = "The judge's scores: what was chosen, what was rejected, and all candidates."
        charts.append(Chart(histogram(groups, x_label="score"), caption))
    drawn = generated.report.get("pictures", False)
    return Preferences(
        policy=name, prompts=metrics["prompts"], candidates=generated.config["candidates"], kept=metrics["kept"],
        dropped=metrics["dropped"], charts=charts,
        examples=[_pair(row, drawn, pictures) for row in report["pairs"][:EXAMPLES]],
    )  # fmt: skip


def _pair(row: Mapping[str, Any], drawn: bool, pictures: _Pictures) -> PairExample:
    shared: dict[str, Any] = {name: row[name] for name in ("prompt", "chosen_score", "rejected_score")}
    if drawn:
        return PairExample(**shared, chosen_picture=pictures(row["chosen"]), rejected_picture=pictures(row["rejected"]))
    media = [frame for digest in row["media"] for frame in pictures.frames(digest)]
    return PairExample(**shared, chosen_text=row["chosen"], rejected_text=row["rejected"], media=media)


def _policy(name: str, commits: Mapping[str, Commit], pictures: _Pictures) -> Policy:
    done, training = commits[f"policy-eval/{name}"], commits[f"dpo-train/{name}"]
    judged = WIN_RATE in done.metrics
    framed = "preferred by the judge" if judged else "right"
    drawn, written = [], []
    for e in done.report["examples"]:
        if isinstance(e["before"], list):
            before, after = ([pictures(digest) for digest in e[side]] for side in ("before", "after"))
            drawn.append(Drawn(e["prompt"], before, after, marked(e, "before"), marked(e, "after"), framed))
        elif judged:
            written.append(_answered(e, pictures))
    return Policy(name, done.metrics, list(_training_charts(training, "DPO")), drawn, written[:EXAMPLES])


def _answered(example: Mapping[str, Any], pictures: _Pictures) -> Answered:
    return Answered(
        example["prompt"], example["before"], example["after"], example["judge_prefers"], example["judge_p_after"],
        example["judge_score_before"], example["judge_score_after"],
        media=[frame for digest in example["media"] for frame in pictures.frames(digest)],
    )  # fmt: skip


def _groups(status: RunStatus, commits: Mapping[str, Commit], policies: Sequence[str]) -> list[Group]:
    found: dict[str, list[str]] = {}
    for name in policies:
        for policy in status.document["spec"]["policies"]:
            if policy["sweep"] and name.startswith(f"{policy['name']}-"):
                found.setdefault(name.rsplit("-s", 1)[0], []).append(name)
    return [_group(label, names, commits) for label, names in found.items()]


def _group(label: str, names: Sequence[str], commits: Mapping[str, Commit]) -> Group:
    results = [commits[f"policy-eval/{name}"].metrics for name in names]
    before, after = zip(*map(shares, results), strict=True)
    said = f"{label}, {OPINION}" if WIN_RATE in results[0] else label
    return Group(said, before, after, [commits[f"score/{name}"].metrics["kept"] for name in names])


def _verdict(row: Mapping[str, Any], pictures: _Pictures) -> VerdictExample:
    label, said = row["label"], row["verdict"]
    right = said == label if isinstance(label, str) else abs(float(said) - float(label)) <= 0.5
    return VerdictExample(
        task=row["task"], prompt=row["prompt"], said=str(said), label=str(label), right=right, answers=row["answers"],
        media=[pictures.frames(digest) for digest in row["media"]], p_first=row["p_first"],
        p_first_shown_first=row["p_first_shown_first"], p_first_shown_second=row["p_first_shown_second"],
        rationale=row["rationale"],
    )  # fmt: skip


def _notes(status: RunStatus, commits: Mapping[str, Commit]) -> list[str]:
    return [*_data_notes(status, commits), *_witness_notes(commits)]


def _witness_notes(commits: Mapping[str, Commit]) -> list[str]:
    """What an opinion is worth; nothing where all policies were measured by truth."""
    judges = {done.metrics["judge"] for node, done in commits.items()
              if node.startswith("policy-eval/") and WIN_RATE in done.metrics}  # fmt: skip
    notes = ["A win rate by the judge is an opinion about held-out prompts, not a measurement against a truth."]
    if OWN_JUDGE in judges:
        notes.append("The judge that compares before and after also chose the pairs that the policy was aligned with: a "
                     "biased witness, which sees gains also where only its own taste was learned. policyEval.judge names "
                     "another one.")  # fmt: skip
    return notes if judges else []


def _data_notes(status: RunStatus, commits: Mapping[str, Commit]) -> list[str]:
    spec = status.document["spec"]
    if spec["import_"]["source"] != "shapes":
        card = commits["import"].report.get("card", {})
        small = (
            "A small judge after a few steps on a few records says nothing about quality; what this run shows is that the "
            "files were read, sampled, patched and counted rightly."
        )
        return [
            *([small] if spec["reward_train"]["base"].startswith("builtin:") else []),
            f"Rows: {_listed(card.get('counts'))}. Rejects: {_listed(card.get('rejects'))}. "
            f"Media as decoded: {_listed(card.get('media'))}.",
        ]
    return [
        "The world is small and its truth is exact: a judge that is right here need not be right about photographs.",
        "Test scenes and test captions occur in no training. Steps are chosen on the validation split.",
        "The base weights ship with the package; python -m unified_reward.shapes.pretrain and "
        "python -m unified_reward.shapes.image_policy make them again.",
    ]


def _listed(values: Mapping[str, Any] | Sequence[Any] | None) -> str:
    if isinstance(values, Mapping):
        return ", ".join(f"{name} {value}" for name, value in values.items()) or "none"
    return ", ".join(map(str, values or ())) or "none"


def _headline_metrics(data: ReportData) -> dict[str, float]:
    found = {
        f"policy/{p.name}/{name}": float(p.results[name])
        for p in data.policies for name in MEASURED if p.results.get(name) is not None
    }  # fmt: skip
    for task, values in data.judge.items():
        for name in ("accuracy", "single_order_accuracy", "pearson", "spearman"):
            if values.get(name) is not None:
                found[f"judge/{task}/{name}"] = float(values[name])
    return found


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if isinstance(value, int | float)}


def _interval(values: Mapping[str, Any]) -> tuple[float, float] | None:
    bounds = values.get("accuracy_interval")
    return (bounds[0], bounds[1]) if bounds else None


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
