"""What the operator costs at scale, on fake nodes that run nothing: latency, writes, memory, a restart, a wide job.

    python benchmarks/operator_scale.py --runs 300            judges whose jobs end at once, then a restart
    python benchmarks/operator_scale.py --runs 100 --beside 5000   the same among so many runs that rest (suspended)
    python benchmarks/operator_scale.py --burst 300           so many jobs end while no operator runs, then it starts;
                                                              and a bare client that makes the same jobs
    python benchmarks/operator_scale.py --wide 64             one judge of 64 nodes x 8 GPUs: submitted, reported, cancelled

It needs kubectl, a cluster with the AlignmentRun resource, training-operator and nodes labelled `node-type=fake` (kwok). API
server, scheduler, training-operator and this operator are real; the operator runs here, as a process, in a namespace that
is made and removed. MLflow is a stand-in in this process that answers at once. Times are taken by a watch of this process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from operators.alignmentrun.api import JOBS, PODS, RUNS, Access, Api, ApiError
from operators.alignmentrun.controller import WORKERS

ROOT = Path(__file__).parents[1]
NAMESPACE, PORT, MLFLOW_PORT = "ur-scale", 18080, 15000
STAGES = ("import", "reward-train", "reward-eval")
CREATORS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=0, help="AlignmentRuns made at once")
    parser.add_argument("--beside", type=int, default=0, help="suspended AlignmentRuns that are there before --runs")
    parser.add_argument(
        "--burst", type=int, default=0, help="AlignmentRuns whose first jobs end while no operator runs"
    )
    parser.add_argument("--wide", type=int, default=0, help="nodes of one judge training, 8 GPUs each")
    parser.add_argument("--idle", type=float, default=30.0, help="seconds watched after the end and after the restart")
    arguments = parser.parse_args()
    asyncio.run(_measure(arguments))


async def _measure(arguments: argparse.Namespace) -> None:
    _kubectl("create", "namespace", NAMESPACE)
    try:
        _kubectl("-n", NAMESPACE, "create", "serviceaccount", "ur-jobs")
        async with _mlflow():
            if arguments.runs:
                await _many(arguments.runs, arguments.beside, arguments.idle)
            if arguments.burst:
                await _burst(arguments.burst)
            if arguments.wide:
                await _wide(arguments.wide)
    finally:
        _kubectl("delete", "namespace", NAMESPACE, "--wait=false")


async def _many(count: int, beside: int, idle: float) -> None:
    api = Api(Access.find(), NAMESPACE)
    async with _operator() as operator:
        seen = _Seen()
        if beside:
            await _rest(api, beside)
            print(f"memory {_rss(operator)} MiB with {beside} suspended runs, peak {await _peak()} MiB")
        watch = asyncio.create_task(_watch(api, seen))
        began = time.monotonic()
        await _create(api, [_judge(f"scale-{number:05d}") for number in range(count)])
        print(f"{count} runs made in {time.monotonic() - began:.1f} s")
        while len(seen.succeeded) < count * len(STAGES):
            await asyncio.sleep(1.0)
            if operator.poll() is not None:
                sys.exit(f"the operator ended with {operator.poll()}")
        await _phases(count)
        wall = time.monotonic() - began
        waits = sorted(seen.child_waits())
        print(f"all ended after {wall:.1f} s: {count * len(STAGES) / wall:.1f} jobs/s")
        print(
            f"job succeeded -> next job seen: median {statistics.median(waits):.2f} s, "
            f"p99 {waits[int(0.99 * (len(waits) - 1))]:.2f} s, longest {waits[-1]:.2f} s over {len(waits)}"
        )
        lifetimes = sorted(seen.succeeded[job] - seen.added[job] for job in seen.succeeded if job in seen.added)
        print(
            f"job seen -> succeeded (training-operator, scheduler, kwok): median {statistics.median(lifetimes):.1f} s"
        )
        await _tell_writes(count + beside)
        before = (await _metrics())["unified_reward_api_writes_total"]
        await asyncio.sleep(idle)
        now = (await _metrics())["unified_reward_api_writes_total"]
        print(
            f"writes in {idle:.0f} s of rest: {now - before:.0f}; memory {_rss(operator)} MiB, peak {await _peak()} MiB"
        )
        watch.cancel()
    began = time.monotonic()
    async with _operator() as operator:
        print(f"restarted and ready after {time.monotonic() - began:.1f} s")
        await asyncio.sleep(idle)
        writes = (await _metrics())["unified_reward_api_writes_total"]
        print(
            f"writes {idle:.0f} s after the restart: {writes:.0f}; memory {_rss(operator)} MiB, peak {await _peak()} MiB"
        )
    await api.close()


async def _rest(api: Api, count: int) -> None:
    """So many suspended runs, each told by the operator as suspended."""
    documents = [_judge(f"rest-{number:05d}") for number in range(count)]
    for document in documents:
        document["spec"]["suspend"] = True
    began = time.monotonic()
    await _create(api, documents)
    while (await _metrics()).get('unified_reward_runs{phase="Suspended"}', 0) < count:
        await asyncio.sleep(0.5)
    print(f"{count} suspended runs made and told in {time.monotonic() - began:.1f} s")


async def _burst(count: int) -> None:
    """No training-operator lets so many jobs end at once; an operator that was away finds them so."""
    api = Api(Access.find(), NAMESPACE)
    seen = _Seen()
    watch = asyncio.create_task(_watch(api, seen))
    async with _operator():
        await _create(api, [_judge(f"burst-{number:05d}") for number in range(count)])
        while sum(job.startswith("burst-") for job in seen.added) < count:
            await asyncio.sleep(0.1)
    while sum(job.startswith("burst-") and job.endswith("import-a1") for job in seen.succeeded) < count:
        await asyncio.sleep(1.0)
    before = set(seen.added)
    async with _operator():
        began = time.monotonic()
        while len(seen.added) < len(before) + count:
            await asyncio.sleep(0.05)
        waits = sorted(when - began for job, when in seen.added.items() if job not in before)
        _tell_burst(f"{count} successes found at once -> next job seen", waits)
    peers = [await api.get(JOBS, job) for job in sorted(set(seen.added) - before)]
    before = set(seen.added)
    began = time.monotonic()
    await _create(api, [_bare(job) for job in peers], JOBS, WORKERS)
    while len(seen.added) < len(before) + count:
        await asyncio.sleep(0.05)
    bare = sorted(when - began for job, when in seen.added.items() if job not in before)
    _tell_burst(f"the same {count} jobs, ready-made, from a bare client with as many connections", bare)
    print(f"operator / bare client: {waits[-1] / bare[-1]:.2f}")
    watch.cancel()
    await api.close()


def _tell_burst(what: str, waits: list[float]) -> None:
    p99 = waits[int(0.99 * (len(waits) - 1))]
    print(f"{what}: median {statistics.median(waits):.2f} s, p99 {p99:.2f} s, longest {waits[-1]:.2f} s")


def _bare(job: dict[str, Any]) -> dict[str, Any]:
    """The job as it was sent, of no run."""
    kept = {key: job["metadata"][key] for key in ("labels", "annotations", "namespace") if key in job["metadata"]}
    metadata = {**kept, "name": f"bare-{job['metadata']['name']}"}
    return {"apiVersion": job["apiVersion"], "kind": job["kind"], "metadata": metadata, "spec": job["spec"]}


async def _wide(nodes: int) -> None:
    api = Api(Access.find(), NAMESPACE)
    document = _judge("wide", seconds="20")
    document["spec"]["rewardTrain"] = {
        "processes": nodes * 8, "nodes": nodes, "gpu": 8, "cpu": 16, "memory": "64Gi", "globalBatch": nodes * 8, "steps": 10,
    }  # fmt: skip
    async with _operator() as operator:
        await _create(api, [document])
        began = time.monotonic()
        train = "unifiedreward.dev/run=wide,unifiedreward.dev/stage=reward-train"
        await _until(lambda: _count(api, PODS, train, "Running"), nodes, "all pods run")
        print(f"{nodes} pods of 8 GPUs each run {time.monotonic() - began:.1f} s after the document")
        print(_kubectl("-n", NAMESPACE, "get", "arun", "wide"))
        began = time.monotonic()
        await api.merge(RUNS, "wide", {"spec": {"cancel": True}})
        await _until(lambda: _count(api, PODS, train, ""), 0, "all pods have gone")
        print(f"cancelled: all pods gone after {time.monotonic() - began:.1f} s")
        await _until(lambda: _phase(api, "wide"), "Cancelled", "it says so")
        print(_kubectl("-n", NAMESPACE, "get", "arun", "wide"))
        await _tell_writes(1)
        print(f"memory {_rss(operator)} MiB")
    await api.close()


def _judge(name: str, seconds: str = "0") -> dict[str, Any]:
    """Import, reward-train, reward-eval, as jobs of one pod each that end by themselves."""
    return {
        "apiVersion": "unifiedreward.dev/v1alpha1", "kind": "AlignmentRun", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "rewardTrain": {"processes": 1},
            "cluster": {
                "nodeSelector": {"node-type": "fake"}, "tolerations": [{"key": "node-type", "operator": "Exists"}],
                "annotations": {"fake/seconds": seconds, "fake/exit-code": "0"},
            },
        },
    }  # fmt: skip


async def _create(api: Api, documents: list[dict[str, Any]], path: str = RUNS, connections: int = CREATORS) -> None:
    left = list(reversed(documents))

    async def work() -> None:
        while left:
            await api.create(path, left.pop())

    await asyncio.gather(*(work() for _ in range(connections)))


@dataclass
class _Seen:
    """When a watch told of a job, and of its success, by job name; seconds of a monotonic clock."""

    added: dict[str, float] = field(default_factory=dict)
    succeeded: dict[str, float] = field(default_factory=dict)
    after: dict[str, str] = field(default_factory=dict)

    def note(self, job: dict[str, Any]) -> None:
        name, stage = job["metadata"]["name"], job["metadata"]["labels"]["unifiedreward.dev/stage"]
        run = job["metadata"]["labels"]["unifiedreward.dev/run"]
        self.added.setdefault(name, time.monotonic())
        place = STAGES.index(stage)
        if place:
            self.after[name] = f"{run}-{STAGES[place - 1]}-a1"
        if any(
            each["type"] == "Succeeded" and each["status"] == "True"
            for each in job.get("status", {}).get("conditions", [])
        ):
            self.succeeded.setdefault(name, time.monotonic())

    def child_waits(self) -> list[float]:
        return [
            self.added[job] - self.succeeded[before] for job, before in self.after.items() if before in self.succeeded
        ]


async def _watch(api: Api, seen: _Seen) -> None:
    version = ""
    url = f"{api.access.server}/{JOBS.format(NAMESPACE)}"
    while True:
        query = {"watch": "1", "timeoutSeconds": "3000", **({"resourceVersion": version} if version else {})}
        timeout = aiohttp.ClientTimeout(total=None)
        with contextlib.suppress(aiohttp.ClientError):
            async with api.session.get(
                url, params=query, ssl=api.access.ssl or True, headers=api.access.headers(), timeout=timeout
            ) as answer:
                buffer = b""
                async for chunk in answer.content.iter_any():
                    *lines, buffer = (buffer + chunk).split(b"\n")
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] in ("ADDED", "MODIFIED"):
                            version = event["object"]["metadata"]["resourceVersion"]
                            seen.note(event["object"])


async def _phases(count: int) -> None:
    """Until the operator has told of every run's end."""
    while (await _metrics()).get('unified_reward_runs{phase="Succeeded"}', 0) < count:
        await asyncio.sleep(0.5)


