"""Template packs: how each of the eight judge tasks is asked and answered, as data in a YAML file.

    name: mine
    version: 1
    replace: {"{query}": "{prompt}"}           # literal text -> our placeholder, for prompts written by others
    tasks:
      image_understanding_pair:
        prompt: "{media} question: {prompt} answer 1: {answer_1} answer 2: {answer_2} which is better?"
        rationale: {stop: " .", max_tokens: 40} # absent = the verdict comes at once
        verdict: {"1": " answer 1 is better", "2": " answer 2 is better", tie: null}
      image_understanding_point:
        prompt: ...
        verdict_prefix: " score"                # written before every verdict, not weighed
        scores: {" 1": 1, " 2": 2}
        text: {marker: "score"}                 # how to read the verdict out of free text (grammar.py)
    weights: {verdict: 1.0, rationale: 0.4, rest: 0.1}

A rationale ends with its stop string; what follows is the verdict. Packs `shapes` and `default` ship with the package.
"""

from __future__ import annotations

import difflib
import re
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from unified_reward.errors import UserError
from unified_reward.records import Choice, Mode, Subject, Task

PLACEHOLDER = re.compile(r"\{[a-z][a-z0-9_]*\}")  # JSON braces in a prompt never look like this
MEDIA = ("{media}", "{media_1}", "{media_2}")
ANSWERS = {Mode.PAIR: ("{answer_1}", "{answer_2}"), Mode.POINT: ("{answer}",)}


Words = Annotated[str, Field(pattern=r"\w")]


def _string_keys(value: Any) -> Any:
    """YAML reads an unquoted 1 as a number; as a key it is meant as text."""
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else value


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rationale(_Strict):
    """What the judge writes first. It ends with `stop`, or is cut (and counted as unfinished) after `max_tokens`."""

    stop: str = Field(min_length=1)
    max_tokens: int = Field(ge=1, le=32768)


class PairText(_Strict):
    """How a pairwise verdict is read out of free text.

    marker: only what follows its last occurrence is the verdict. statements: sentences that mean a choice; the verdict
    strings when empty. items: labels of two scored items ("Image 1:", "Image 2:"); the larger sum wins.
    """

    marker: str = ""
    statements: Annotated[dict[Choice, list[Words]], BeforeValidator(_string_keys)] = Field(default_factory=dict)
    items: tuple[str, str] | None = None


class PointText(_Strict):
    """How a score is read out of free text.

    marker: the score follows its last occurrence; verdict_prefix when empty. numbers: how many follow, averaged.
    aspects: label -> weight of scores given separately; their weighted mean is the score. With `scores`, each label is
    written in this order and the score strings are weighed after it. range: smallest, largest.
    """

    marker: str = ""
    numbers: int = Field(1, ge=1, le=16)
    aspects: dict[str, float] = Field(default_factory=dict)
    range: tuple[float, float] | None = None


class Template(_Strict):
    """How one task is asked, and how its answer begins. `verdict_prefix` is written before every verdict."""

    prompt: str = Field(min_length=1)
    rationale: Rationale | None = None
    verdict_prefix: str = ""


class PairTemplate(Template):
    """verdict: the text that means each choice, null where it may not be said; empty = readable from text only."""

    verdict: Annotated[dict[Choice, str | None], BeforeValidator(_string_keys)] = Field(default_factory=dict)
    text: PairText = PairText()

    @property
    def strings(self) -> dict[str, str]:
        """Verdict key ("1", "2", "tie") -> the text that means it, in this order."""
        found = {choice.value: self.verdict.get(choice) for choice in (Choice.FIRST, Choice.SECOND, Choice.TIE)}
        return {key: text for key, text in found.items() if text is not None}

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.verdict:
            _check_strings(self.strings, needed=("1", "2"), field="verdict")
        elif not self.text.statements and self.text.items is None:
            raise _fault("verdict", None, "the answer could be read neither from probabilities nor from text",
                         'Give verdict: {"1": ..., "2": ...}, or text.statements, or text.items.')  # fmt: skip
        return self


