"""Schedulers that are killed and frozen, servers that die and clocks that jump: each tick of a cron makes one run.

For longer: ``CRON_TICKS=2000 pytest tests/faults/test_cron_faults.py``; ``CRON_SEED`` repeats what a run draws.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import struct
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from agentstorage.v1 import crons_pb2
from tests.faults.queue_campaign import ASSISTANT, Campaign
from tests.faults.queue_histories import check_ticks
from tests.faults.queue_workers import Crew, crew
from tests.faults.servers import Record, Serve, troubles, until
from tests.faults.test_queue_faults import Restarts, campaign_at
from tests.postgres_server import MakeDatabase

TICKS = int(os.environ.get("CRON_TICKS", "60"))
CRONS = min(40, TICKS // 6)
SCHEDULERS = 4
HOUR = 3600.0
# What one round may take: servers die, and come back, within it.
MOST_SECONDS = 30.0
SHIFTED = Path(__file__).parent / "shifted"
pytestmark = pytest.mark.timeout(TICKS + 120)


class Clock:
    """The wall clock of some servers, which are started with its environment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.seconds = 0.0
        path.write_bytes(bytes(8))
        self.environment = {
            "PYTHONPATH": str(SHIFTED),
            "SHIFTED_CLOCK": str(path),
            "STORAGE_CRON_SECONDS": "0.2",
        }

    def jump(self, seconds: float) -> None:
        """Set it forward, or back."""
        self.seconds += seconds
        with self._path.open("r+b", buffering=0) as file:
            file.write(struct.pack("d", self.seconds))


@contextlib.asynccontextmanager
async def at_work(
    servers: Sequence[str], directory: Path, dice: random.Random
) -> AsyncIterator[tuple[Crew, asyncio.Task[None]]]:
    """Schedulers that are disturbed until the block ends."""
    async with crew(directory, servers, ["--schedule"], SCHEDULERS, dice) as schedulers:
        breaking = asyncio.create_task(schedulers.keep_disturbing(0.5, 0.15, 2 * TICKS))
        try:
            yield schedulers, breaking
        finally:
            breaking.cancel()
            await asyncio.wait([breaking])
        await schedulers.stop()


async def crons_of(campaign: Campaign) -> dict[str, crons_pb2.Cron]:
    """Every cron by its id."""
    return {cron.cron_id: cron for cron in await campaign.all("SearchCrons", "crons")}


async def made_by(campaign: Campaign) -> list[tuple[str, int, str]]:
    """What ticks made which runs."""
    runs = await campaign.all("SearchRuns", "runs")
    assert all(run.cron_id for run in runs)
    return [(run.cron_id, run.cron_tick.ToMicroseconds(), run.run_id) for run in runs]


def told_to(schedulers: Crew) -> Iterator[tuple[str, int, str]]:
    """What schedulers were told that they fired."""
    for entry in schedulers.entries():
        if entry["what"] == "fired" and entry["outcome"] == crons_pb2.TICK_OUTCOME_FIRED:
            yield entry["cron"], entry["tick"], entry["run"]


