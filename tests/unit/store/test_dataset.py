import contextlib
import hashlib
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.records import Candidate, Choice, JudgeRecord, Task
from unified_reward.store import Dataset, DatasetWriter, ObjectStore, open_store, resolve, write_artifact
from unified_reward.store.media import MediaCache, media_key, put_media


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def record(number: int, media: str) -> JudgeRecord:
    return JudgeRecord(
        id=f"r{number}", task=Task.IMAGE_GENERATION_PAIR, split="train", source="test", prompt="a red circle é",
        media=[media], choice=Choice.FIRST, score=None, facts={"colour": "right/wrong"},
    )  # fmt: skip


def write(
    store: ObjectStore, prefix: str, count: int, rows_per_shard: int = 4
) -> tuple[list[JudgeRecord], Dataset[JudgeRecord]]:
    records = []
    with DatasetWriter(store, prefix, JudgeRecord, rows_per_shard, {"rows": "said by the user"}) as writer:
        for number in range(count):
            records.append(record(number, writer.add_media(f"pixels {number % 3}".encode())))
            writer.add(records[-1])
        ref = writer.commit()
    return records, Dataset(store, ref, JudgeRecord)


@pytest.mark.parametrize("count", [0, 1, 4, 10])
def test_rows_come_back_in_order(store: ObjectStore, count: int) -> None:
    records, data = write(store, "d", count)
    assert len(data) == count
    assert list(data.records()) == records
    assert [data.row(i) for i in range(count)] == records
    assert data.table(["id"]).column("id").to_pylist() == [r.id for r in records]
    assert data.table().num_rows == count
    assert dict(data.meta) == {"rows": "said by the user"}
    for outside in (-1, count):
        with pytest.raises(IndexError):
            data.row(outside)


def test_the_same_rows_are_the_same_dataset(store: ObjectStore) -> None:
    _, first = write(store, "a", 10)
    _, second = write(store, "b", 10)
    assert first.ref.digest == second.ref.digest
    assert first.ref.digest != write(store, "c", 9)[1].ref.digest


def test_media_are_stored_once_under_their_digest(store: ObjectStore) -> None:
    _, data = write(store, "d", 10)
    digests = [hashlib.sha256(f"pixels {i}".encode()).hexdigest() for i in range(3)]
    assert sorted(store.list("media/")) == sorted(f"media/sha256/{d[:2]}/{d}" for d in digests)
    assert data.media(digests[1]) == b"pixels 1"


def test_a_medium_that_is_there_is_not_written_again(store: ObjectStore) -> None:
    digest = put_media(store, b"seen")
    before = store.info(media_key(digest)).modified
    with DatasetWriter(store, "d", Candidate) as writer:
        assert writer.add_media(b"seen") == digest
        writer.commit()
    assert store.info(media_key(digest)).modified == before
    store.put(media_key(digest), b"cut")  # as a full disk or a power cut may leave it
    assert put_media(store, b"seen") == digest
    assert store.get(media_key(digest)) == b"seen"


def test_damaged_and_missing_media_are_never_given_out(store: ObjectStore) -> None:
    _, data = write(store, "d", 1)
    digest = data.row(0).media[0]
    store.put(media_key(digest), b"other")
    with pytest.raises(UserError, match="damaged"):
        data.media(digest)
    store.delete(media_key(digest))
    with pytest.raises(UserError, match=f"media is {digest}: .* has no such medium"):
        data.media(digest)
    with pytest.raises(UserError, match="not a sha256"):
        data.media("../../etc/passwd")


def test_the_media_cache_keeps_the_latest_within_its_limit(store: ObjectStore) -> None:
    digests = [put_media(store, bytes([i]) * 100) for i in range(4)]
    cache = MediaCache(store, limit=250)
    for digest in (digests[0], digests[1], digests[0], digests[2]):
        cache.get(digest)
    for digest in digests:
        store.delete(media_key(digest))
    assert cache.get(digests[0]) == bytes([0]) * 100
    assert cache.get(digests[2]) == bytes([2]) * 100
    for gone in (digests[1], digests[3]):
        with pytest.raises(UserError, match="no such medium"):
            cache.get(gone)


def test_leaving_without_commit_or_by_an_error_makes_no_dataset(store: ObjectStore) -> None:
    with DatasetWriter(store, "left", JudgeRecord, rows_per_shard=1) as writer:
        writer.add(record(0, writer.add_media(b"x")))
    with (
        contextlib.suppress(ZeroDivisionError),
        DatasetWriter(store, "failed", JudgeRecord, rows_per_shard=1) as writer,
    ):
        writer.add(record(0, writer.add_media(b"x")))
        raise ZeroDivisionError
    for prefix in ("left", "failed"):
        with pytest.raises(UserError, match="never committed"):
            resolve(store, prefix)
    with pytest.raises(RuntimeError, match="committed or left"):
        writer.add(record(0, "0" * 64))


def test_rows_may_not_name_media_that_are_not_stored(store: ObjectStore) -> None:
    earlier = put_media(store, b"from another dataset")
    with DatasetWriter(store, "d", JudgeRecord) as writer:
        writer.add(record(0, earlier))
        writer.add(record(1, "ab" * 32))
        with pytest.raises(UserError, match=f"media is {'ab' * 32}: rows name 1 media"):
            writer.commit()
    with pytest.raises(UserError, match="never committed"):
        resolve(store, "d")


def test_a_medium_that_cannot_be_stored_stops_the_writer(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "store"))
    (tmp_path / "store" / "media").write_text("a file where a folder must be")
    with DatasetWriter(store, "d", JudgeRecord) as writer:
        writer.add_media(b"x")
        with pytest.raises(RuntimeError, match="Not a directory"):
            writer.commit()


def test_a_dataset_of_another_kind_is_refused(store: ObjectStore) -> None:
    _, data = write(store, "d", 1)
    with pytest.raises(UserError, match="d is a JudgeRecord dataset: a Candidate dataset is needed"):
        Dataset(store, data.ref, Candidate)
    with pytest.raises(UserError, match="m is a model: a Candidate dataset is needed"):
        Dataset(store, write_artifact(store, "m", {"f": b""}, "model"), Candidate)
    with (
        DatasetWriter(store, "e", Candidate) as writer,
        pytest.raises(TypeError, match="holds Candidate, not JudgeRecord"),
    ):
        writer.add(data.row(0))  # type: ignore[arg-type]
