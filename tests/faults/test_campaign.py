"""One fault after another, drawn by a seed, under load: nothing acknowledged is lost and every fault is recovered from.

For longer: ``FAULT_SECONDS=600 pytest tests/faults -k campaign``; ``FAULT_SEED`` repeats a run.
"""

from __future__ import annotations

import asyncio
import os
import random
import time

import grpc
import pytest

from tests.faults.cluster import Cluster, freeze, thaw
from tests.faults.load import Load
from tests.faults.proxy import Proxy
from tests.faults.servers import Record, Serve, troubles, until_healthy, until_ok
from tests.faults.test_frozen import backends
from tests.service import GrpcApi

SECONDS = float(os.environ.get("FAULT_SECONDS", "8"))
FAULTS = ("stop", "kill", "restart", "freeze", "freeze one", "reset", "silence", "slow", "cut a commit")


async def inject(fault: str, dice: random.Random, cluster: Cluster, proxy: Proxy, database: str) -> None:
    """Break something for a while, and mend it."""
    seconds = dice.uniform(0.1, 4)
    if fault in ("stop", "kill"):
        await asyncio.to_thread(getattr(cluster, fault))
        await asyncio.sleep(seconds)
        await asyncio.to_thread(cluster.start)
    elif fault == "restart":
        await asyncio.to_thread(cluster.restart)
    elif fault == "freeze":
        cluster.freeze()
        await asyncio.sleep(seconds)
        cluster.thaw()
    elif fault == "freeze one":
        watch, others = await backends(database)
        pid = dice.choice([watch, *others])
        freeze(pid)
        await asyncio.sleep(seconds)
        thaw(pid)
    elif fault == "reset":
        proxy.reset()
    elif fault == "silence":
        proxy.silence()
        await asyncio.sleep(seconds)
    elif fault == "slow":
        proxy.delay = 0.05
        await asyncio.sleep(seconds)
    elif fault == "cut a commit":
        proxy.cut_reply_to(b"load")
    proxy.restore()


@pytest.mark.timeout(SECONDS * 2 + 120)
async def test_campaign(cluster: Cluster, serve: Serve, database: str, owner: str, record_property: Record) -> None:
    seed = int(os.environ.get("FAULT_SEED", "0")) or random.randrange(1, 1_000_000)
    dice = random.Random(seed)
    record_property("seed", seed)
    history: list[tuple[str, float]] = []
    async with Proxy(cluster.port) as proxy:
        url = database.replace(f":{cluster.port}/", f":{proxy.port}/")
        server = await serve(url, environment={"STORAGE_CALL_SECONDS": "2"})
        async with grpc.aio.insecure_channel(server.target) as channel:
            await until_healthy(channel, 10)
            api = GrpcApi(channel, "postgres", timeout=10)
            async with Load(api, owner) as load:
                ends = time.monotonic() + SECONDS
                while time.monotonic() < ends:
                    fault = dice.choice(FAULTS)
                    await load.until_more(20)
                    await inject(fault, dice, cluster, proxy, database)
                    # A look at the database that is under way ends first.
                    history.append((fault, round(await until_ok(api, 6), 2)))
                await until_healthy(channel, 5)
            assert load.codes().keys() <= {"UNAVAILABLE", "DEADLINE_EXCEEDED"}, (seed, history)
            assert max((seconds for seconds, _, _ in load.failures), default=0) < 4, (seed, history)
            assert load.lost(database) == set(), (seed, history)
            assert troubles(server.log) == [], (seed, history)
    record_property("history", history)
