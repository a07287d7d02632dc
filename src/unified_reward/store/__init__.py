"""The object store: a directory, MinIO or any S3, and what is kept in it.

object_store: whole objects under keys. artifacts: immutable outputs with a manifest. dataset: records and media.
ledger: work in shards, each counted exactly once. minio_setup: the buckets and users of a MinIO.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from unified_reward.config.spec import ArtifactRef

if TYPE_CHECKING:
    from unified_reward.store.artifacts import (
        MANIFEST,
        Artifact,
        ArtifactWriter,
        open_artifact,
        resolve,
        upload_directory,
        write_artifact,
    )
    from unified_reward.store.backends import S3Access
    from unified_reward.store.dataset import Dataset, DatasetWriter
    from unified_reward.store.errors import NotFound, StoreError
    from unified_reward.store.ledger import Ledger, Shard
    from unified_reward.store.media import MediaWriter, media_key, put_media, read_media
    from unified_reward.store.object_store import ObjectInfo, ObjectStore, open_store

__all__ = [
    "MANIFEST",
    "Artifact",
    "ArtifactRef",
    "ArtifactWriter",
    "Dataset",
    "DatasetWriter",
    "Ledger",
    "MediaWriter",
    "NotFound",
    "ObjectInfo",
    "ObjectStore",
    "S3Access",
    "Shard",
    "StoreError",
    "media_key",
    "open_artifact",
    "open_store",
    "put_media",
    "read_media",
    "resolve",
    "upload_directory",
    "write_artifact",
]

# Loaded when first asked for: minio_setup runs in an image that has not what the others import.
_HOMES = {
    "Artifact": "artifacts",
    "ArtifactWriter": "artifacts",
    "Dataset": "dataset",
    "DatasetWriter": "dataset",
    "Ledger": "ledger",
    "MANIFEST": "artifacts",
    "MediaWriter": "media",
    "NotFound": "errors",
    "ObjectInfo": "object_store",
    "ObjectStore": "object_store",
    "S3Access": "backends",
    "Shard": "ledger",
    "StoreError": "errors",
    "media_key": "media",
    "open_artifact": "artifacts",
    "open_store": "object_store",
    "put_media": "media",
    "read_media": "media",
    "resolve": "artifacts",
    "upload_directory": "artifacts",
    "write_artifact": "artifacts",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