class PointTemplate(Template):
    """scores: the text that means each score -> its value; empty = readable from text only, with text.range."""

    scores: Annotated[dict[str, float], BeforeValidator(_string_keys)] = Field(default_factory=dict)
    text: PointText = PointText()

    @property
    def strings(self) -> dict[str, str]:
        """Verdict key (the text without blanks around it) -> the text, from the lowest score to the highest."""
        return {text.strip(): text for text in sorted(self.scores, key=lambda text: self.scores[text])}

    @property
    def values(self) -> dict[str, float]:
        """Verdict key -> score."""
        return {key: self.scores[text] for key, text in self.strings.items()}

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest score."""
        return self.text.range or (min(self.scores.values()), max(self.scores.values()))

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.scores:
            _check_strings(self.strings, needed=(), field="scores")
        elif self.text.range is None:
            raise _fault("scores", None, "without scores the range of a score in the text is unknown",
                         "Give scores, or text.range: [smallest, largest].")  # fmt: skip
        if self.scores and len(set(self.scores.values())) < 2:
            raise _fault("scores", dict(self.scores), "one value is no scale", "Give at least two different values.")
        if self.scores and self.text.aspects and (self.rationale or self.verdict_prefix):
            raise _fault("text.aspects", list(self.text.aspects), "each label stands where a rationale or prefix would",
                         "Leave out rationale and verdict_prefix, or scores to read the aspects from text.")  # fmt: skip
        if self.range[0] >= self.range[1]:
            raise _fault("text.range", self.range, "it is empty", "Write [smallest, largest].")
        return self


class Weights(_Strict):
    """Loss weight per token in judge SFT. verdict: words that tell the verdicts apart; rest: the rest of the answer.

    A verdict is one bit among many easy words: with equal weights it is learned last (reference recipe, section 2).
    """

    verdict: float = Field(1.0, gt=0)
    rationale: float = Field(0.4, ge=0)
    rest: float = Field(0.1, ge=0)


class Pack(_Strict):
    """A named, versioned set of templates. It need not hold all eight tasks.

    video: native = one video input; frames = each frame is an image, as released UnifiedReward checkpoints were asked.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    version: int = Field(ge=1)
    video: Literal["native", "frames"] = "native"
    tasks: dict[Task, PairTemplate | PointTemplate] = Field(min_length=1)
    weights: Weights = Weights()

    @model_validator(mode="before")
    @classmethod
    def _by_mode(cls, data: Any) -> Any:
        """Pair or point is told by the task's name, so that a mistake is reported against one schema, not two."""
        if not isinstance(data, dict) or not isinstance(data.get("tasks"), dict):
            return data
        replacements = data.get("replace") or {}
        if not isinstance(replacements, dict):
            raise _fault("replace", replacements, "it maps text to text", 'Write replace: {"{query}": "{prompt}"}.')
        tasks = {key: _template(str(key), value, replacements) for key, value in data["tasks"].items()}
        return {**{key: value for key, value in data.items() if key != "replace"}, "tasks": tasks}

    def pair(self, task: Task) -> PairTemplate:
        template = self.template(task)
        if not isinstance(template, PairTemplate):
            raise ValueError(f"{task} is not a pair task")
        return template

    def point(self, task: Task) -> PointTemplate:
        template = self.template(task)
        if not isinstance(template, PointTemplate):
            raise ValueError(f"{task} is not a point task")
        return template

    def template(self, task: Task) -> PairTemplate | PointTemplate:
        if task not in self.tasks:
            raise UserError(
                field=f"template pack {self.name}: tasks", value=", ".join(self.tasks), why=f"it has no {task}",
                fix="Add that task to the pack, or leave it out of the run.",
            )  # fmt: skip
        return self.tasks[task]

    def label(self, task: Task) -> str:
        """What is written beside a verdict, to know which words it was asked with."""
        return f"{self.name}@{self.version}:{task}"

    def to_yaml(self) -> str:
        """The pack as a file that `load_pack` reads back; it travels with a trained judge."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True)


def builtin_packs() -> list[str]:
    """Names of the packs that ship with the package."""
    folder = resources.files("unified_reward.judge") / "packs"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_pack(reference: str) -> Pack:
    """A pack by its name (`shapes`, `default`) or by the path of a YAML file.

    Raises UserError naming the file, the task and the field when it is missing or wrong.
    """
    if reference in builtin_packs():
        entry = resources.files("unified_reward.judge") / "packs" / f"{reference}.yaml"
        return parse_pack(entry.read_text(encoding="utf-8"), origin=f"packs/{reference}.yaml")
    path = Path(reference)
    if not path.is_file():
        near = difflib.get_close_matches(reference, builtin_packs(), n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise UserError(
            field="template", value=reference, why="there is no such file and no pack of that name",
            fix=f"{hint}Packs: {', '.join(builtin_packs())}; or give the path of a YAML file.",
        )  # fmt: skip
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(field="template", value=path, why=f"cannot be read ({error})", fix="Check the file.") from error
    return parse_pack(text, origin=str(path))


def parse_pack(text: str, *, origin: str) -> Pack:
    """A pack from YAML text; `origin` names it in errors."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(field=origin, value=None, why=f"is not YAML ({error})", fix="Mend the file.") from error
    if not isinstance(data, dict):
        raise UserError(field=origin, value=data, why="is not a mapping", fix="Start with name:, version: and tasks:.")
    try:
        return Pack.model_validate(data)
    except ValidationError as error:
        raise _user_error(error, origin) from error


