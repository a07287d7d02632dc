"""The one exception for what a person can mend: it names the field, its value, why it cannot be, and the way out.

Everything else that is raised is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

EXIT_USER_ERROR = 2  # as argparse and click do
EXIT_AWAY = 75  # as sysexits' EX_TEMPFAIL: what it needs was away, and may be back when it is tried again


class UserError(Exception):
    """A fault in what a person gave us, told in one line.

    field: dotted path of the option or record field (`spec.judge.train.steps`), or the name of the file or service.
    value: what was found there; None when nothing was.
    why: why it cannot be, as a clause.
    fix: the way out, as an imperative sentence.
    exit_code: of a stage that ends of it.
    """

    exit_code = EXIT_USER_ERROR

    def __init__(self, *, field: str, value: object, why: str, fix: str) -> None:
        self.field, self.value, self.why, self.fix = field, value, why, fix
        super().__init__(str(self))

    def __str__(self) -> str:
        shown = "not set" if self.value is None else _shorten(str(self.value))
        return " ".join(f"{self.field} is {shown}: {self.why.rstrip('.')}. {self.fix}".split())

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.field, self.value, self.why, self.fix)


def _rebuild(kind: type[UserError], field: str, value: object, why: str, fix: str) -> UserError:
    return kind(field=field, value=value, why=why, fix=fix)


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
