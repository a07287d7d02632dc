"""The page is complete, self-contained and harmless, whatever the data say."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from unified_reward.tracking import figures
from unified_reward.tracking.markup import image, strip, tag
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
from unified_reward.tracking.report_sections import duration

EVIL = "</p><script>alert('x')</script>\" onload=\"x() $title ${body}"


def picture(side: int = 8) -> figures.Picture:
    return np.zeros((side, side, 3), np.uint8)


def full(text: str) -> ReportData:
    """Every field of the page, with `text` wherever data can put one."""
    pair = {"accuracy": 0.9, "n": 10, "facts": {text: {"accuracy": 1.0, "n": 3}}}
    policy = {"before": 0.5, "after": 0.75, "n": 40, "metric": text, "facts": {text: {"before": 1, "after": 0, "n": 2}}}
    chart = Chart(figures.curves({text: [(0, 1.0), (1, 2.0)], "b": [(0, 1.0)]}, y_label=text), text)
    example = PairExample(text, 4.5, 1.5, text, text, picture(), media=[picture()])
    verdict = VerdictExample(
        "image_generation_pair", text, text, text, True, [text], [[picture()] * 9], 0.9, 0.8, 1.0, text
    )
    return ReportData(
        run=text, summary=text, facts={text: text}, headline=[Headline(text, text, text, text)],
        judge={"image_generation_pair": pair, "image_generation_point": {"pearson": 0.91, "n": 10}},
        benchmarks=[{"benchmark": text, "accuracy": 0.4559, "interval": [0.43, 0.481], "n": 1735, "unparsed": 3}],
        judge_charts=[chart], preferences=[Preferences(text, 10, 10, 8, {text: 2}, [chart], [example])],
        policies=[Policy(text, policy, [chart], [Drawn(text, [picture()], [picture()], [False], [True])])],
        groups=[Group(text, [0.5, 0.5, 0.5], [0.6, 0.7, 0.8], [10, 12, 11]), Group(text, [0.5], [0.4])],
        verdicts=[verdict] * 20, costs=[StageCost(text, 61.0, True, 2**30, text)], wall_seconds=61.0, notes=[text],
        links={text: "http://127.0.0.1:5000/#/x", "script": "javascript:alert(1)"},
    )  # fmt: skip


def judged(text: str) -> Policy:
    opinion = {
        "judge_win_rate": 0.625, "judge_win_rate_interval": [0.4, 0.8], "judge_wins": 2, "judge_ties": 1, "judge_losses": 1,
        "judge_order_agreement": 0.75, "judge_score_before": 2.75, "judge_score_after": 2.749, "judge_score_gain": -0.001,
        "judge_score_gain_interval": [-0.5, 0.5], "judge": text, "n": 4, "prompts": 2, "metric": "win rate by the judge",
    }  # fmt: skip
    answered = Answered(text, text, text, "after", 0.9, 1.0, 4.0, [picture()])
    drawn = Drawn(text, [picture()], [picture()], [False], [True], "preferred by the judge")
    return Policy(text, opinion, [], [drawn], [answered])


class Audit(HTMLParser):
    """Collects what could run or load, and checks that tags close in order."""

    VOID = ("meta", "img", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.harmful: list[str] = []
        self.shown: list[str] = []

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        if name not in self.VOID:
            self.open.append(name)
        if name in ("script", "iframe", "object", "link", "form", "base"):
            self.harmful.append(name)
        for key, value in attributes:
            outside = key in ("src", "href", "xlink:href") and not (value or "").startswith(
                ("data:image/", "#", "http://127")
            )
            if key.startswith("on") or outside:
                self.harmful.append(f"{name} {key}={value}")

    def handle_endtag(self, name: str) -> None:
        assert self.open.pop() == name

    def handle_startendtag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(name, attributes)
        if name not in self.VOID:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.shown.append(data)


def audit(page: str) -> Audit:
    found = Audit()
    found.feed(page)
    assert found.open == []
    return found


def test_nothing_in_the_data_becomes_markup() -> None:
    found = audit(render(full(EVIL)))
    assert found.harmful == []
    shown = "".join(found.shown)
    assert shown.count("<script>alert('x')</script>") >= 25
    assert "$title ${body}" in shown


def test_the_page_loads_nothing_from_elsewhere() -> None:
    page = render(full("text"))
    assert "default-src 'none'" in page
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+", re.sub(r'xmlns(:\w+)?="[^"]*"|base64,[\w+/=]+', "", page)))
    assert addresses == {"http://127.0.0.1"}


def test_empty_parts_leave_no_trace() -> None:
    page = render(ReportData(run="r", summary="s"))
    assert "<h2" not in page
    assert "<table" not in page
    assert render(full("x")).count("<h2") == 7


def test_numbers_are_shown_as_they_are() -> None:
    shown = "".join(audit(render(full("x"))).shown)
    assert "90.0" in shown  # judge accuracy
    assert "0.910" in shown  # Pearson
    assert re.search(r"45\.6\s*43\.0 – 48\.1\s*3\s*1,735", shown)  # a benchmark: accuracy, interval, unparsed, n
    assert "+25.0" in shown  # policy gain in points
    assert "-100.0" in shown  # a fact that got lost is not hidden
    assert re.search(
        r"\+20\.0\s*10\.0\s*\+10\.0 – \+30\.0", shown
    )  # mean gain of three seeds, its deviation, its range
    assert "10 – 12" in shown
    assert "1 min 01 s" in shown
    assert "before: 0 of 1 right" in shown


def test_an_opinion_is_told_from_a_measurement() -> None:
    shown = "".join(audit(render(ReportData(run="r", summary="s", policies=[judged("x")]))).shown)
    assert "win rate by the judge" in shown
    assert re.search(r"62\.5\s*40\.0 – 80\.0\s*2 / 1 / 1\s*75\.0\s*4", shown)
    assert re.search(r"2\.75\s*2\.75\s*\+0\.00\s*-0\.50 – \+0\.50", shown)
    assert "1 of 1 preferred by the judge" in shown
    assert "known truth of held-out prompts" not in shown
    both = "".join(audit(render(ReportData(run="r", summary="s", policies=[*full("y").policies, judged("x")]))).shown)
    assert "known truth of held-out prompts, without the judge" in both
    assert "In the judge's opinion" in both


def test_answers_and_the_name_of_a_judge_are_escaped() -> None:
    found = audit(render(ReportData(run="r", summary="s", policies=[judged(EVIL)])))
    assert found.harmful == []
    assert "".join(found.shown).count("<script>alert('x')</script>") >= 6


def test_missing_results_stay_empty_instead_of_zero() -> None:
    judge = {"image_generation_pair": {"accuracy": None, "single_order_accuracy": None, "n": 0, "facts": {}},
             "image_generation_point": {"pearson": None, "spearman": None, "mae": None, "n": 0}}  # fmt: skip
    benchmark = {"benchmark": "mmrb2", "accuracy": None, "interval": None, "n": 0, "unparsed": 0}
    shown = "".join(audit(render(ReportData(run="r", summary="s", judge=judge, benchmarks=[benchmark]))).shown)
    assert "0.0" not in shown.replace("50", "")


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.5, "0.5 s"), (59.96, "1 min 00 s"), (3599.7, "1 h 00 min"), (None, "")]
)
def test_durations(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_large_pictures_are_scaled_down_and_small_ones_kept_sharp() -> None:
    large, small = image(picture(2000), "x"), image(picture(32), "x")
    assert len(large) < 10_000
    assert "image/webp" in large
    assert "image/png" in small
    assert 'class="small"' in small


def test_a_strip_shows_the_first_and_the_last_frame() -> None:
    frames = [np.full((4, 4, 3), value, np.uint8) for value in range(9)]
    shown = strip(frames, "clip", most=4)
    assert shown.count("<img") == 4
    assert image(frames[0], "clip") in shown
    assert image(frames[-1], "clip") in shown


def test_attributes_are_escaped() -> None:
    assert tag("a", "x", title='"><b>') == '<a title="&quot;&gt;&lt;b&gt;">x</a>'


def test_the_first_verdicts_show_every_task() -> None:
    tasks = [task for task in ("image_generation_pair", "video_generation_pair") for _ in range(20)]
    verdicts = [VerdictExample(task, f"{task} {place}", "1", "1", True) for place, task in enumerate(tasks)]
    page = render(ReportData(run="r", summary="s", verdicts=verdicts))
    first, folded = page.split("<details>")
    assert first.count("image_generation_pair ") == first.count("video_generation_pair ") == 6
    assert folded.count("image_generation_pair ") == folded.count("video_generation_pair ") == 14
