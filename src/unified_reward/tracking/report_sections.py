"""The sections of the report, from top to bottom. Each returns "" when it has nothing to show."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from unified_reward.tracking.markup import (
    Column,
    Html,
    change_bar,
    drawing,
    image,
    join,
    share_bar,
    strip,
    table,
    tag,
)

if TYPE_CHECKING:
    from unified_reward.tracking import report

EXAMPLES_OPEN = 12  # verdicts shown before one has to unfold
WIN_RATE = "judge_win_rate"  # what tells an opinion from a measurement, as evaluation.policy_metrics names it
NOTHING = Html("")


def headline_section(headline: Sequence[report.Headline]) -> Html:
    if not headline:
        return NOTHING
    return tag("dl", *(
        tag(
            "div",
            tag("dt", item.label),
            tag("dd", tag("s", f"{item.before} → ") if item.before else "", item.value, class_="number"),
            tag("dd", item.detail, class_="detail"),
        )
        for item in headline
    ), class_="headline")  # fmt: skip


def judge_section(tasks: Mapping[str, Mapping[str, Any]], charts: Sequence[report.Chart]) -> Html:
    if not tasks and not charts:
        return NOTHING
    pairs = {name: result for name, result in tasks.items() if "accuracy" in result}
    points = {name: result for name, result in tasks.items() if "pearson" in result}
    return join([
        tag("h2", "The judge"),
        tag("p", "Measured on held-out examples that never occur in training. A pair is asked in both orders and the "
            "two probabilities are averaged; the single order is what one gets for half the cost."),
        _pair_table(pairs),
        _point_table(points),
        _charts(charts, "judge"),
        _fact_table(pairs),
    ])  # fmt: skip


def benchmarks_section(benchmarks: Sequence[Mapping[str, Any]]) -> Html:
    if not benchmarks:
        return NOTHING
    columns = [Column("benchmark"), Column("accuracy", "r"), Column("95 % interval", "r"), Column("", "bar"),
               Column("unparsed", "r"), Column("n", "r")]  # fmt: skip
    rows = [
        (each["benchmark"], percent(each["accuracy"]), _interval(each["interval"]),
         share_bar(each["accuracy"]), f"{each['unparsed']:,}", f"{each['n']:,}")
        for each in benchmarks
    ]  # fmt: skip
    return join([
        tag("h3", "Benchmarks"),
        tag("p", "The judge asked and scored as each benchmark's protocol says; an answer without a verdict is wrong."),
        table(columns, rows, caption="Share of right verdicts, in per cent."),
    ])  # fmt: skip


def preferences_section(preferences: Sequence[report.Preferences]) -> Html:
    if not preferences:
        return NOTHING
    rows = [
        (each.policy, f"{each.prompts:,}", each.candidates, f"{each.kept:,}", _reasons(each)) for each in preferences
    ]
    columns = [Column("policy"), Column("prompts", "r"), Column("candidates each", "r"), Column("pairs kept", "r"),
               Column("dropped, and why")]  # fmt: skip
    return join([
        tag("h2", "The preference data"),
        tag("p", "Each policy answers every prompt several times. The judge ranks the candidates in pairs, then scores "
            "the winners and the losers one by one; the best winner and the worst loser become chosen and rejected."),
        table(columns, rows),
        *(_preference_part(each) for each in preferences),
    ])  # fmt: skip


def policies_section(policies: Sequence[report.Policy]) -> Html:
    if not policies:
        return NOTHING
    graded = [each for each in policies if WIN_RATE not in each.results]
    judged = [each for each in policies if WIN_RATE in each.results]
    return join([
        tag("h2", "The policies, before and after"),
        _graded_table(graded) if graded else NOTHING,
        _judged_table(judged) if judged else NOTHING,
        *(_policy_part(each) for each in policies),
    ])  # fmt: skip


def _graded_table(policies: Sequence[report.Policy]) -> Html:
    columns = [Column("policy"), Column("right means"), Column("before", "r"), Column("after", "r"),
               Column("change", "r"), Column("95 % interval", "r"), Column("", "bar"), Column("n", "r")]  # fmt: skip
    words = "Graded against the known truth of held-out prompts, without the judge. Grey is before, blue is after."
    return join([tag("p", words), table(columns, [_policy_row(each.name, each.results) for each in policies])])


def _judged_table(policies: Sequence[report.Policy]) -> Html:
    columns = [Column("policy"), Column("judge"), Column("win rate by the judge", "r"), Column("95 % interval", "r"),
               Column("", "bar"), Column("won / tie / lost", "r"), Column("orders agree", "r"), Column("n", "r")]  # fmt: skip
    words = (
        "In the judge's opinion, not against a known truth. It compares what came after with what came before on held-out "
        "prompts, in both orders; a tie counts half, so 50 % is no difference."
    )
    scores = [Column("policy"), Column("before", "r"), Column("after", "r"), Column("change", "r"),
              Column("95 % interval", "r")]  # fmt: skip
    scored = [each for each in policies if each.results.get("judge_score_gain") is not None]
    return join([
        tag("p", words),
        table(columns, [_judged_row(each.name, each.results) for each in policies]),
        table(scores, [_score_row(each.name, each.results) for each in scored],
              caption="The judge's scores of the same answers, each alone.") if scored else NOTHING,
    ])  # fmt: skip


def groups_section(groups: Sequence[report.Group]) -> Html:
    if not groups:
        return NOTHING
    from unified_reward.tracking import figures

    columns = [Column("way"), Column("seeds", "r"), Column("pairs each", "r"), Column("before", "r"), Column("after", "r"),
               Column("change", "r"), Column("spread", "r"), Column("smallest and largest", "r")]  # fmt: skip
    gains = [[after - before for before, after in zip(g.before, g.after, strict=True)] for g in groups]
    chart = figures.spreads(
        [figures.Spread(group.label, own) for group, own in zip(groups, gains, strict=True)],
        x_label="change of the share right, or won", base=0.0,
    )  # fmt: skip
    caption = "Each dot is one seed, the line their mean; dashed: no change."
    return join([
        tag("h2", "Over seeds"),
        tag("p", "The same stages under several seeds. The spread is the standard deviation over seeds, in points; "
            "differences well inside it mean nothing."),
        table(columns, [_group_row(group, own) for group, own in zip(groups, gains, strict=True)]),
        tag("div", drawing(chart, caption, name="groups"), class_="figures"),
    ])  # fmt: skip


def verdicts_section(verdicts: Sequence[report.VerdictExample]) -> Html:
    if not verdicts:
        return NOTHING
    mixed = _taking_turns(verdicts)
    first, rest = mixed[:EXAMPLES_OPEN], mixed[EXAMPLES_OPEN:]
    folded = tag("details", tag("summary", f"{len(rest)} more"), _verdict_table(rest)) if rest else NOTHING
    return join([
        tag("h2", "Verdicts"),
        tag("p", "What the judge said of held-out examples. P is the probability it gave to the first item: "
            "both orders averaged, then shown first / shown second."),
        _verdict_table(first),
        folded,
    ])  # fmt: skip


def costs_section(
    costs: Sequence[report.StageCost], wall_s: float | None, cpu_s: float | None, peak_bytes: int | None
) -> Html:
    if not costs:
        return NOTHING
    longest = max(cost.seconds for cost in costs) or 1.0
    rows = [
        (cost.stage, tag("span", cost.what, class_="m"), duration(cost.seconds),
         share_bar(cost.seconds / longest, reused=cost.reused), "reused" if cost.reused else "",
         gibibytes(cost.peak_rss_bytes))
        for cost in costs
    ]  # fmt: skip
    columns = [
        Column("stage"),
        Column(""),
        Column("time", "r"),
        Column("", "bar"),
        Column(""),
        Column("peak memory", "r"),
    ]
    known = [("wall time", duration(wall_s)), ("CPU time", duration(cpu_s)), ("peak memory", gibibytes(peak_bytes))]
    total = ", ".join(f"{name} {value}" for name, value in known if value)
    return join([
        tag("h2", "Time and memory"),
        tag("p", f"In all: {total}.") if total else NOTHING,
        table(columns, rows),
    ])  # fmt: skip


def notes_section(notes: Sequence[str]) -> Html:
    if not notes:
        return NOTHING
    return join([tag("h2", "What to keep in mind"), tag("ul", *(tag("li", note) for note in notes), class_="notes")])


def percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def gibibytes(count: int | None) -> str:
    return "" if count is None else f"{count / 2**30:.2f} GiB"


def _pair_table(tasks: Mapping[str, Mapping[str, Any]]) -> Html:
    if not tasks:
        return NOTHING
    columns = [Column("which of two is better"), Column("both orders", "r"), Column("95 % interval", "r"),
               Column("", "bar"), Column("single order", "r"), Column("same in both orders", "r"),
               Column("n", "r")]  # fmt: skip
    rows = [
        (_words(name), percent(result["accuracy"]), _interval(result.get("accuracy_interval")),
         share_bar(result["accuracy"], mark=0.5), percent(result.get("single_order_accuracy")),
         percent(result.get("swap_consistency")), f"{result['n']:,}")
        for name, result in tasks.items()
    ]  # fmt: skip
    return table(columns, rows, caption="Share of right verdicts, in per cent. The line in a bar is guessing (50).")


def _point_table(tasks: Mapping[str, Mapping[str, Any]]) -> Html:
    if not tasks:
        return NOTHING
    columns = [Column("how good is one"), Column("Pearson", "r"), Column("95 % interval", "r"), Column("", "bar"),
               Column("Spearman", "r"), Column("mean error", "r"), Column("n", "r")]  # fmt: skip
    rows = [
        (_words(name), _number(result["pearson"], 3), _interval(result.get("pearson_interval"), scale=1, digits=3),
         share_bar(result["pearson"]), _number(result.get("spearman"), 3), _number(result.get("mae"), 2),
         f"{result['n']:,}")
        for name, result in tasks.items()
    ]  # fmt: skip
    return table(columns, rows, caption="Correlation of the judge's score with the true one.")


def _fact_table(tasks: Mapping[str, Mapping[str, Any]]) -> Html:
    facts = list(dict.fromkeys(fact for result in tasks.values() for fact in result.get("facts", {})))
    if not facts:
        return NOTHING
    columns = [Column("the two differ in"), *(Column(_words(name, short=True), "r") for name in tasks)]
    rows = [
        (fact, *(_counted(result.get("facts", {}).get(fact)) for result in tasks.values())) for fact in facts
    ]  # fmt: skip
    return join([tag("h3", "By fact"), table(columns, rows, caption="Right verdicts in per cent, and of how many.")])


def _preference_part(each: report.Preferences) -> Html:
    if not each.charts and not each.examples:
        return NOTHING
    tiles = tag("ul", *(_pair_tile(example) for example in each.examples), class_="tiles") if each.examples else NOTHING
    return join([tag("h3", each.policy), _charts(each.charts, f"preferences-{each.policy}"), tiles])


def _pair_tile(example: report.PairExample) -> Html:
    seen = [image(picture, "what is asked about") for picture in example.media]
    sides = [
        _side("chosen", example.chosen_score, example.chosen_text, example.chosen_picture),
        _side("rejected", example.rejected_score, example.rejected_text, example.rejected_picture),
    ]
    media = tag("div", *seen, class_="tile-media") if seen else NOTHING
    return tag("li", tag("p", example.prompt, class_="prompt"), media, tag("div", *sides, class_="pair"))


def _side(word: str, score: float | None, said: str, picture: Any) -> Html:
    shown = image(picture, f"{word} picture") if picture is not None else tag("div", said)
    head = tag("small", tag("span", word), tag("span", _number(score, 2)))
    return tag("div", head, shown, class_="side" if word == "chosen" else "side no")


def _policy_row(name: str, results: Mapping[str, Any]) -> tuple[object, ...]:
    before, after = results["before"], results["after"]
    return (
        name, tag("span", results.get("metric", ""), class_="m"), percent(before), percent(after),
        f"{100 * (after - before):+.1f}", _interval(results.get("gain_interval"), signed=True),
        change_bar(before, after), f"{results['n']:,}",
    )  # fmt: skip


def _judged_row(name: str, results: Mapping[str, Any]) -> tuple[object, ...]:
    counts = " / ".join(f"{results[f'judge_{each}']:,}" for each in ("wins", "ties", "losses"))
    return (
        name, tag("span", results["judge"], class_="m"), percent(results[WIN_RATE]), _interval(results["judge_win_rate_interval"]),
        change_bar(0.5, results[WIN_RATE]), counts, percent(results["judge_order_agreement"]), f"{results['n']:,}",
    )  # fmt: skip


def _score_row(name: str, results: Mapping[str, Any]) -> tuple[object, ...]:
    return (
        name, _number(results["judge_score_before"], 2), _number(results["judge_score_after"], 2),
        f"{round(results['judge_score_gain'], 2) + 0.0:+.2f}",
        _interval(results.get("judge_score_gain_interval"), scale=1, digits=2, signed=True),
    )  # fmt: skip


def _group_row(group: report.Group, gains: Sequence[float]) -> tuple[object, ...]:
    points = [100 * gain for gain in gains]
    counts = sorted(set(group.pairs))
    return (
        group.label, len(gains), " – ".join(f"{count:,}" for count in (counts[0], counts[-1])[: len(counts)]) if counts else "",
        percent(statistics.fmean(group.before)), percent(statistics.fmean(group.after)),
        f"{statistics.fmean(points):+.1f}", f"{statistics.stdev(points):.1f}" if len(points) > 1 else "",
        f"{min(points):+.1f} – {max(points):+.1f}" if len(points) > 1 else "",
    )  # fmt: skip


def _policy_part(each: report.Policy) -> Html:
    facts = each.results.get("facts", {})
    columns = [Column("fact"), Column("before", "r"), Column("after", "r"), Column("change", "r"), Column("", "bar"),
               Column("n", "r")]  # fmt: skip
    rows = [
        (fact, percent(r["before"]), percent(r["after"]), f"{100 * (r['after'] - r['before']):+.1f}",
         change_bar(r["before"], r["after"]), f"{r['n']:,}")
        for fact, r in facts.items()
    ]  # fmt: skip
    parts = [
        _charts(each.charts, f"policy-{each.name}"),
        table(columns, rows, caption="Right answers by fact, in per cent.") if rows else NOTHING,
        _drawn(each.drawn),
        _written(each.written),
    ]
    return join([tag("h3", each.name), *parts]) if any(parts) else NOTHING


def _drawn(rows: Sequence[report.Drawn]) -> Html:
    if not rows:
        return NOTHING
    framed = "all that was asked is right" if rows[0].framed == "right" else rows[0].framed
    note = f"Drawings of held-out prompts; the seeds are the same on both sides. Framed: {framed}."
    return tag("figure", tag("div", *(part for row in rows for part in _drawn_row(row)), class_="rows"),
               tag("figcaption", note))  # fmt: skip


def _drawn_row(row: report.Drawn) -> Iterator[Html]:
    yield tag("p", row.prompt)
    wrong = "wrong" if row.framed == "right" else f"not {row.framed}"
    for word, pictures, right in (("before", row.before, row.before_right), ("after", row.after, row.after_right)):
        marks = itertools.chain(right, itertools.repeat(False))
        cells = [
            image(picture, f"{word}, {row.framed if good else wrong}", class_="right" if good else "")
            for picture, good in zip(pictures, marks, strict=False)
        ]
        count = f"{word}: {sum(right)} of {len(pictures)} {row.framed}" if right else word
        yield tag("div", tag("small", count), tag("div", *cells, class_="drawn"))


def _written(rows: Sequence[report.Answered]) -> Html:
    columns = [Column("seen"), Column("asked"), Column("before"), Column("after"), Column("the judge prefers"),
               Column("P(after)", "r"), Column("judge's scores", "r")]  # fmt: skip
    cells = [
        (
            strip(row.media, "what is asked about"), tag("div", row.prompt, class_="asked"), tag("div", row.before),
            tag("div", row.after), tag("b", row.prefers), _number(row.p_after, 2),
            " → ".join(filter(None, (_number(row.score_before, 2), _number(row.score_after, 2)))),
        )
        for row in rows
    ]  # fmt: skip
    caption = "Answers to held-out prompts before and after, and which of the two the judge prefers."
    return table(columns, cells, caption=caption, class_="verdicts") if rows else NOTHING


def _taking_turns(verdicts: Sequence[report.VerdictExample]) -> list[report.VerdictExample]:
    """The first of each task, then the second of each, so that what stands open shows all tasks."""
    turns: Counter[str] = Counter()
    placed = []
    for verdict in verdicts:
        placed.append((turns[verdict.task], verdict))
        turns[verdict.task] += 1
    return [verdict for _, verdict in sorted(placed, key=lambda pair: pair[0])]


def _verdict_table(verdicts: Sequence[report.VerdictExample]) -> Html:
    columns = [
        Column("task"),
        Column("seen"),
        Column("asked"),
        Column("the judge said"),
        Column("P", "r"),
        Column("truth"),
    ]
    rows = [
        (
            tag("span", _words(each.task), class_="m"),
            join(strip(frames, "judged item") for frames in each.media),
            tag("div", each.prompt, *_listed(each.answers), class_="asked"),
            tag("div", tag("b", each.said), Html("<br>"), tag("span", each.rationale, class_="m"), class_="said"),
            _probabilities(each),
            tag("span", f"✓ {each.label}" if each.right else f"✗ {each.label}",
                class_="right-mark" if each.right else "wrong-mark"),
        )
        for each in verdicts
    ]  # fmt: skip
    return table(columns, rows, class_="verdicts")


def _listed(answers: Sequence[str]) -> list[Html]:
    return [tag("div", f"{place}. {answer}") for place, answer in enumerate(answers, start=1)]


def _probabilities(each: report.VerdictExample) -> Html:
    if each.p_first is None:
        return NOTHING
    orders = [_number(value, 2) for value in (each.p_first_shown_first, each.p_first_shown_second) if value is not None]
    return join([_number(each.p_first, 2), Html("<br>"), tag("span", " / ".join(orders), class_="m")])


def _charts(charts: Sequence[report.Chart], name: str) -> Html:
    safe = "".join(letter if letter.isalnum() else "-" for letter in name)
    drawn = [drawing(chart.figure, chart.caption, name=f"{safe}-{place}") for place, chart in enumerate(charts)]
    return tag("div", *drawn, class_="figures") if drawn else NOTHING


def _reasons(each: report.Preferences) -> str:
    return ", ".join(
        f"{count:,} {reason.replace('_', ' ')}"
        for reason, count in sorted(each.dropped.items(), key=lambda item: -item[1])
    )


def _counted(result: Mapping[str, Any] | None) -> Html:
    if not result or result.get("accuracy") is None:
        return NOTHING
    return join([percent(result["accuracy"]), tag("span", f" of {result['n']}", class_="m")])


def _interval(bounds: Sequence[float] | None, *, scale: float = 100, digits: int = 1, signed: bool = False) -> str:
    if bounds is None:
        return ""
    form = f"{{:{'+' if signed else ''}.{digits}f}}"
    return " – ".join(form.format(scale * bound) for bound in bounds)


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _words(task: str, *, short: bool = False) -> str:
    """image_generation_pair -> "image generation"; the table says the rest."""
    parts = task.split("_")
    kept = parts[:-1] if parts[-1] in ("pair", "point") else parts
    return " ".join(part[:3] + "." if short and len(part) > 5 else part for part in kept)
