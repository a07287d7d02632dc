"""The object store: a directory, MinIO or any S3, and what is kept in it.

object_store: whole objects under keys. artifacts: immutable outputs with a manifest. dataset: records and media.
ledger: work in shards, each counted exactly once.
"""

from unified_reward.config.spec import ArtifactRef
from unified_reward.store.artifacts import (
    MANIFEST,
    Artifact,
    ArtifactWriter,
    open_artifact,
    resolve,
    upload_directory,
    write_artifact,
)
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