async def _tell_writes(count: int) -> None:
    calls: Counter[str] = Counter()
    for name, value in (await _metrics()).items():
        if name.startswith("unified_reward_api_requests_total") and 'verb="GET"' not in name:
            calls[name.partition("{")[2].rstrip("}")] += int(value)
    total = sum(calls.values())
    print(f"writes: {total} in all, {total / count:.2f} a run")
    for what, number in sorted(calls.items()):
        print(f"  {number:6d}  {what}")


async def _metrics() -> dict[str, float]:
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{PORT}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return {
        name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
    }


async def _peak() -> int:
    return int((await _metrics())["unified_reward_resident_memory_peak_bytes"]) >> 20


def _rss(process: subprocess.Popen[bytes]) -> int:
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


async def _count(api: Api, path: str, selector: str, phase: str) -> int:
    found = [pod async for page, _ in api.pages(path, selector) for pod in page]
    return sum(not phase or pod["status"].get("phase") == phase for pod in found)


async def _phase(api: Api, name: str) -> str:
    return str((await api.get(RUNS, name)).get("status", {}).get("phase", ""))


async def _until(look: Any, wanted: Any, what: str) -> None:
    for _ in range(600):
        with contextlib.suppress(ApiError):
            if await look() == wanted:
                return
        await asyncio.sleep(0.2)
    raise SystemExit(f"{what}: not within 2 minutes; {await look()} instead of {wanted}")


