"""The object store: a local directory or any S3, immutable artifacts in it, datasets and the ledger of shards.

stages/<stage>/<key>/...          what a stage made; `_stage.json` is written last
<prefix>/_manifest.json           makes the files under <prefix> an artifact; written last, never changed
media/sha256/ab/<digest>          pictures and videos, each once
"""

from unified_reward.store.artifacts import Artifact, open_artifact, resolve, write_artifact
from unified_reward.store.dataset import Dataset, DatasetWriter
from unified_reward.store.ledger import Shard, ShardLedger
from unified_reward.store.object_store import NotFoundError, ObjectInfo, ObjectStore, open_store

__all__ = [
    "Artifact",
    "Dataset",
    "DatasetWriter",
    "NotFoundError",
    "ObjectInfo",
    "ObjectStore",
    "Shard",
    "ShardLedger",
    "open_artifact",
    "open_store",
    "resolve",
    "write_artifact",
]
