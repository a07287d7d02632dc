"""What the service is asked and what it answers. Media are data URLs, bare base64, or addresses where allowed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from unified_reward.errors import UserError
from unified_reward.judge import Query
from unified_reward.records import Modality, Mode, Subject, Task


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Item(_Asked):
    """What is judged: media made for a caption, or answers to a question about media."""

    caption: str = Field("", description="what was to be made; give this or question")
    question: str = Field("", description="what was asked about the media")
    images: list[str] = Field(default_factory=list, description="pictures: data URL or base64; give these or videos")
    videos: list[str] = Field(default_factory=list, description="clips: data URL or base64")
    answers: list[str] = Field(default_factory=list, description="with question: one to score, two to compare")

    def modality(self) -> Modality:
        return Modality.VIDEO if self.videos else Modality.IMAGE

    def media(self) -> list[str]:
        return self.videos or self.images

    def query(self, mode: Mode, media: tuple[str, ...], where: str) -> Query:
        """The judge's question; media: digests. Raises UserError naming the field."""
        judged = 2 if mode is Mode.PAIR else 1
        if bool(self.caption) == bool(self.question):
            raise UserError(field=f"{where}.caption", value=self.caption or None, why="an item has a caption or a question",
                            fix="Give one of the two.")  # fmt: skip
        if bool(self.images) == bool(self.videos):
            raise UserError(field=f"{where}.images", value=len(self.images), why="an item has images or videos",
                            fix="Give one of the two.")  # fmt: skip
        if self.caption and self.answers:
            raise UserError(field=f"{where}.answers", value=len(self.answers), why="a caption has no answers",
                            fix="Leave them out, or give a question.")  # fmt: skip
        if self.caption and len(media) < judged:
            raise UserError(field=f"{where}.{self.modality()}s", value=len(media), why=f"{judged} are judged together",
                            fix=f"Give {judged}; what stands before them is context.")  # fmt: skip
        if self.question and len(self.answers) != judged:
            raise UserError(field=f"{where}.answers", value=len(self.answers), why=f"{judged} are judged together",
                            fix=f"Give {judged}.")  # fmt: skip
        subject = Subject.GENERATION if self.caption else Subject.UNDERSTANDING
        return Query(Task.of(self.modality(), subject, mode), self.caption or self.question, media, tuple(self.answers))


class Judged(_Asked):
    """A request of /v1/score or /v1/compare. Rationales and log-probs are told only where asked for."""

    items: list[Item] = Field(min_length=1)
    details: bool = Field(False, description="with rationales and log-probs")


class Score(BaseModel):
    score: float | None = Field(description="expected value on the scale; null where no score could be read")
    scale: tuple[float, float]
    aspects: dict[str, float]
    rationale: str | None = None
    logprobs: dict[str, float] | None = None


class Scores(BaseModel):
    model: str
    scores: list[Score]


class Comparison(BaseModel):
    verdict: Literal["1", "2", "tie", "unparsed"]
    p_first: float | None = Field(description="probability that the first is better, both orders averaged")
    p_first_shown_first: float | None
    p_first_shown_second: float | None
    contradictory: bool = Field(description="the two orders name different items")
    rationale: str | None = None
    rationale_swapped: str | None = None
    logprobs: dict[str, float] | None = None


class Comparisons(BaseModel):
    model: str
    comparisons: list[Comparison]


class Fault(BaseModel):
    """Why a request was refused."""

    message: str = Field(description="all of it in one line")
    type: str = Field(description="invalid_request_error, rate_limit_error or server_error")
    param: str = Field(description="the field at fault, like items[3].images[0]")
    code: int = Field(description="the status of the answer")
    value: str | None = Field(description="what was given there, cut short")
    why: str
    fix: str


class Refused(BaseModel):
    """The body of every 4xx and 503 of /v1."""

    error: Fault


class Url(_Asked):
    url: str
    detail: str = ""


class Part(_Asked):
    type: Literal["text", "image_url", "video_url"]
    text: str = ""
    image_url: Url | None = None
    video_url: Url | None = None


class Message(_Asked):
    role: Literal["user"]
    content: str | list[Part]


class Chat(_Asked):
    """OpenAI's chat completion, as far as a judge needs it: one message of the user; no streaming, no tools."""

    model: str = ""
    messages: list[Message] = Field(min_length=1, max_length=1)
    max_tokens: int | None = Field(None, ge=1, le=32768)
    max_completion_tokens: int | None = Field(None, ge=1, le=32768)
    temperature: float = Field(1.0, ge=0, le=2)
    n: int = Field(1, ge=1, le=64)
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: Literal[False] = False
    user: str = ""

    def parts(self) -> list[Part]:
        content = self.messages[0].content
        return [Part(type="text", text=content)] if isinstance(content, str) else content


def chat_answer(name: str, texts: list[tuple[str, bool]], created: int, id_: str) -> dict[str, Any]:
    """texts: (text, finished) of each choice."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop" if ended else "length"}
        for i, (text, ended) in enumerate(texts)
    ]
    return {"id": id_, "object": "chat.completion", "created": created, "model": name, "choices": choices}