@contextlib.asynccontextmanager
async def _operator() -> AsyncIterator[subprocess.Popen[bytes]]:
    """The operator as a process, ready; ended by SIGTERM."""
    with tempfile.TemporaryDirectory() as directory:
        config, log = Path(directory) / "cluster.yaml", Path(directory) / "log"
        config.write_text(f"trackingUri: http://127.0.0.1:{MLFLOW_PORT}\nstoreSecret: ''\n", encoding="utf-8")
        environment = {
            **os.environ, "UR_NAMESPACE": NAMESPACE, "UR_PORT": str(PORT), "UR_CLUSTER_CONFIG": str(config),
            "PYTHONPATH": str(ROOT),
        }  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen([sys.executable, "-m", "operators.alignmentrun"], env=environment, stderr=out)
        try:
            await _ready(process, log)
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            code = await asyncio.to_thread(process.wait, 60)
            warnings = [line for line in log.read_text().splitlines() if '"level": "INFO"' not in line]
            print(
                f"operator ended with {code} {time.monotonic() - began:.1f} s after SIGTERM; {len(warnings)} warnings"
            )
            print("\n".join(line[:300] for line in warnings[:3]))


async def _ready(process: subprocess.Popen[bytes], log: Path) -> None:
    async with aiohttp.ClientSession() as session:
        while process.poll() is None:
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{PORT}/readyz") as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.1)
    sys.exit(f"the operator ended with {process.returncode}: {log.read_text()[-2000:]}")


