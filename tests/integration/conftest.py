"""A real MinIO server for the tests that need one; they are skipped, with the reason, where there is no binary."""

from __future__ import annotations

import lzma
import os
import shutil
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKED = ROOT.parent / "shared" / "cluster" / "bin" / "minio.xz"
BUCKET = "unified-reward"
ACCESS_KEY, SECRET_KEY = "tester", "not-a-secret-of-anyone"
START_SECONDS = 60


class MinioServer:
    """One server on a port of its own that can be killed and started again over the same data."""

    def __init__(self, binary: Path, directory: Path) -> None:
        self.binary, self.directory = binary, directory
        self.data = directory / "data"
        (self.data / BUCKET).mkdir(parents=True)  # a folder in the data directory is a bucket
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What a client needs."""
        return {"UR_S3_ENDPOINT": self.endpoint, "AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def start(self) -> None:
        server = {"MINIO_ROOT_USER": ACCESS_KEY, "MINIO_ROOT_PASSWORD": SECRET_KEY, "MINIO_BROWSER": "off"}
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.binary, "server", self.data, "--address", f"127.0.0.1:{self.port}"],
                env={**os.environ, **server, "HOME": str(self.directory)}, stdout=log, stderr=log,
            )  # fmt: skip
        self._wait_until_ready()

    def kill(self) -> None:
        """SIGKILL, as an out-of-memory killer would."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"{self.endpoint}/minio/health/ready", timeout=2):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"MinIO did not start: {(self.directory / 'server.log').read_text()[-2000:]}")


@pytest.fixture(scope="session")
def minio_binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MINIO_BIN, else the packed one beside the repository, else a skip."""
    given = os.environ.get("MINIO_BIN", "")
    if given:
        assert os.access(given, os.X_OK), f"MINIO_BIN is {given}, which is not a program"
        return Path(given)
    if not PACKED.is_file():
        pytest.skip(f"no MinIO: set MINIO_BIN to a minio binary, or put one at ../{PACKED.relative_to(ROOT.parent)}")
    binary = tmp_path_factory.mktemp("minio") / "minio"
    with lzma.open(PACKED) as packed, binary.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked)
    binary.chmod(0o755)
    return binary


@pytest.fixture(scope="session")
def shared_minio(minio_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """One server for all tests that only use it."""
    server = MinioServer(minio_binary, tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


def use(server: MinioServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def minio(shared_minio: MinioServer, monkeypatch: pytest.MonkeyPatch) -> MinioServer:
    """The shared server, named in the environment, so that `s3://` URLs reach it."""
    use(shared_minio, monkeypatch)
    return shared_minio


@pytest.fixture
def own_minio(minio_binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MinioServer]:
    """A server of this test's own, for tests that kill it."""
    server = MinioServer(minio_binary, tmp_path / "minio")
    server.start()
    use(server, monkeypatch)
    yield server
    server.kill()


@pytest.fixture
def s3_url(minio: MinioServer) -> str:
    """An empty store on the shared server."""
    assert minio.process is not None
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["file", "s3"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store, once in a directory and once on MinIO."""
    if request.param == "file":
        return (tmp_path / "store").as_uri()
    url: str = request.getfixturevalue("s3_url")
    return url
