"""Names, keys and sizes as Kubernetes takes them: one pattern each for documents, `-cfg` options and the resource's definition.

A text that does not fit is refused in words, before a job is made that the API server would refuse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, WithJsonSchema

from unified_reward.config.model import fault

_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_NAMED = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"


@dataclass(frozen=True)
class Form:
    """What a text must look like. else_it_is: said of a text that does not fit. blank: whether "" fits."""

    pattern: str
    else_it_is: str
    example: str
    longest: int
    blank: bool = False

    def fits(self, text: str) -> bool:
        if not text:
            return self.blank
        return len(text) <= self.longest and re.fullmatch(self.pattern, text) is not None

    def check(self, text: str) -> str:
        """For pydantic. Raises its form of a `fault`."""
        if not self.fits(text):
            raise fault("", text, f"it is {self.else_it_is}", f"As in {self.example}.")
        return text

    @property
    def anchored(self) -> str:
        """The pattern as a JSON schema has it, of the whole text."""
        return f"^({self.pattern})?$" if self.blank else f"^{self.pattern}$"

    @property
    def schema(self) -> WithJsonSchema:
        return WithJsonSchema({"type": "string", "pattern": self.anchored, "maxLength": self.longest})


# 40: <run>-<stage>-a<NN>-worker-<NNN> must stay a DNS label of 63 characters.
RUN_NAME = Form(
    r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?",
    "no name of at most 40 lower-case letters, digits and dashes that starts with a letter", "shapes", 40,
)  # fmt: skip
NAMESPACE = Form(
    r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "no name of at most 63 lower-case letters, digits and dashes", "ml", 63
)
OBJECT = Form(_SUBDOMAIN, "no name of lower-case letters, digits, dashes and dots", "team-a", 253)
OPTIONAL_OBJECT = Form(_SUBDOMAIN, OBJECT.else_it_is, OBJECT.example, 253, blank=True)
QUEUE = Form(_SUBDOMAIN, "no name of at most 63 lower-case letters, digits, dashes and dots", "team-a", 63, blank=True)
KEY = Form(f"({_SUBDOMAIN}/)?{_NAMED}", "no key of the form [domain/]name", "nvidia.com/gpu.product", 317)
OPTIONAL_KEY = Form(KEY.pattern, KEY.else_it_is, KEY.example, 317, blank=True)
LABEL_VALUE = Form(_NAMED, "no value that a label can have", "ssd", 63, blank=True)
VARIABLE = Form(r"[-._A-Za-z][-._A-Za-z0-9]*", "no name of a variable", "HF_HOME", 253)
RESOURCE = Form(f"{_SUBDOMAIN}/{_NAMED}", "no resource of the form domain/name", "nvidia.com/gpu", 317)
IMAGE = Form(
    r"[^\s@]+(:[^\s/@]+|@sha256:[0-9a-f]{64})", "no image with a tag or a digest", "registry.example/judge:1.2", 512,
    blank=True,
)  # fmt: skip
SIZE = Form(r"[1-9][0-9]*(Mi|Gi|Ti)", "no size in Mi, Gi or Ti", "8Gi", 16, blank=True)

RunName = Annotated[str, AfterValidator(RUN_NAME.check), RUN_NAME.schema]
ObjectName = Annotated[str, AfterValidator(OBJECT.check), OBJECT.schema]
OptionalObjectName = Annotated[str, AfterValidator(OPTIONAL_OBJECT.check), OPTIONAL_OBJECT.schema]
QueueName = Annotated[str, AfterValidator(QUEUE.check), QUEUE.schema]
Key = Annotated[str, AfterValidator(KEY.check), KEY.schema]
OptionalKey = Annotated[str, AfterValidator(OPTIONAL_KEY.check), OPTIONAL_KEY.schema]
LabelValue = Annotated[str, AfterValidator(LABEL_VALUE.check), LABEL_VALUE.schema]
VariableName = Annotated[str, AfterValidator(VARIABLE.check), VARIABLE.schema]
Resource = Annotated[str, AfterValidator(RESOURCE.check), RESOURCE.schema]
Image = Annotated[str, AfterValidator(IMAGE.check), IMAGE.schema]
Size = Annotated[str, AfterValidator(SIZE.check), SIZE.schema]
