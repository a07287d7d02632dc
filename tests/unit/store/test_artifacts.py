import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from unified_reward.errors import UserError
from unified_reward.store import (
    MANIFEST,
    ArtifactRef,
    ArtifactWriter,
    ObjectStore,
    open_artifact,
    open_store,
    resolve,
    upload_directory,
    write_artifact,
)
from unified_reward.store.backends import connect

FILES: dict[str, bytes | Path] = {"config.json": b"{}", "weights/model.safetensors": b"w" * 1000}


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def test_what_is_written_is_read_by_its_reference(store: ObjectStore) -> None:
    ref = write_artifact(store, "models/a", FILES, "model", {"steps": 3})
    found = open_artifact(store, ref)
    assert (found.kind, dict(found.meta), found.size) == ("model", {"steps": 3}, 1002)
    assert {name: found.read(name) for name in found.files} == FILES
    assert ref.digest == hashlib.sha256(store.get(f"models/a/{MANIFEST}")).hexdigest()
    assert resolve(store, "models/a") == ref


def test_the_same_again_is_the_same_and_other_content_is_refused(store: ObjectStore) -> None:
    ref = write_artifact(store, "models/a", FILES, "model")
    assert write_artifact(store, "models/a", dict(reversed(FILES.items())), "model") == ref
    with pytest.raises(UserError, match="artifact is models/a: it is already committed with other content"):
        write_artifact(store, "models/a", {**FILES, "config.json": b"{1}"}, "model")
    assert open_artifact(store, ref).read("config.json") == b"{}"


def test_an_attempt_that_was_given_up_cannot_spoil_the_one_that_counts(store: ObjectStore) -> None:
    late = ArtifactWriter(store, "models/a", "model")
    ref = write_artifact(store, "models/a", {"weights": b"first"}, "model")
    late.add("weights", b"later")
    with pytest.raises(UserError, match="other content"):
        late.commit()
    assert open_artifact(store, ref).read("weights") == b"first"


def test_without_a_manifest_there_is_no_artifact(store: ObjectStore) -> None:
    write_artifact(store, "stages/train/k1/judge", FILES, "model")
    ArtifactWriter(store, "stages/train/k2/judge", "model").add("config.json", b"{}")
    with pytest.raises(UserError, match=r"k2/judge: it was never committed .* nearby: stages/train/k1/judge\."):
        resolve(store, "stages/train/k2/judge")
    with pytest.raises(UserError, match=r"Run the stage that makes it\."):
        resolve(store, "elsewhere/x")


@pytest.mark.parametrize("prefix", ["", "../outside", "a//b"])
def test_a_prefix_is_names_joined_by_slashes(store: ObjectStore, prefix: str) -> None:
    with pytest.raises(UserError, match="not a prefix in the store"):
        resolve(store, prefix)


def test_another_digest_is_another_artifact(store: ObjectStore) -> None:
    ref = write_artifact(store, "models/a", FILES, "model")
    with pytest.raises(UserError, match=f"models/a is digest {ref.digest[:12]}: digest 000000000000 was asked for"):
        open_artifact(store, ArtifactRef(prefix="models/a", digest="0" * 64))


def test_damage_is_seen(store: ObjectStore, tmp_path: Path) -> None:
    artifact = open_artifact(store, write_artifact(store, "m", FILES, "model"))
    store.put(artifact.key("config.json"), b"[]")
    with pytest.raises(UserError, match="damaged"):
        artifact.read("config.json")
    with pytest.raises(UserError, match="damaged"):
        artifact.materialise(tmp_path / "cache")
    assert not (tmp_path / "cache" / artifact.ref.digest).exists()


def test_a_missing_file_names_those_there_are(store: ObjectStore) -> None:
    artifact = open_artifact(store, write_artifact(store, "m", FILES, "model"))
    with pytest.raises(
        UserError, match=r"file is model.bin: m has no such file. It has: config.json, weights/model.saf"
    ):
        artifact.read("model.bin")


def test_a_directory_comes_back_as_it_was(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.txt").write_text("a")
    (source / "sub" / "b.bin").write_bytes(bytes(range(256)))
    local = open_artifact(store, upload_directory(store, "d", source, "model")).materialise(tmp_path / "cache")
    found = {p.relative_to(local).as_posix(): p.read_bytes() for p in local.rglob("*") if p.is_file()}
    assert found == {"a.txt": b"a", "sub/b.bin": bytes(range(256))}
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no file in it"):
        upload_directory(store, "e", tmp_path / "empty", "model")


class CountingStore(ObjectStore):
    """Counts the files that are brought to this machine."""

    brought = 0
    lock = threading.Lock()

    def get_file(self, key: str, local: Path, *, sha256: str = "") -> None:
        with self.lock:
            self.brought += 1
        super().get_file(key, local, sha256=sha256)


def test_many_materialise_one_copy_and_reuse_what_a_killed_one_left(tmp_path: Path) -> None:
    plain = open_store(str(tmp_path / "store"))
    ref = write_artifact(plain, "m", FILES, "model")
    store = CountingStore(connect(plain.url))
    left = tmp_path / "cache" / f"{ref.digest}.partial"
    left.mkdir(parents=True)
    (left / "config.json").write_bytes(b"{}")
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: open_artifact(store, ref).materialise(tmp_path / "cache"), range(8)))
    assert found == {tmp_path / "cache" / ref.digest}
    assert store.brought == 1  # the weights; config.json was there
    assert not left.exists()


def test_a_changed_local_copy_is_not_used(store: ObjectStore, tmp_path: Path) -> None:
    artifact = open_artifact(store, write_artifact(store, "m", FILES, "model"))
    (artifact.materialise(tmp_path) / "config.json").write_text("edited")
    with pytest.raises(UserError, match="the local copy was changed"):
        artifact.materialise(tmp_path)


def test_a_name_that_leads_out_is_refused(store: ObjectStore) -> None:
    write_artifact(store, "m", {"ok": b"1"}, "model")
    manifest = store.get(f"m/{MANIFEST}").replace(b'"ok"', b'"../../ok"')
    store.put(f"m/{MANIFEST}", manifest)
    evil = ArtifactRef(prefix="m", digest=hashlib.sha256(manifest).hexdigest())
    with pytest.raises(UserError, match="leads out of the artifact"):
        open_artifact(store, evil)