async def test_a_tick_makes_one_run(
    serve: Serve, make_database: MakeDatabase, tmp_path: Path, record_property: Record
) -> None:
    seed = int(os.environ.get("CRON_SEED", "0")) or random.randrange(1, 1_000_000)
    dice = random.Random(seed)
    url, clock, began = make_database(), Clock(tmp_path / "clock"), time.monotonic()
    servers = [await serve(url, environment=clock.environment) for _ in range(2)]
    # By itself it ticks half a year from now.
    far = datetime.now(UTC) + timedelta(days=180)
    schedule = f"0 0 {min(far.day, 28)} {far.month} *"
    expected: set[tuple[str, int]] = set()
    again = 0
    restarts = Restarts(servers, serve, dice)
    async with (
        campaign_at(servers, dice) as campaign,
        at_work([server.target for server in servers], tmp_path, dice) as (schedulers, breaking),
        await psycopg.AsyncConnection.connect(url, autocommit=True) as conn,
    ):
        await campaign.prepare(CRONS)
        for number in range(CRONS):
            await campaign.call(
                "CreateCron",
                cron_id=f"cron-{number}",
                assistant_id=ASSISTANT,
                # Some make a thread of their own for each run.
                thread_id=f"thread-{number}" if number % 2 else "",
                schedule=schedule,
                misfire_policy=1,
                if_exists="IF_EXISTS_DO_NOTHING",
            )
        async with restarts:
            tick = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(days=30)
            rounds = 0
            while len(expected) < TICKS:
                rounds += 1
                tick += timedelta(minutes=1)
                # Every fourth time one that was before.
                if rounds % 4 == 0:
                    due = [dice.choice(sorted(expected))]
                    again += 1
                else:
                    due = [(f"cron-{number}", round(tick.timestamp() * 1_000_000)) for number in range(CRONS)]
                for cron, at in due:
                    await conn.execute(
                        "UPDATE langgraph_server.crons SET next_run_date = to_timestamp(%s), updated_at = clock_timestamp()"
                        " WHERE id = %s",
                        (at / 1_000_000, cron),
                    )
                expected.update(due)
                if dice.random() < 0.5:
                    clock.jump(dice.choice((HOUR, -HOUR)))

                async def are_taken() -> bool:
                    cursor = await conn.execute(
                        "SELECT count(*) FROM langgraph_server.crons WHERE next_run_date <= now()"
                    )
                    return await cursor.fetchone() == (0,)

                await until(are_taken, MOST_SECONDS)
                assert not breaking.done(), breaking.exception()
        crons = await crons_of(campaign)
        assert all(cron.enabled and cron.next_run_date.ToDatetime(UTC) > datetime.now(UTC) for cron in crons.values())
        made = await made_by(campaign)
    told = list(told_to(schedulers))
    wrong = check_ticks(expected, made, told)
    assert wrong == [], (seed, wrong[:20])
    assert [line for server in servers for line in troubles(server.log)] == []
    assert told
    assert schedulers.counts["killed"] + schedulers.counts["frozen"] > 0, seed
    record_property("seed", seed)
    record_property("ticks", len(expected))
    record_property("set back again", again)
    record_property("told to schedulers", len(told))
    record_property("faults", schedulers.counts | {"restarts": restarts.count, "clock": clock.seconds})
    record_property("seconds", round(time.monotonic() - began, 1))


async def test_a_clock_that_jumps(serve: Serve, tmp_path: Path, record_property: Record) -> None:
    """On memory the server's own clock is that of the ticks."""
    seed = int(os.environ.get("CRON_SEED", "0")) or random.randrange(1, 1_000_000)
    dice = random.Random(seed)
    clock = Clock(tmp_path / "clock")
    server = await serve(environment=clock.environment)
    expected: set[tuple[str, int]] = set()
    async with (
        campaign_at([server], dice) as campaign,
        at_work([server.target], tmp_path, dice) as (schedulers, breaking),
    ):
        await campaign.prepare(1)
        for number in range(CRONS):
            await campaign.call(
                "CreateCron",
                cron_id=f"cron-{number}",
                assistant_id=ASSISTANT,
                schedule=("* * * * *", "*/7 * * * *", "@hourly")[number % 3],
                misfire_policy=1,
                on_run_completed=1,
            )
        while len(expected) < TICKS:
            before = await crons_of(campaign)
            jumped = dice.choice((61.0, 600.0, HOUR, HOUR, -HOUR))
            clock.jump(jumped)
            now = datetime.now(UTC) + timedelta(seconds=clock.seconds)
            expected.update(
                (id, cron.next_run_date.ToMicroseconds())
                for id, cron in before.items()
                if cron.next_run_date.ToDatetime(UTC) <= now
            )

            async def are_taken() -> bool:
                crons = await crons_of(campaign)
                present = datetime.now(UTC) + timedelta(seconds=clock.seconds)
                return all(cron.next_run_date.ToDatetime(UTC) > present for cron in crons.values())

            await until(are_taken, MOST_SECONDS)
            assert not breaking.done(), breaking.exception()
        made = await made_by(campaign)
        after = await crons_of(campaign)
    told = list(told_to(schedulers))
    # The minutes of the test itself tick too.
    wrong = check_ticks(expected, made, told, others_may_come=True)
    wrong += [f"{cron} is behind" for cron, tick, _ in made if tick >= after[cron].next_run_date.ToMicroseconds()]
    wrong += [f"{cron} at {tick} is no minute" for cron, tick, _ in made if tick % 60_000_000]
    assert wrong == [], (seed, wrong[:20])
    assert troubles(server.log) == []
    record_property("seed", seed)
    record_property("ticks", len(made))
    record_property("faults", schedulers.counts | {"clock": clock.seconds})
