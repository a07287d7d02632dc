"""Buckets, users and policies of a MinIO, made as they should be and left alone where they are so already.

    python -m unified_reward.store.minio_setup --grant unified-reward=/secrets/store --grant mlflow=/secrets/mlflow

Each grant makes a bucket and a user who may read and write in it and nowhere else. The directory is a mounted Secret with
the files AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of that user. UR_S3_ENDPOINT, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD
name the server and who changes it. Users of an earlier key of the same grant lose their access, so that a rotated key
is worth nothing. It runs in the operator's image, which has neither torch nor the store's own client.

Orphaned multipart uploads are not handled here: MinIO refuses a lifecycle rule for them and has a server setting instead
(MINIO_API_STALE_UPLOADS_EXPIRY), which the chart sets.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.credentials.providers import StaticProvider
from minio.error import MinioAdminException, S3Error
from minio.minioadmin import MinioAdmin

from unified_reward.errors import EXIT_USER_ERROR, UserError

BUCKET_NAME = re.compile(r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")
SHORTEST_ACCESS_KEY, SHORTEST_SECRET_KEY = 3, 8  # what MinIO accepts
WAIT_SECONDS = 300.0
POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Grant:
    """One bucket and the one user of it."""

    bucket: str
    access_key: str
    secret_key: str = field(repr=False)

    @property
    def policy(self) -> str:
        return f"unified-reward-rw-{self.bucket}"


@dataclass(frozen=True)
class Server:
    """The two clients of one MinIO: its buckets, and its users and policies."""

    buckets: Minio
    admin: MinioAdmin


def read_grant(text: str) -> Grant:
    """From `BUCKET=DIRECTORY`. Raises UserError naming the part that is wrong."""
    bucket, found, directory = text.partition("=")
    if not found or not BUCKET_NAME.match(bucket):
        raise UserError(field="--grant", value=text, why="it is not of the form BUCKET=DIRECTORY with a valid bucket name",
                        fix="Write for example --grant unified-reward=/secrets/store.")  # fmt: skip
    access = _read_key(Path(directory) / "AWS_ACCESS_KEY_ID", SHORTEST_ACCESS_KEY)
    return Grant(bucket, access, _read_key(Path(directory) / "AWS_SECRET_ACCESS_KEY", SHORTEST_SECRET_KEY))


def _read_key(path: Path, shortest: int) -> str:
    try:
        value = path.read_text().strip()
    except OSError as error:
        raise UserError(field=path.name, value=None, why=f"{path} cannot be read ({error.strerror})",
                        fix=f"Give the Secret a key {path.name}.") from None  # fmt: skip
    if len(value) < shortest:
        raise UserError(field=path.name, value=f"{len(value)} characters long", why=f"MinIO asks for {shortest} at least",
                        fix="Change it in the Secret.")  # fmt: skip
    return value


def connect(environment: Mapping[str, str]) -> Server:
    """Clients from UR_S3_ENDPOINT, MINIO_ROOT_USER and MINIO_ROOT_PASSWORD. Asks the server nothing yet. Raises UserError."""
    endpoint = urlsplit(environment.get("UR_S3_ENDPOINT", ""))
    if endpoint.scheme not in ("http", "https") or not endpoint.hostname:
        raise UserError(field="UR_S3_ENDPOINT", value=environment.get("UR_S3_ENDPOINT") or None,
                        why="it is not an http(s) address", fix="Write http://HOST:PORT.")  # fmt: skip
    for name in ("MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"):
        if not environment.get(name):
            raise UserError(field=name, value=None, why="users and policies cannot be made without it",
                            fix=f"Set {name} in the environment, from MinIO's own Secret.")  # fmt: skip
    user, password = environment["MINIO_ROOT_USER"], environment["MINIO_ROOT_PASSWORD"]
    secure = endpoint.scheme == "https"
    # Waiting is done here, by the clock; the library's own retries would hide what is wrong for minutes.
    pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=5, read=30), retries=False)
    return Server(
        buckets=Minio(endpoint.netloc, access_key=user, secret_key=password, secure=secure, http_client=pool),
        admin=MinioAdmin(
            endpoint=endpoint.netloc, credentials=StaticProvider(user, password), secure=secure, http_client=pool
        ),
    )


def wait_until_ready(server: Server, *, seconds: float, sleep: Callable[[float], None] = time.sleep) -> None:
    """Until the server answers and knows its administrator. Raises UserError when it refuses the password or stays away."""
    end = time.monotonic() + seconds
    while True:
        try:
            server.buckets.list_buckets()
            return
        except S3Error as error:
            if error.code in ("InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"):
                raise UserError(field="MINIO_ROOT_PASSWORD", value="refused", why=f"the server answers {error.code}",
                                fix="Use the root user and password that this MinIO was started with.") from None  # fmt: skip
            problem = error.code or str(error)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            problem = str(error)
        if time.monotonic() > end:
            raise UserError(field="UR_S3_ENDPOINT", value="unreachable", why=f"no answer for {seconds:.0f} s ({problem})",
                            fix="Look at the MinIO pod and its log.")  # fmt: skip
        sleep(POLL_SECONDS)


def policy_of(bucket: str) -> dict[str, Any]:
    """Read and write of objects in this one bucket; it can be neither made, nor deleted, nor opened to others."""
    whole, objects = f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Resource": [whole],
             "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"]},
            {"Effect": "Allow", "Resource": [objects],
             "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject",
                        "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"]},
        ],
    }  # fmt: skip


def apply(server: Server, grant: Grant) -> list[str]:
    """Make one grant true and return what was done about it, in words. Can be run again at any time."""
    done = []
    if not server.buckets.bucket_exists(grant.bucket):
        server.buckets.make_bucket(grant.bucket)
        done.append("bucket made")
    server.admin.policy_add(grant.policy, policy=policy_of(grant.bucket))
    server.admin.user_add(grant.access_key, grant.secret_key)
    holders = _holders(server.admin, grant.policy)
    if grant.access_key not in holders:
        server.admin.attach_policy([grant.policy], user=grant.access_key)
        done.append(f"user {grant.access_key} may read and write")
    for former in sorted(holders - {grant.access_key}):
        server.admin.user_remove(former)
        done.append(f"user {former} of an earlier key removed")
    return done


def _holders(admin: MinioAdmin, policy: str) -> set[str]:
    entities = json.loads(admin.get_policy_entities(users=[], groups=[], policies=[policy]))
    return {user for mapping in entities.get("policyMappings") or [] for user in mapping.get("users") or []}


def set_up(server: Server, grants: Sequence[Grant], *, wait_seconds: float) -> None:
    """All grants, with a line on each."""
    wait_until_ready(server, seconds=wait_seconds)
    for grant in grants:
        print(f"{grant.bucket}: {', '.join(apply(server, grant)) or 'as it should be'}", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m unified_reward.store.minio_setup", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--grant", action="append", required=True, metavar="BUCKET=DIRECTORY",
                        help="a bucket, and the directory with the keys of its user; once for each bucket")  # fmt: skip
    parser.add_argument(
        "--wait", type=float, default=WAIT_SECONDS, metavar="SECONDS", help="for the server to be ready"
    )
    options = parser.parse_args(arguments)
    try:
        grants = [read_grant(text) for text in options.grant]
        names = [grant.access_key for grant in grants]
        if len(set(names)) != len(names):
            raise UserError(field="AWS_ACCESS_KEY_ID", value=names[0], why="two grants name the same user, who would get both",
                            fix="Give each Secret a user of its own.")  # fmt: skip
        set_up(connect(os.environ), grants, wait_seconds=options.wait)
    except UserError as error:
        print(error, file=sys.stderr)
        return EXIT_USER_ERROR
    except (MinioAdminException, S3Error) as error:
        print(f"MinIO refuses: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
