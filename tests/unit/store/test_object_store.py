import hashlib
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.store import NotFound, ObjectStore, open_store


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    return open_store((tmp_path / "a store é%20").as_uri() if request.param == "file" else "memory://")


def test_what_is_put_is_got_and_replaced(store: ObjectStore) -> None:
    store.put("a/b", b"one")
    store.put("a/b", b"three")
    assert store.get("a/b") == b"three"
    found = store.head("a/b")
    assert found is not None
    assert (found.key, found.size) == ("a/b", 5)


def test_a_missing_key_is_not_found(store: ObjectStore) -> None:
    assert store.head("none") is None
    assert not store.exists("none")
    store.delete("none")
    for read in (store.get, store.info, lambda key: store.get_file(key, Path("never"))):
        with pytest.raises(NotFound, match="no object none"):
            read("none")


@pytest.mark.parametrize(("start", "stop"), [(0, 10), (3, 3), (2, 7), (9, 10), (5, 99), (10, 12), (50, 60)])
def test_a_range_is_a_slice(store: ObjectStore, start: int, stop: int) -> None:
    store.put("ten", b"0123456789")
    assert store.get_range("ten", start, stop) == b"0123456789"[start:stop]


def test_of_many_writers_one_wins(store: ObjectStore) -> None:
    for round_ in range(20):
        key = f"won/{round_}"
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i, key=key: store.put_if_absent(key, f"writer {i}".encode()), range(8)))
        assert won.count(True) == 1
        assert store.get(key) == f"writer {won.index(True)}".encode()


def test_same_bytes_again_is_still_not_first(store: ObjectStore) -> None:
    assert store.put_if_absent("k", b"same")
    assert not store.put_if_absent("k", b"same")


def test_a_list_goes_by_the_start_of_the_key(store: ObjectStore) -> None:
    for key in ("a/1", "a/10", "a/b/2", "ab/3", "c"):
        store.put(key, key.encode())
    assert list(store.list()) == ["a/1", "a/10", "a/b/2", "ab/3", "c"]
    assert store.list("a/") == {"a/1": 3, "a/10": 4, "a/b/2": 5}
    assert list(store.list("a/1")) == ["a/1", "a/10"]
    assert list(store.list("a")) == ["a/1", "a/10", "a/b/2", "ab/3"]
    assert store.list("nothing/here/") == {}


def test_files_go_in_and_out_whole(store: ObjectStore, tmp_path: Path) -> None:
    content = bytes(range(256)) * 100_000  # more than a chunk
    (tmp_path / "in").write_bytes(content)
    store.put_file(tmp_path / "in", "big")
    store.get_file("big", tmp_path / "deep" / "out", sha256=hashlib.sha256(content).hexdigest())
    assert (tmp_path / "deep" / "out").read_bytes() == content


def test_a_damaged_file_is_refused_and_leaves_nothing(store: ObjectStore, tmp_path: Path) -> None:
    store.put("bad", b"other bytes")
    with pytest.raises(UserError, match=r"bad is sha256 .* damaged"):
        store.get_file("bad", tmp_path / "to" / "bad", sha256="0" * 64)
    assert list((tmp_path / "to").iterdir()) == []


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/", "./a"])
def test_keys_stay_inside_the_store(store: ObjectStore, key: str) -> None:
    for use in (
        store.get,
        store.info,
        store.delete,
        lambda k: store.put(k, b""),
        lambda k: store.put_if_absent(k, b""),
    ):
        with pytest.raises(ValueError, match="is not a key"):
            use(key)


def test_a_writable_store_is_left_as_it_was(store: ObjectStore) -> None:
    store.check_writable()
    assert store.list() == {}


def test_space_is_asked_for_before_it_is_used(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "s"))
    store.require_space(1)
    with pytest.raises(UserError, match=r"GiB are free there and 1048576.0 GiB are needed"):
        store.require_space(2**50)


def test_a_path_and_its_url_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    open_store("here and/é").put("k", b"v")
    store = open_store((tmp_path / "here and" / "é").as_uri())
    assert store.get("k") == b"v"
    assert open_store(store.url).get("k") == b"v"
    assert pickle.loads(pickle.dumps(store)).get("k") == b"v"


def test_a_named_memory_is_shared_and_an_unnamed_is_not() -> None:
    open_store("memory://shared-by-name").put("k", b"v")
    assert open_store("memory://shared-by-name").get("k") == b"v"
    open_store("memory://").put("k", b"v")
    assert open_store("memory://").list() == {}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "store is not set"),
        ("ftp://me:hunter2@host/dir", "store is ftp://host/dir: stores of kind ftp:// are not known"),
        ("file://dir", "three slashes"),
        ("s3://", "not of the form s3://BUCKET/PREFIX"),
        ("s3://KEY:hunter2@bucket/x", "not of the form"),
    ],
)
def test_a_url_that_names_no_store(url: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        open_store(url)
    assert "hunter2" not in str(raised.value)


def test_a_store_must_be_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it is a file"):
        open_store(str(tmp_path / "file"))
    with pytest.raises(UserError, match="cannot be made"):
        open_store(str(tmp_path / "file" / "below"))
    with pytest.raises(UserError, match="no such directory"):
        open_store(str(tmp_path / "mistyped"), create=False)
    assert not (tmp_path / "mistyped").exists()


def test_an_s3_store_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UR_S3_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY is not set: the store s3://b/p needs it"):
        open_store("s3://b/p")


@pytest.mark.parametrize("endpoint", ["host:9000", "http://me:hunter2@host:9000", "ftp://host"])
def test_an_endpoint_is_an_http_address_without_password(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("UR_S3_ENDPOINT", endpoint)
    with pytest.raises(UserError, match=r"UR_S3_ENDPOINT is .*not an http") as raised:
        open_store("s3://b/p")
    assert "hunter2" not in str(raised.value)
