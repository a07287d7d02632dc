"""A stage whose result is there already."""

from __future__ import annotations

import json
import time
from pathlib import Path

from unified_reward.config import Stage, StageSpec
from unified_reward.stages.context import COMMIT, read_pointer
from unified_reward.stages.execute import execute
from unified_reward.store import open_store


def test_a_result_that_another_run_made_is_also_this_runs(tmp_path: Path) -> None:
    store = open_store(tmp_path.as_uri())
    done = {
        "stage": "import", "key": "00000001", "policy": "", "outputs": {}, "metrics": {"n": 1}, "report": {}, "config": {},
        "inputs": {}, "seconds": 1.0, "finished": 1.0,
    }  # fmt: skip
    store.put(f"stages/import/00000001/{COMMIT}", json.dumps(done).encode())
    spec = StageSpec(
        stage=Stage.IMPORT,
        run="second",
        store=tmp_path.as_uri(),
        key="00000001",
        config={},
        work_dir=str(tmp_path / "w"),
    )
    assert execute(spec, started=time.time()).metrics == {"n": 1}
    assert read_pointer(store, "second", "import") == "00000001"
