"""The pages of runs in MLflow: each is closed, however its run ended, and an MLflow that is away holds nothing up."""

from __future__ import annotations

import asyncio
import copy

import pytest

from operators.alignmentrun import mlflow
from operators.alignmentrun.api import JOBS, PODS, RUNS

from .cluster import Cluster, rest, until
from .fake_mlflow import Pages, serving
from .world import document, ended, pod_of

pytestmark = pytest.mark.usefixtures("quick")


def test_every_page_is_closed_as_its_run_ends_also_of_runs_deleted_meanwhile() -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            cluster = Cluster(f"http://127.0.0.1:{port}")
            await cluster.operator.start()
            for name in ("good", "bad", "deleted", "orphan"):
                cluster.put_run(document(name), "ADDED")
            await until(lambda: len(cluster.api.objects[JOBS]) == 4)
            assert cluster.status("good")["tracking"]["runId"]
            result = '{"code": 0, "result": {"ahead": {"reward-train": "a", "reward-eval": "b"}}}'
            pod = ended(pod_of(cluster.api.objects[JOBS]["good-import-a1"], 0, 1.8e9), 0, 1.8e9, message=result)
            cluster.operator.saw_pod("ADDED", cluster.api.put(PODS, pod))
            good = copy.deepcopy(cluster.api.objects[JOBS]["good-import-a1"])
            good["status"] = {"conditions": [{"type": "Succeeded", "status": "True"}]}
            cluster.operator.saw_job("MODIFIED", cluster.api.put(JOBS, good))
            cluster.end("bad-import-a1", 2)
            cluster.operator.saw_run("DELETED", cluster.api.objects[RUNS].pop("deleted"))
            await until(
                lambda: (
                    pages.states() == {"good": "FINISHED", "bad": "FAILED", "deleted": "KILLED", "orphan": "RUNNING"}
                )
            )
            await until(lambda: cluster.status("good")["tracking"]["state"] == "FINISHED")
            cluster.api.objects[RUNS].pop("orphan")  # while no operator is there
            await cluster.restart()
            await cluster.operator.tracker.sweep()
            assert pages.states()["orphan"] == "KILLED"
            await cluster.operator.stop()

    asyncio.run(whole())


def test_pages_of_a_run_deleted_with_its_own_experiment_meanwhile_are_closed_however_many_there_are() -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            cluster = Cluster(f"http://127.0.0.1:{port}")
            await cluster.operator.start()
            names = [f"r{number}" for number in range(5)]
            for name in names:
                cluster.put_run(document(name, tracking={"experiment": f"of-{name}"}), "ADDED")
            cluster.put_run(document("r5", tracking={"experiment": "of-r0"}), "ADDED")
            cluster.put_run(document("r6", tracking={"experiment": "of-r0"}), "ADDED")
            await until(lambda: len(pages.runs) == 7)
            for name in [*names, "r5", "r6"]:
                cluster.api.objects[RUNS].pop(name)
            await cluster.restart()
            await cluster.operator.tracker.sweep()
            assert set(pages.states().values()) == {"KILLED"}
            await cluster.operator.stop()

    asyncio.run(whole())


@pytest.mark.parametrize("gone", ["run", "run for good", "experiment", "experiment for good"])
def test_a_page_that_somebody_deleted_is_no_longer_asked_about(gone: str) -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            cluster = Cluster(f"http://127.0.0.1:{port}")
            await cluster.operator.start()
            cluster.put_run(document(), "ADDED")
            await until(lambda: cluster.status().get("tracking"))
            await until(lambda: cluster.api.objects[JOBS])
            if gone.startswith("run"):
                pages.delete_run(next(iter(pages.runs)))
            else:
                pages.delete_experiment("unified-reward", for_good="good" in gone)
            if gone == "run for good":
                pages.runs.clear()
            cluster.end("r-import-a1", 2)
            await until(lambda: cluster.status()["tracking"]["state"] == "FAILED")
            await rest(cluster)
            assert next(e for e in cluster.status()["conditions"] if e["type"] == "TrackingReady")["status"] == "True"
            cluster.put_run(document("another"), "ADDED")
            await until(lambda: cluster.status("another").get("tracking"))
            assert pages.states()["another"] == "RUNNING"
            assert pages.experiments["unified-reward"]["lifecycle_stage"] == "active"
            await cluster.operator.stop()

    asyncio.run(whole())


def test_the_pages_of_another_installation_are_left_alone() -> None:
    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            mine, other = Cluster(f"http://127.0.0.1:{port}"), Cluster(f"http://127.0.0.1:{port}")
            other.operator.tracker.installation = "elsewhere@there"
            await other.operator.start()
            other.put_run(document("theirs"), "ADDED")
            await until(lambda: pages.states() == {"theirs": "RUNNING"})
            await mine.operator.start()
            await mine.operator.tracker.sweep()
            assert pages.states() == {"theirs": "RUNNING"}
            await mine.operator.stop()
            await other.operator.stop()

    asyncio.run(whole())


def test_an_mlflow_that_is_away_holds_nothing_up_and_gets_its_page_later(monkeypatch: pytest.MonkeyPatch) -> None:
    from operators.alignmentrun import tracker

    monkeypatch.setattr(mlflow, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(tracker, "AWAY_SECONDS", 0.1)

    async def whole() -> None:
        pages = Pages()
        async with serving(pages) as port:
            pass  # a port that is free again
        cluster = Cluster(f"http://127.0.0.1:{port}")
        await cluster.operator.start()
        cluster.put_run(document(), "ADDED")
        await until(lambda: cluster.status().get("stages"))

        def ready() -> str:
            return str(
                next(each["status"] for each in cluster.status()["conditions"] if each["type"] == "TrackingReady")
            )

        assert ready() == "False"
        cluster.end("r-import-a1", 2)
        await until(lambda: cluster.status().get("phase") == "Failed")
        async with serving(pages, port):
            await until(lambda: pages.states() == {"r": "FAILED"})
            await until(lambda: ready() == "True")
        await cluster.operator.stop()

    asyncio.run(whole())
