"""What obstore and S3 say (recorded), and what a person is told."""

import obstore.exceptions as foreign
import pytest

from unified_reward.errors import UserError
from unified_reward.store import NotFound, StoreError
from unified_reward.store.errors import KeysRefused, Unreachable, translate

GENERIC, DENIED = foreign.GenericError, foreign.PermissionDeniedError
PUT = "Error performing PUT http://127.0.0.1:9000/bucket/k in 5ms"
STATUS = f"{PUT} - Server returned non-2xx status code: "
LOCAL = "Generic LocalFileSystem error: Unable to open file /data/k#1: "


def body(code: str) -> str:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><AWSAccessKeyId>AKIASECRET</AWSAccessKeyId></Error>'


@pytest.mark.parametrize(
    ("error", "writing", "kind", "words"),
    [
        (FileNotFoundError(f"{STATUS}404 Not Found: {body('NoSuchKey')}"), False, NotFound, "no object k"),
        (FileNotFoundError("not found: No such file or directory (os error 2)"), False, NotFound, "no object k"),
        (FileNotFoundError(f"{STATUS}404 Not Found: {body('NoSuchUpload')}"), True, NotFound, "no object k"),
        (FileNotFoundError(f"{STATUS}404 Not Found: {body('NoSuchBucket')}"), True, UserError, "bucket does not exist"),
        (GENERIC(f"{STATUS}404 Not Found: {body('NoSuchBucket')}"), False, UserError, "bucket does not exist"),
        (DENIED(f"{STATUS}403 Forbidden: "), False, UserError, "denies access with these keys"),
        (DENIED(f"{STATUS}403 Forbidden: {body('AccessDenied')}"), True, UserError, "refuses writes"),
        (GENERIC(f"{STATUS}403 Forbidden: {body('InvalidAccessKeyId')}"), False, KeysRefused, "does not know these keys"),
        (GENERIC(f"{STATUS}507 Insufficient Storage: {body('XMinioStorageFull')}"), True, UserError, "no space is left"),
        (GENERIC(f"{LOCAL}No space left on device (os error 28)"), True, UserError, "no space is left"),
        (GENERIC(f"{LOCAL}Read-only file system (os error 30)"), True, UserError, "writing there is not permitted"),
        (DENIED(f"{LOCAL}Permission denied (os error 13)"), False, UserError, "reading there is not permitted"),
        (GENERIC(f"{PUT}, after 3 retries - HTTP error: error sending request"), True, Unreachable, "no answer came"),
        (GENERIC(f"{STATUS}503 Service Unavailable: {body('SlowDown')}"), True, Unreachable, "answered with status 503"),
        (GENERIC(f"{LOCAL}Is a directory (os error 21)"), True, StoreError, "write of k in s3://b failed"),
    ],
    ids=lambda value: str(value)[-40:] if isinstance(value, Exception) else None,
)  # fmt: skip
def test_each_error_has_one_meaning(error: Exception, writing: bool, kind: type[Exception], words: str) -> None:
    told = translate(error, "s3://b", "k", writing=writing)
    assert type(told) is kind
    assert words in str(told)
    assert "AKIASECRET" not in str(told)
