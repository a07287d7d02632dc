"""The store on a real MinIO server: what S3 is relied on for, its errors, and the server dying under writes."""

import contextlib
import hashlib
import os
import pickle
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from unified_reward.errors import UserError
from unified_reward.store import NotFound, ObjectStore, S3Access, backends, open_store

MEBIBYTE = 1024 * 1024
BUCKET = "unified-reward"
pytestmark = pytest.mark.integration


@pytest.fixture
def store(s3_url: str) -> ObjectStore:
    return open_store(s3_url)


def test_objects_come_and_go(store: ObjectStore) -> None:
    store.check_writable()
    assert store.list() == {}
    store.put("a/b", b"one")
    store.put("a/b", b"two")
    assert (store.get("a/b"), store.exists("a/b"), store.exists("a")) == (b"two", True, False)
    store.delete("a/b")
    store.delete("a/b")
    with pytest.raises(NotFound):
        store.get("a/b")


def test_keys_that_are_given_go_without_the_token_of_others(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever signed in to a cloud has AWS_SESSION_TOKEN in the environment; MinIO refuses keys it does not belong to."""
    endpoint, key, secret = (os.environ[n] for n in ("UR_S3_ENDPOINT", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "of-another-cloud")
    store = open_store(s3_url, access=S3Access(endpoint, key, secret))
    store.put("k", b"bytes")
    assert pickle.loads(pickle.dumps(store)).get("k") == b"bytes"
    with pytest.raises(UserError, match="does not know these keys"):
        open_store(s3_url).get("k")


def test_of_eight_writers_one_wins(s3_url: str) -> None:
    writers = [open_store(s3_url) for _ in range(8)]
    for round_ in range(10):
        with ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(lambda i, key=f"r/{round_}": writers[i].put_if_absent(key, b"the same bytes"), range(8))
            )
        assert won.count(True) == 1


def test_ranges_are_slices(store: ObjectStore) -> None:
    content = bytes(range(256)) * 40
    store.put("k", content)
    for start, stop in [(0, 1), (100, 5000), (10_000, 99_999), (10_240, 10_241), (20_000, 20_001), (7, 7)]:
        assert store.get_range("k", start, stop) == content[start:stop]
    with pytest.raises(NotFound):
        store.get_range("none", 0, 1)


def test_a_large_file_goes_in_parts_and_comes_back(store: ObjectStore, tmp_path: Path) -> None:
    content = hashlib.shake_128(b"seed").digest(40 * MEBIBYTE + 1)
    (tmp_path / "in").write_bytes(content)
    store.put_file(tmp_path / "in", "big")
    assert store._client.head("big")["e_tag"].endswith('-3"')  # S3 marks an upload of three parts so
    store.get_file("big", tmp_path / "out", sha256=hashlib.sha256(content).hexdigest())
    assert (tmp_path / "out").read_bytes() == content
    assert (
        store.get_range("big", 16 * MEBIBYTE - 2, 16 * MEBIBYTE + 2) == content[16 * MEBIBYTE - 2 : 16 * MEBIBYTE + 2]
    )


def test_a_list_has_more_than_one_page(store: ObjectStore) -> None:
    keys = [f"many/{i:05d}" for i in range(2300)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: store.put(key, b"x"), keys))
    assert list(store.list("many/")) == keys
    assert list(store.list("many/022")) == keys[2200:]


def test_a_missing_bucket_is_named(minio: Any) -> None:
    assert minio.process is not None
    store = open_store("s3://no-such-bucket/p")
    for use in (store.check_writable, lambda: store.put_if_absent("k", b""), lambda: store.get("k"), store.list):
        with pytest.raises(UserError, match="store is s3://no-such-bucket/p: the bucket does not exist"):
            use()


def test_wrong_keys_are_refused_without_being_shown(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter2hunter2")
    store = open_store(s3_url)
    for use in (store.check_writable, lambda: store.put_if_absent("k", b""), lambda: store.get("k"), store.list):
        with pytest.raises(UserError, match=r"AWS_SECRET_ACCESS_KEY|these keys") as raised:
            use()
        assert "hunter2" not in str(raised.value)
        assert raised.value.__cause__ is None


def test_nobody_listening_is_said_soon(minio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setenv("UR_S3_ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert minio.process is not None
        store = open_store(f"s3://{BUCKET}/p", retry_seconds=0.5)
        for use in (lambda: store.put("k", b""), lambda: store.put_if_absent("k", b""), lambda: store.get("k")):
            with pytest.raises(UserError, match=r"cannot be used: no answer came.* Check that the server runs"):
                use()


class LossyProxy:
    """Passes connections on to the server; when told to, it drops answers after the server has given them.

    drops: how many answers to drop. request: only those to requests that begin with this and name an upload.
    silent: the connection stays open then, as that of a server whose machine is gone.
    """

    def __init__(self, port: int) -> None:
        self.target = port
        self.drops, self.dropped, self.request, self.silent = 0, 0, b"", False
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            meant = threading.Event()
            threading.Thread(target=self._pass, args=(client, server, meant), daemon=True).start()
            threading.Thread(target=self._answer, args=(server, client, meant), daemon=True).start()

    def _pass(self, client: socket.socket, server: socket.socket, meant: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                if not self.request or (data.startswith(self.request) and b"uploadId=" in data[:1000]):
                    meant.set()
                server.sendall(data)
        _hang_up(server)

    def _answer(self, server: socket.socket, client: socket.socket, meant: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if self.drops > 0 and meant.is_set():
                    self.drops, self.dropped = self.drops - 1, self.dropped + 1
                    if self.silent:
                        continue
                    break
                client.sendall(data)
        _hang_up(client)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)  # wakes whoever reads from it; closing alone would not
    connection.close()


@pytest.fixture
def proxy(minio: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[LossyProxy]:
    lossy = LossyProxy(minio.port)
    monkeypatch.setenv("UR_S3_ENDPOINT", f"http://127.0.0.1:{lossy.port}")
    yield lossy
    lossy.listener.close()


@pytest.mark.parametrize("drops", [1, 2, 5])
def test_a_conditional_put_whose_answer_is_lost_still_knows_who_won(proxy: LossyProxy, s3_url: str, drops: int) -> None:
    store = open_store(s3_url)
    proxy.drops = drops
    assert store.put_if_absent("mine", b"same bytes")
    assert proxy.dropped == drops
    store.put_if_absent("theirs", b"same bytes")
    proxy.drops = drops
    assert not store.put_if_absent("theirs", b"same bytes")
    assert proxy.dropped == 2 * drops


VERBS: dict[str, Callable[[ObjectStore], object]] = {
    "put": lambda store: store.put("new", b"bytes"),
    "put_if_absent": lambda store: store.put_if_absent("other", b"bytes"),
    "get": lambda store: store.get("there"),
    "get_range": lambda store: store.get_range("there", 0, 2),
    "exists": lambda store: store.exists("there"),
    "list": lambda store: store.list(),
    "delete": lambda store: store.delete("there"),
}


@pytest.mark.parametrize("silent", [False, True], ids=["hangs up", "is silent"])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_survives_answers_that_do_not_come(
    proxy: LossyProxy, s3_url: str, monkeypatch: pytest.MonkeyPatch, verb: str, silent: bool
) -> None:
    monkeypatch.setattr(backends, "READ_TIMEOUT", "1s")
    store = open_store(s3_url)
    store.put("there", b"bytes")
    proxy.drops, proxy.silent = 2, silent
    VERBS[verb](store)
    assert proxy.dropped == 2
    assert store.exists("there") is (verb != "delete")


@pytest.mark.parametrize("request_", [b"PUT", b"POST"], ids=["of its parts", "of its completion"])
def test_a_large_upload_survives_lost_answers(proxy: LossyProxy, s3_url: str, tmp_path: Path, request_: bytes) -> None:
    content = hashlib.shake_128(b"seed").digest(33 * MEBIBYTE)
    (tmp_path / "in").write_bytes(content)
    store = open_store(s3_url)
    proxy.drops, proxy.request = 2, request_
    store.put_file(tmp_path / "in", "big")
    assert proxy.dropped == 2
    assert hashlib.sha256(store.get("big")).digest() == hashlib.sha256(content).digest()


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_under_writes(own_minio: Any) -> None:
    """Each key is written once by one of four writers and contested by another: exactly one True per key."""
    url, keys = f"s3://{BUCKET}/stream", [f"k/{i:04d}" for i in range(400)]
    written = threading.Semaphore(0)

    def write(writer: int) -> dict[str, bool]:
        store, won = open_store(url), {}
        for key in keys if writer % 2 else reversed(keys):
            won[key] = store.put_if_absent(key, b"same bytes by all")
            store.put(f"own/{writer}/{key}", f"{writer} {key}".encode())
            written.release()
        return won

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(write, writer) for writer in range(4)]
        for _ in range(200):
            written.acquire()
        own_minio.kill()
        time.sleep(1)
        own_minio.start()
        won = [future.result() for future in running]

    store = open_store(url)
    assert list(store.list("k/")) == keys
    assert {key: [w[key] for w in won].count(True) for key in keys} == dict.fromkeys(keys, 1)
    assert len(store.list("own/")) == 4 * len(keys)
    with ThreadPoolExecutor(8) as readers:
        names = [(writer, key) for writer in range(4) for key in keys]
        found = list(readers.map(lambda name: store.get(f"own/{name[0]}/{name[1]}"), names))
    assert found == [f"{writer} {key}".encode() for writer, key in names]


def test_a_large_upload_survives_a_killed_server(own_minio: Any, tmp_path: Path) -> None:
    content = hashlib.shake_128(b"seed").digest(96 * MEBIBYTE)
    (tmp_path / "in").write_bytes(content)
    store = open_store(f"s3://{BUCKET}/upload")
    parts = own_minio.data / ".minio.sys" / "multipart"
    with ThreadPoolExecutor(1) as pool:
        upload = pool.submit(store.put_file, tmp_path / "in", "big")
        while not upload.done() and not any(parts.rglob("part.*")):
            time.sleep(0.005)
        assert not upload.done()
        own_minio.kill()
        assert not (own_minio.data / BUCKET / "upload" / "big").exists()
        own_minio.start()
        upload.result()
    store.get_file("big", tmp_path / "out", sha256=hashlib.sha256(content).hexdigest())
