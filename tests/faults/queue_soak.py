"""Runs that are queued, worked on and deleted again for as long as one likes, and what the tables come to hold of it.

``python -m tests.faults.queue_soak --minutes 10`` prints a line of figures every few seconds, and fails when the tables and indexes of runs
and events keep growing though the rows do not: the last quarter of the time is held against the one before, when all has settled.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import grpc
import psycopg

from storage_service import embedded
from tests.faults.queue_campaign import Campaign
from tests.faults.queue_workers import OWNER, crew
from tests.service import GrpcApi, ServerProcess

PROCESSES, THREADS = 2, 200
# Runs that wait, or are worked on, and those that have ended and are not deleted yet.
WAITING, KEPT = 100, 1000
# How much more may be used in a quarter than in the one before. What grows with every run grows by a third or more.
MOST_GROWTH = 1.2
# Half a minute: events are swept once a minute.
EVENT_DAYS = str(30 / 86400)
_RELATIONS = (
    "SELECT pg_table_size('langgraph_server.runs'), pg_indexes_size('langgraph_server.runs'),"
    " pg_table_size('langgraph_server.run_events'), pg_indexes_size('langgraph_server.run_events')"
)
_DEAD = (
    "SELECT coalesce(sum(n_dead_tup) FILTER (WHERE relname = 'runs'), 0)::int8,"
    " coalesce(sum(n_dead_tup) FILTER (WHERE relname = 'run_events'), 0)::int8,"
    " coalesce(sum(autovacuum_count), 0)::int8 FROM pg_stat_user_tables"
    " WHERE schemaname = 'langgraph_server' AND relname IN ('runs', 'run_events')"
)
_ROWS = "SELECT (SELECT count(*) FROM langgraph_server.runs), (SELECT count(*) FROM langgraph_server.run_events)"
_DELETE = (
    "DELETE FROM langgraph_server.runs WHERE id IN (SELECT id FROM langgraph_server.runs"
    " WHERE status IN ('success', 'error', 'timeout', 'interrupted') ORDER BY finished_at DESC OFFSET %s)"
)


@dataclass(frozen=True)
class Sample:
    """How things stood at one time. Sizes in KiB."""

    second: int
    claims: int
    runs: int
    events: int
    runs_kib: int
    runs_indexes_kib: int
    events_kib: int
    events_indexes_kib: int
    dead_runs: int
    dead_events: int
    vacuums: int

    @property
    def used(self) -> int:
        """Everything that the tables and their indexes use, in KiB."""
        return self.runs_kib + self.runs_indexes_kib + self.events_kib + self.events_indexes_kib


def growth(samples: list[Sample]) -> float:
    """How much more is used in the last quarter of some samples than in the one before, beyond what the rows themselves grew."""
    quarter = len(samples) // 4
    if not quarter:
        raise ValueError("four samples are the least")
    early, late = samples[-2 * quarter : -quarter], samples[-quarter:]
    rows = [statistics.mean(one.runs + one.events for one in part) for part in (early, late)]
    used = [statistics.mean(one.used for one in part) for part in (early, late)]
    return used[1] / used[0] / max(1.0, rows[1] / rows[0])


async def _sample(connection: psycopg.AsyncConnection[tuple[int, ...]], second: int, claims: int) -> Sample:
    found: list[int] = []
    for statement in (_ROWS, _RELATIONS, _DEAD):
        row = await (await connection.execute(statement)).fetchone()
        assert row is not None
        found += row
    rows, sizes, dead = found[:2], found[2:6], found[6:]
    return Sample(second, claims, *rows, *(size // 1024 for size in sizes), *dead)


async def _feed(campaign: Campaign, threads: list[str]) -> None:
    """Keep so many runs waiting."""
    while True:
        stats = await campaign.call("GetRunStats")
        missing = WAITING - stats.due - stats.leased
        if missing > 0:
            await campaign.admit(missing, threads)
        await asyncio.sleep(0.1)


async def _tidy(url: str) -> None:
    """Delete what ended before the newest that have."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            await connection.execute(_DELETE, (KEPT,))
            await asyncio.sleep(1)


async def soak(url: str, seconds: float, every: float, directory: Path) -> list[Sample]:
    """Work for so long, and sample."""
    dice = random.Random(1)
    environment = {"STORAGE_LEASE_SWEEP_SECONDS": "1", "STORAGE_EVENT_DAYS": EVENT_DAYS}
    server = await asyncio.to_thread(ServerProcess("postgres", url, environment=environment).start)
    samples: list[Sample] = []
    print("  ".join(field.name for field in fields(Sample)))
    try:
        async with (
            grpc.aio.insecure_channel(server.target) as channel,
            await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        ):
            campaign = Campaign([GrpcApi(channel, "postgres", 20)], dice)
            threads = await campaign.prepare(THREADS)
            arguments = ["--workers", "8", "--lease", "5", "--work", "0.05"]
            async with crew(directory, [server.target], arguments, PROCESSES, dice) as workers:
                background = [asyncio.create_task(_feed(campaign, threads)), asyncio.create_task(_tidy(url))]
                began = time.monotonic()
                try:
                    while (second := time.monotonic() - began) < seconds:
                        stats = await campaign.call("GetRunStats")
                        samples.append(await _sample(connection, round(second), stats.claims))
                        print("  ".join(str(value) for value in astuple(samples[-1])), flush=True)
                        await asyncio.sleep(every)
                        for task in background:
                            assert not task.done(), task.exception()
                finally:
                    for task in background:
                        task.cancel()
                    await asyncio.wait(background)
                await workers.stop()
    finally:
        server.kill()
    return samples


async def _main(minutes: float, every: float) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with embedded.running(str(directory / "postgres")) as url:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
                # As often as a minute's test needs it; an installation looks once a minute.
                await connection.execute("ALTER SYSTEM SET autovacuum_naptime = '5s'")
                await connection.execute("SELECT pg_reload_conf()")
            samples = await soak(url, minutes * 60, every, directory)
    factor = growth(samples)
    rate = samples[-1].claims / max(1, samples[-1].second)
    print(f"{rate:.0f} claims a second of {OWNER}; {samples[-1].used} KiB in use, {factor:.2f} times what it was")
    if factor > MOST_GROWTH:
        sys.exit(f"what is in use grew {factor:.2f} times, and may grow {MOST_GROWTH} times")


def main() -> None:
    """Work, print, and fail where the tables grow without end."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.queue_soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--every", type=float, default=5, help="seconds between two samples")
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.minutes, arguments.every))


if __name__ == "__main__":
    main()