def _template(key: str, value: Any, replacements: dict[Any, Any]) -> PairTemplate | PointTemplate:
    if key not in set(Task):
        near = difflib.get_close_matches(key, [task.value for task in Task], n=1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise _fault(f"tasks.{key}", key, "there is no such task", f"{hint}Tasks: {', '.join(Task)}.")
    task = Task(key)
    if isinstance(value, dict) and isinstance(value.get("prompt"), str):
        prompt = value["prompt"]
        for old in sorted(replacements, key=lambda old: -len(str(old))):  # a text before the texts it contains
            prompt = prompt.replace(str(old), str(replacements[old]))
        value = {**value, "prompt": prompt}
    kind: type[PairTemplate] | type[PointTemplate] = PairTemplate if task.mode is Mode.PAIR else PointTemplate
    try:
        template = kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise _fault(f"tasks.{key}.{_path(first)}", *_reason(first)) from error
    _check_placeholders(template.prompt, task)
    return template


def _check_placeholders(prompt: str, task: Task) -> None:
    field = f"tasks.{task}.prompt"
    used = set(PLACEHOLDER.findall(prompt))
    answers = ANSWERS[task.mode] if task.subject is Subject.UNDERSTANDING else ()
    allowed = {"{prompt}", *MEDIA, *answers}
    if unknown := sorted(used - allowed):
        raise _fault(field, unknown[0], f"{task} has no such placeholder", f"Use {', '.join(sorted(allowed))}.")
    if missing := [name for name in answers if name not in used]:
        raise _fault(field, prompt, f"{missing[0]} is missing, so the judge would not see it", f"Add {missing[0]}.")
    numbered = used & {"{media_1}", "{media_2}"}
    if any(prompt.count(name) > 1 for name in MEDIA) or (numbered and "{media}" in used):
        raise _fault(field, prompt, "it shows media twice", "Use {media}, or {media_1} and {media_2}.")
    if numbered == {"{media_2}"} or (len(numbered) == 1 and task.subject is Subject.GENERATION
                                     and task.mode is Mode.PAIR):  # fmt: skip
        raise _fault(field, prompt, "one of the two items is not shown", "Use both {media_1} and {media_2}.")


def _check_strings(strings: dict[str, str], *, needed: tuple[str, ...], field: str) -> None:
    if missing := [key for key in needed if key not in strings]:
        raise _fault(field, strings, f"{missing[0]!r} has no text", f"Give the text that means {missing[0]!r}.")
    if empty := [key for key, text in strings.items() if not text.strip()]:
        raise _fault(field, strings, f"the text of {empty[0]!r} is empty", "Give the words the judge is to write.")
    if len({text.strip() for text in strings.values()}) < len(strings):
        raise _fault(field, strings, "two verdicts have the same text", "Give each verdict words of its own.")


def _fault(field: str, value: object, why: str, fix: str) -> PydanticCustomError:
    context = {"field": field, "value": value, "why": why, "fix": fix}
    return PydanticCustomError("pack_fault", "{why}", context)


def _path(error: Any) -> str:
    own = error.get("ctx", {}).get("field", "") if error["type"] == "pack_fault" else ""
    return ".".join([*(str(part) for part in error["loc"]), *([own] if own else [])])


def _reason(error: Any) -> tuple[object, str, str]:
    if error["type"] == "pack_fault":
        return error["ctx"]["value"], error["ctx"]["why"], error["ctx"]["fix"]
    if error["type"] == "missing":
        return None, "it is needed", "Add it."
    if error["type"] == "extra_forbidden":
        return error["input"], "there is no such field", "Remove it, or look for a typing error."
    return error["input"], error["msg"][0].lower() + error["msg"][1:], "Correct the value."


def _user_error(error: ValidationError, origin: str) -> UserError:
    first = error.errors()[0]
    value, why, fix = _reason(first)
    return UserError(field=f"{origin}: {_path(first)}", value=value, why=why, fix=fix)
