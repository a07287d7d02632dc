"""The one place where an object store's errors become ours: a person's to mend (UserError), no such key, or a fault."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import obstore.exceptions as foreign

from unified_reward.errors import EXIT_AWAY, UserError

OS_ERROR = re.compile(r"\(os error (\d+)\)")
STATUS = re.compile(r"status code: (\d{3})")
S3_CODE = re.compile(r"<Code>(\w+)</Code>")

NO_SPACE = {28, 122}  # ENOSPC, EDQUOT
REFUSED = {1, 13, 30}  # EPERM, EACCES, EROFS
UNREACHABLE_WORDS = ("error sending request", "HTTP error", "timed out", "connection closed", "error decoding response")


class NotFound(FileNotFoundError):
    """There is no object under this key."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"no object {key}")


class StoreError(RuntimeError):
    """The store failed in a way that neither the caller nor the person caused."""


class Unreachable(UserError):
    """No answer within the retry time, or only server errors. Whether a write arrived is unknown."""

    exit_code = EXIT_AWAY


class KeysRefused(UserError):
    """The store does not know the keys: wrong ones, or changed under a running job, whose next attempt gets the new ones."""

    exit_code = EXIT_AWAY


@contextmanager
def translated(url: str, key: str, *, writing: bool = False) -> Iterator[None]:
    """Raise our exception for each one that obstore raises inside.

    The foreign one is not chained: S3 answers can carry access keys and signatures.
    """
    try:
        yield
    except (foreign.BaseError, OSError) as error:
        if isinstance(error, (NotFound, foreign.AlreadyExistsError)):
            raise
        raise translate(error, url, key, writing=writing) from None


def translate(error: Exception, url: str, key: str, *, writing: bool = False) -> Exception:
    """Our exception for one of obstore's. url: the store's, which never holds credentials."""
    text = str(error)
    system, status, code = _first(OS_ERROR, text), _first(STATUS, text), _first(S3_CODE, text)
    if code == "NoSuchBucket" or (status == "404" and writing and code != "NoSuchUpload"):
        return _user(url, "the bucket does not exist", "Create the bucket, or name one that exists")
    if isinstance(error, (FileNotFoundError, foreign.NotFoundError)):
        return NotFound(key)
    if status == "507" or "StorageFull" in code or (system and int(system) in NO_SPACE):
        return _user(url, "no space is left there", "Free some space, or choose a store with more room")
    if isinstance(error, PermissionError) or (system and int(system) in REFUSED):
        return _user(url, f"{'writing' if writing else 'reading'} there is not permitted",
                     "Give this user access to the directory, or choose another store")  # fmt: skip
    if status in ("401", "403") or isinstance(error, (foreign.PermissionDeniedError, foreign.UnauthenticatedError)):
        return _refused(url, code, writing=writing)
    if is_unreachable(text):
        answer = f"it answered with status {status}" if status else "no answer came"
        return Unreachable(field="store", value=url, why=f"it cannot be used: {answer}",
                           fix="Check that the server runs and that UR_S3_ENDPOINT is its address")  # fmt: skip
    return StoreError(f"{'write' if writing else 'read'} of {key} in {url} failed: {text.splitlines()[0][:300]}")


def is_unreachable(text: str) -> bool:
    """Whether an error's text says that the request or its answer was lost on the way, or that the server is ill."""
    status = _first(STATUS, text)
    return status.startswith("5") or (not status and any(word in text for word in UNREACHABLE_WORDS))


def _refused(url: str, code: str, *, writing: bool) -> UserError:
    if code in ("InvalidAccessKeyId", "SignatureDoesNotMatch"):
        return KeysRefused(field="store", value=url, why="it does not know these keys",
                           fix="Check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")  # fmt: skip
    right = "refuses writes with these keys" if writing else "denies access with these keys"
    return _user(url, f"the store {right}", "Use keys that may read and write this bucket")


def _user(url: str, why: str, fix: str) -> UserError:
    return UserError(field="store", value=url, why=why, fix=f"{fix}.")


def _first(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    return found.group(1) if found else ""
