"""What the API server would refuse of an option, found before anything is submitted. Kubernetes' rules for names and labels."""

from __future__ import annotations

import re
from typing import Any

from unified_reward.errors import UserError

LARGEST = 2**31 - 1
SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
NAMED = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
NAMES = ("queue", "priority_class", "service_account", "secrets", "image_pull_secrets")
KEYS = {"node_selector": "disk:ssd", "annotations": "example.com/team:a", "tolerations": "nvidia.com/gpu::NoSchedule"}
# Of an option's text, or of its items or keys: a pattern, what it is where it does not fit, an example.
FORMS: dict[str, tuple[str, str, str]] = {
    "namespace": (
        r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", "no name of at most 63 lower-case letters, digits and dashes", "ml",
    ),
    "gpu_resource": (f"{SUBDOMAIN}/{NAMED}", "no resource of the form domain/name", "nvidia.com/gpu"),
    "env": (r"[-._A-Za-z][-._A-Za-z0-9]*", "no name of a variable", "NAME:value"),
    **dict.fromkeys(NAMES, (SUBDOMAIN, "no name of lower-case letters, digits, dashes and dots", "team-a")),
    **{name: (f"({SUBDOMAIN}/)?{NAMED}", "no key of the form [domain/]name", example) for name, example in KEYS.items()},
}  # fmt: skip


def require_form(option: str, value: Any) -> None:
    """value: of the option's type. Raises UserError."""
    if isinstance(value, int) and not 0 <= value <= LARGEST:
        raise _refused(option, value, f"not in 0..{LARGEST}", "Choose another number.")
    if option not in FORMS or not value:
        return
    pattern, else_it_is, example = FORMS[option]
    for text in [value] if isinstance(value, str) else value:
        asked = text.partition(":")[0] if option == "tolerations" else text
        if not re.fullmatch(pattern, asked):
            raise _refused(option, text, else_it_is, f"As in {example}.")
    for text in value.values() if option == "node_selector" else ():
        if text and not re.fullmatch(NAMED, text):
            raise _refused(option, text, "no value that a label can have", f"As in {example}.")


def _refused(option: str, value: object, else_it_is: str, fix: str) -> UserError:
    return UserError(field=f"-cfg {option}", value=value, why=f"it is {else_it_is}", fix=fix)
