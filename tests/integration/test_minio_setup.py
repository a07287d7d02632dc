"""The buckets, users and policies that the chart's bootstrap makes, on a real MinIO and by its real command."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from minio import Minio
from minio.error import S3Error
from tests.integration.conftest import ACCESS_KEY, SECRET_KEY, MinioServer

pytestmark = pytest.mark.integration
SECRET = "secret-of-a-test"


def _keys(directory: Path, access: str, secret: str = SECRET) -> Path:
    """A Secret as a pod mounts it."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "AWS_ACCESS_KEY_ID").write_text(access)
    (directory / "AWS_SECRET_ACCESS_KEY").write_text(secret)
    return directory


def _set_up(server: MinioServer | None, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    endpoint = server.endpoint if server else "http://127.0.0.1:9"
    variables = {"UR_S3_ENDPOINT": endpoint, "MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY}
    return subprocess.run(
        [sys.executable, "-m", "unified_reward.store.minio_setup", *arguments],
        env={**variables, **environment}, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def _client(server: MinioServer, access: str, secret: str = SECRET) -> Minio:
    return Minio(f"127.0.0.1:{server.port}", access_key=access, secret_key=secret, secure=False)


def _refusal(attempt: Callable[[], Any]) -> str:
    with pytest.raises(S3Error) as caught:
        attempt()
    return str(caught.value.code)


def test_each_user_has_its_own_bucket_and_nothing_else(own_minio: MinioServer, tmp_path: Path) -> None:
    grants = [
        f"--grant=runs={_keys(tmp_path / 'runs', 'runner')}",
        f"--grant=mlflow={_keys(tmp_path / 'mlflow', 'tracker')}",
    ]
    done = _set_up(own_minio, *grants)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "runs: bucket made, user runner may read and write", "mlflow: bucket made, user tracker may read and write",
    ]  # fmt: skip

    runner = _client(own_minio, "runner")
    runner.put_object("runs", "a/b", io.BytesIO(b"12345"), 5)
    assert [found.object_name for found in runner.list_objects("runs", recursive=True)] == ["a/b"]
    assert runner.get_object("runs", "a/b").read() == b"12345"
    runner.remove_object("runs", "a/b")
    forbidden: list[Callable[[], Any]] = [
        lambda: list(runner.list_objects("mlflow")),
        lambda: runner.put_object("mlflow", "a", io.BytesIO(b"1"), 1),
        lambda: runner.make_bucket("another"),
        lambda: runner.remove_bucket("runs"),
        lambda: runner.set_bucket_policy("runs", "{}"),
    ]
    assert {_refusal(attempt) for attempt in forbidden} == {"AccessDenied"}


def test_a_second_time_changes_nothing(own_minio: MinioServer, tmp_path: Path) -> None:
    grant = f"--grant=runs={_keys(tmp_path / 'runs', 'runner')}"
    _set_up(own_minio, grant)
    _client(own_minio, "runner").put_object("runs", "kept", io.BytesIO(b"1"), 1)
    assert _set_up(own_minio, grant).stdout == "runs: as it should be\n"
    assert _client(own_minio, "runner").get_object("runs", "kept").read() == b"1"


def test_a_rotated_key_ends_the_earlier_one(own_minio: MinioServer, tmp_path: Path) -> None:
    _set_up(own_minio, f"--grant=runs={_keys(tmp_path / 'runs', 'runner')}")
    done = _set_up(own_minio, f"--grant=runs={_keys(tmp_path / 'runs', 'runner2')}")
    assert done.stdout == "runs: user runner2 may read and write, user runner of an earlier key removed\n"
    assert _refusal(lambda: list(_client(own_minio, "runner").list_objects("runs"))) == "InvalidAccessKeyId"
    assert list(_client(own_minio, "runner2").list_objects("runs")) == []

    _set_up(own_minio, f"--grant=runs={_keys(tmp_path / 'runs', 'runner2', 'a-new-secret')}")
    assert _refusal(lambda: list(_client(own_minio, "runner2").list_objects("runs"))) == "SignatureDoesNotMatch"
    assert list(_client(own_minio, "runner2", "a-new-secret").list_objects("runs")) == []


def test_a_wrong_root_password_is_told_at_once_and_not_shown(own_minio: MinioServer, tmp_path: Path) -> None:
    done = _set_up(
        own_minio, f"--grant=runs={_keys(tmp_path / 'runs', 'runner')}", MINIO_ROOT_PASSWORD="wrong-password"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("MINIO_ROOT_PASSWORD is refused: the server answers SignatureDoesNotMatch.")
    assert "wrong-password" not in done.stderr


def test_a_server_that_stays_away_is_told_after_the_wait(tmp_path: Path) -> None:
    done = _set_up(None, "--wait=0.1", f"--grant=runs={_keys(tmp_path / 'runs', 'runner')}")
    assert done.returncode == 2
    assert done.stderr.startswith("UR_S3_ENDPOINT is unreachable: no answer for 0 s")


@pytest.mark.parametrize(
    ("grant", "said"),
    [
        ("runs", "--grant is runs:"),
        ("Runs=/x", "--grant is Runs=/x:"),
        ("runs=/nowhere", "AWS_ACCESS_KEY_ID is not set:"),
    ],
)
def test_a_grant_that_cannot_be_read(grant: str, said: str) -> None:
    done = _set_up(None, f"--grant={grant}")
    assert done.returncode == 2
    assert done.stderr.startswith(said)


def test_two_grants_to_one_user_would_join_their_rights(tmp_path: Path) -> None:
    keys = _keys(tmp_path / "keys", "same")
    done = _set_up(None, f"--grant=runs={keys}", f"--grant=mlflow={keys}")
    assert done.returncode == 2
    assert "two grants name the same user" in done.stderr


def test_it_runs_where_there_is_neither_torch_nor_the_store_s_client() -> None:
    absent = "import sys; sys.modules.update(dict.fromkeys(['torch', 'obstore', 'numpy', 'pyarrow']))"
    code = f"{absent}; import unified_reward.store.minio_setup"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
