"""Workers that are killed and frozen, and servers that die: no lease is given twice, no end or event of a stale one counts, none is lost.

For longer: ``QUEUE_RUNS=20000 QUEUE_PROCESSES=32 pytest tests/faults/test_queue_faults.py``; ``QUEUE_SEED`` repeats what a run draws. The
figures are properties of the tests in what ``-o junit_family=xunit1 --junitxml=FILE`` writes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import grpc
import pytest

from tests.faults.queue_campaign import Campaign, refusals
from tests.faults.queue_histories import leases_of
from tests.faults.queue_workers import Crew, crew
from tests.faults.servers import Record, Serve, troubles
from tests.postgres_server import MakeDatabase
from tests.service import GrpcApi, ServerProcess

RUNS = int(os.environ.get("QUEUE_RUNS", "200"))
PROCESSES = int(os.environ.get("QUEUE_PROCESSES", "4"))
THREADS = max(20, RUNS // 20)
# Each costs the start of a process, or the time of a lease: so many at most.
FAULTS = max(20, RUNS // 10)
ATTEMPTS = 5
LEASE = 0.6
# All take longer on a machine that is busy.
MOST_SECONDS = 60 + RUNS / 20
SERVER = {
    "STORAGE_LEASE_SWEEP_SECONDS": "0.2",
    "STORAGE_RUN_ATTEMPTS": str(ATTEMPTS),
    "DATABASE_POOL_MAX_SIZE": "20",
}
pytestmark = pytest.mark.timeout(MOST_SECONDS * 2 + 120)


@contextlib.asynccontextmanager
async def campaign_at(servers: Sequence[ServerProcess], dice: random.Random) -> AsyncIterator[Campaign]:
    """A campaign at some servers."""
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(grpc.aio.insecure_channel(server.target, options=options))
            for server in servers
        ]
        apis = [GrpcApi(channel, server.backend, 5) for channel, server in zip(channels, servers, strict=True)]
        yield Campaign(apis, dice, channels)


class Restarts:
    """Kills one server after the other, and starts it again on its port, within its block."""

    def __init__(self, servers: list[ServerProcess], serve: Serve, dice: random.Random) -> None:
        self.servers = servers
        self.count = 0
        self._serve = serve
        self._dice = dice
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None]

    async def __aenter__(self) -> Restarts:
        self._task = asyncio.create_task(self._keep_restarting())
        return self

    async def __aexit__(self, *_: object) -> None:
        # With all of them running.
        self._ended.set()
        await self._task

    async def _keep_restarting(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self._dice.uniform(0.3, 2))
            if self._ended.is_set():
                return
            number = self._dice.randrange(len(self.servers))
            former = self.servers[number]
            await asyncio.to_thread(former.kill)
            await asyncio.sleep(self._dice.uniform(0, 0.5))
            self.servers[number] = await self._serve(
                former.database_url, environment=former.environment, port=former.port
            )
            self.count += 1


async def work_off(campaign: Campaign, crew: Crew, runs: int) -> None:
    """Queue runs while a crew works on them, some of them at first, and wait until all have ended."""
    threads = await campaign.prepare(THREADS)
    admitting = asyncio.create_task(campaign.admit(runs, threads))
    breaking = asyncio.create_task(crew.keep_disturbing(2.5 * LEASE, 0.25, FAULTS))
    await admitting
    # Not to the last run: then all would wait for leases alone.
    while (await campaign.call("CountRuns", statuses=[1])).count > runs * 0.05:
        await asyncio.sleep(0.2)
        assert not breaking.done(), breaking.exception()
    breaking.cancel()
    await asyncio.wait([breaking])
    await campaign.until_ended(MOST_SECONDS)
    await crew.stop()


@pytest.mark.parametrize("backend", ["memory", "postgres", "replicas"])
async def test_workers_that_die_and_freeze(
    backend: str, serve: Serve, make_database: MakeDatabase, tmp_path: Path, record_property: Record
) -> None:
    seed = int(os.environ.get("QUEUE_SEED", "0")) or random.randrange(1, 1_000_000)
    dice = random.Random(seed)
    url = "" if backend == "memory" else make_database()
    servers = [await serve(url, environment=SERVER) for _ in range(2 if backend == "replicas" else 1)]
    began = time.monotonic()
    restarts = Restarts(servers, serve, dice)
    async with (
        campaign_at(servers, dice) as campaign,
        crew(
            tmp_path, [server.target for server in servers], ["--lease", str(LEASE), "--slow", "0.01"], PROCESSES, dice
        ) as workers,
    ):
        async with restarts if backend == "replicas" else contextlib.nullcontext():
            await work_off(campaign, workers, RUNS)
        leases = leases_of(workers.leased_entries())
        wrong = await campaign.check(leases, ATTEMPTS)
    assert wrong == [], (seed, wrong[:20])
    assert [line for server in servers for line in troubles(server.log)] == []
    refused = refusals(leases)
    # The campaign has done what it is for: leases were lost, and those who had them went on and were refused.
    assert refused.total() > 0, seed
    assert len(leases) > RUNS, seed
    assert restarts.count > 0 or backend != "replicas", seed
    record_property("seed", seed)
    record_property("leases", len(leases))
    record_property("faults", workers.counts | {"restarts": restarts.count})
    record_property("refused", dict(refused))
    record_property("seconds", round(time.monotonic() - began, 1))
