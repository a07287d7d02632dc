"""Leases in an object store: who works on what, so that two processes seldom do the same.

A lease is a chain of objects `<prefix>/_leases/<name>/<n>`. Number n is taken by put-if-absent, so one process gets it; its holder
writes it anew while it works. When its time is over, or its holder is known to be dead, whoever wants the lease takes
number n+1. Clocks that differ, or a pause longer than the lease, can let two work on one thing; the ledger allows that.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from unified_reward.errors import UserError
from unified_reward.store.errors import StoreError
from unified_reward.store.object_store import ObjectStore

LEASE_SECONDS = 120.0
RENEWALS = 4  # within one lease's time, so that a slow answer of the store does not lose it


@dataclass(frozen=True)
class Holder:
    """A process, told from all others. machine: host, boot and pid namespace. started: seconds since the epoch."""

    machine: str
    pid: int
    started: float

    @classmethod
    def this_process(cls) -> Holder:
        return cls(_machine(), os.getpid(), psutil.Process().create_time())

    def is_dead(self) -> bool:
        """True only when that is certain: processes of other machines may live."""
        if self.machine != _machine():
            return False
        try:
            process = psutil.Process(self.pid)
            return process.create_time() != self.started or process.status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True


@dataclass(frozen=True)
class Lease:
    holder: Holder
    expires: float  # seconds since the epoch, by the holder's clock

    def is_over(self) -> bool:
        return time.time() > self.expires or self.holder.is_dead()

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Lease:
        content = json.loads(data)
        return cls(Holder(**content["holder"]), content["expires"])


class Leases:
    """The leases under one prefix, as this process sees them. seconds: how long one lasts without renewal."""

    def __init__(self, store: ObjectStore, prefix: str, seconds: float) -> None:
        self.store, self.prefix, self.seconds = store, prefix, seconds
        self.holder = Holder.this_process()

    @contextmanager
    def hold(self, name: str) -> Iterator[bool]:
        """Hold the lease `name` inside the block and renew it meanwhile. Yields False when another holds it."""
        key = self._take(name)
        if key is None:
            yield False
            return
        stop = threading.Event()
        renewing = threading.Thread(target=self._renew, args=(key, stop), name=f"lease {name}", daemon=True)
        renewing.start()
        try:
            yield True
        finally:
            stop.set()
            renewing.join()
            self._release(key)

    def _take(self, name: str) -> str | None:
        last = max(self._numbers(name), default=-1)
        if last >= 0 and not Lease.from_bytes(self.store.get(self._key(name, last))).is_over():
            return None
        key = self._key(name, last + 1)
        return key if self.store.put_if_absent(key, self._lease().to_bytes()) else None

    def _renew(self, key: str, stop: threading.Event) -> None:
        while not stop.wait(self.seconds / RENEWALS):
            try:
                self.store.put(key, self._lease().to_bytes())
            except (UserError, StoreError):  # the lease may be lost; the worker's own writes will tell why
                continue

    def _release(self, key: str) -> None:
        """End the lease by its time, not by deleting it: a deleted number could be taken twice."""
        self.store.put(key, Lease(self.holder, 0.0).to_bytes())

    def _lease(self) -> Lease:
        return Lease(self.holder, time.time() + self.seconds)

    def _numbers(self, name: str) -> list[int]:
        return [int(key.rpartition("/")[2]) for key in self.store.list(f"{self.prefix}/_leases/{name}/")]

    def _key(self, name: str, number: int) -> str:
        return f"{self.prefix}/_leases/{name}/{number}"


def _machine() -> str:
    """Host, boot and pid namespace: within these three a pid and its start time name one process."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    space = Path("/proc/self/ns/pid")
    return " ".join([
        socket.gethostname(),
        boot.read_text().strip() if boot.exists() else "",
        os.readlink(space) if space.is_symlink() else "",
    ])  # fmt: skip
