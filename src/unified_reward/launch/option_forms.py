"""What the API server would refuse of an option, found before anything is submitted."""

from __future__ import annotations

from typing import Any

from unified_reward.config import forms
from unified_reward.config.forms import Form
from unified_reward.errors import UserError

LARGEST = 2**31 - 1
# Of an option's text, or of its items or keys.
FORMS: dict[str, Form] = {
    "namespace": forms.NAMESPACE, "image": forms.IMAGE, "queue": forms.QUEUE, "priority_class": forms.OBJECT,
    "service_account": forms.OBJECT, "secrets": forms.OBJECT, "image_pull_secrets": forms.OBJECT,
    "node_selector": forms.KEY, "tolerations": forms.KEY, "annotations": forms.KEY, "env": forms.VARIABLE,
    "shm": forms.SIZE, "gpu_resource": forms.RESOURCE,
}  # fmt: skip


def require_form(option: str, value: Any) -> None:
    """value: of the option's type. Raises UserError."""
    if isinstance(value, int) and not 0 <= value <= LARGEST:
        raise UserError(
            field=f"-cfg {option}", value=value, why=f"it is not in 0..{LARGEST}", fix="Choose another number."
        )
    if option not in FORMS or not value:
        return
    for text in [value] if isinstance(value, str) else value:
        _require(option, text, FORMS[option], text.partition(":")[0] if option == "tolerations" else text)
    for text in value.values() if option == "node_selector" else ():
        _require(option, text, forms.LABEL_VALUE, text)


def _require(option: str, given: str, form: Form, text: str) -> None:
    if not form.fits(text):
        raise UserError(
            field=f"-cfg {option}", value=given, why=f"it is {form.else_it_is}", fix=f"As in {form.example}."
        )