@contextlib.asynccontextmanager
async def _mlflow() -> AsyncIterator[None]:
    """The few calls of MLflow's that the operator makes, answered at once from memory."""
    runs: dict[str, dict[str, Any]] = {}

    async def answer(request: web.Request) -> web.Response:
        call = request.match_info["call"]
        body = await request.json() if request.can_read_body else {}
        if call == "experiments/get-by-name":
            return web.json_response({"experiment": {"experiment_id": "1", "lifecycle_stage": "active"}})
        if call == "runs/create":
            info = {"run_id": f"{len(runs):032x}", "status": "RUNNING", "experiment_id": "1"}
            runs[info["run_id"]] = {"info": info, "data": {"tags": body["tags"]}}
            return web.json_response({"run": runs[info["run_id"]]})
        if call == "runs/update":
            runs[body["run_id"]]["info"]["status"] = body["status"]
            return web.json_response({})
        if call == "runs/search":
            wanted = body["filter"].split("'")[1]
            if "attributes.status" in body["filter"].split(" and ")[0]:
                found = [run for run in runs.values() if run["info"]["status"] == wanted]
            else:
                found = [run for run in runs.values() if any(tag["value"] == wanted for tag in run["data"]["tags"])]
            return web.json_response({"runs": found})
        return web.json_response({})

    application = web.Application()
    application.add_routes([web.route("*", "/api/2.0/mlflow/{call:.*}", answer)])
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", MLFLOW_PORT).start()
    try:
        yield
    finally:
        open_ones = sum(run["info"]["status"] == "RUNNING" for run in runs.values())
        print(f"MLflow: {len(runs)} runs were made, {open_ones} of them are still open")
        await runner.cleanup()


def _kubectl(*words: str) -> str:
    done = subprocess.run(["kubectl", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"kubectl {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip()


if __name__ == "__main__":
    main()
