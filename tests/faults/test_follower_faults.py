"""Followers of runs and of threads while servers die and come back: each sees every event once, in order, and runs to their end.

For longer: ``FOLLOWED_RUNS=2000 pytest tests/faults/test_follower_faults.py``; ``FOLLOWED_SEED`` repeats what a run draws.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from agentstorage.v1 import runs_pb2, runs_pb2_grpc
from tests.faults.queue_campaign import ASSISTANT, UNKNOWN, event_of
from tests.faults.queue_histories import Event, check_followed, leases_of
from tests.faults.queue_workers import OWNER, crew
from tests.faults.servers import Record, Serve, troubles, until
from tests.faults.test_queue_faults import ATTEMPTS, SERVER, Restarts, campaign_at
from tests.postgres_server import MakeDatabase
from tests.service import GrpcApi

RUNS = int(os.environ.get("FOLLOWED_RUNS", "40"))
THREADS = max(4, RUNS // 10)
PROCESSES = 3
# Runs that somebody follows from their beginning, and as many from somewhere in their midst.
FOLLOWED = 20
MOST_SECONDS = 60 + RUNS / 5
pytestmark = pytest.mark.timeout(MOST_SECONDS * 2 + 120)


@dataclass
class Follower:
    """Follows a run, or a thread, at any of some servers, from where it was when one of them leaves it."""

    stubs: Sequence[Any]
    run: str = ""
    thread: str = ""
    dice: random.Random = field(default_factory=random.Random)
    seen: list[Event] = field(default_factory=list)
    last: runs_pb2.Run | None = None
    broken_off: int = 0

    @property
    def place(self) -> int:
        """Where it is."""
        if not self.seen:
            return 0
        return self.seen[-1].sequence if self.run else self.seen[-1].position

    async def follow(self) -> None:
        """Follow until the end marker; a thread until cancelled."""
        while self.last is None:
            request = runs_pb2.StreamRunEventsRequest(
                owner_id=OWNER, run_id=self.run, thread_id=self.thread, after=self.place
            )
            # Some leave by themselves, in the midst of an answer.
            leaves = time.monotonic() + self.dice.expovariate(0.5)
            stream = self.dice.choice(self.stubs).StreamRunEvents(request, timeout=self.dice.uniform(0.2, 20))
            try:
                async for part in stream:
                    self.seen.extend(map(event_of, part.events))
                    if part.HasField("run"):
                        self.last = part.run
                    if time.monotonic() > leaves:
                        break
            except grpc.aio.AioRpcError as error:
                if error.code() not in UNKNOWN:
                    raise
                await asyncio.sleep(0.05)
            stream.cancel()
            self.broken_off += self.last is None


class Followers:
    """Many followers at once, of an owner's runs and threads."""

    def __init__(self, stubs: Sequence[Any], dice: random.Random) -> None:
        self.all: list[Follower] = []
        self._stubs = stubs
        self._dice = dice
        self._tasks: list[asyncio.Task[None]] = []

    def add(self, *, run: str = "", thread: str = "") -> None:
        """Follow a run, or a thread."""
        self.all.append(Follower(self._stubs, run, thread, random.Random(self._dice.random())))
        self._tasks.append(asyncio.create_task(self.all[-1].follow()))

    async def until_through(
        self, runs: Mapping[str, Sequence[Event]], threads: Mapping[str, Sequence[Event]]
    ) -> list[str]:
        """Wait until each has seen all that there is, and gives what some saw that was not so."""

        async def are_through() -> bool:
            failed = [task.exception() for task in self._tasks if task.done() and task.exception()]
            assert not failed, failed
            return all(
                one.last is not None if one.run else len(one.seen) >= len(threads[one.thread]) for one in self.all
            )

        wrong = []
        try:
            # Those who come late come all at once.
            await until(are_through, 15 + RUNS / 20)
        except AssertionError as error:
            # What is missing is told below.
            wrong.append(str(error))
        for number, one in enumerate(self.all):
            log = runs[one.run] if one.run else threads[one.thread]
            wrong += check_followed(one.seen, log, f"follower {number} of {one.run or one.thread}")
            if one.last is not None and one.seen and one.seen[-1].end != one.last.status:
                wrong.append(f"follower {number} of {one.run} was told {one.last.status} at the end")
        return wrong

    async def stop(self) -> None:
        """Follow no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


async def test_followers_of_servers_that_die(
    serve: Serve, make_database: MakeDatabase, tmp_path: Path, record_property: Record
) -> None:
    seed = int(os.environ.get("FOLLOWED_SEED", "0")) or random.randrange(1, 1_000_000)
    dice = random.Random(seed)
    url = make_database()
    servers = [await serve(url, environment=SERVER) for _ in range(2)]
    targets = [server.target for server in servers]
    restarts = Restarts(servers, serve, dice)
    async with campaign_at(servers, dice) as campaign:
        followers = Followers([runs_pb2_grpc.RunServiceStub(channel) for channel in campaign.channels], dice)
        threads = await campaign.prepare(THREADS)
        await campaign.admit(RUNS, threads)
        for run in campaign.admitted[:FOLLOWED]:
            followers.add(run=run)
        for thread in threads:
            followers.add(thread=thread)
        async with crew(tmp_path, targets, ["--work", "0.2", "--lease", "2"], PROCESSES, dice) as workers, restarts:
            await asyncio.sleep(1)
            for run in campaign.admitted[:FOLLOWED]:
                followers.add(run=run)
            await campaign.until_ended(MOST_SECONDS)
            await workers.stop()
            leases = leases_of(workers.leased_entries())
        ended = await campaign.ended()
        # Those who come when all is over.
        for run in campaign.admitted:
            followers.add(run=run)
        for thread in threads:
            followers.add(thread=thread)
        of_threads = {
            thread: [event for run in ended if run.thread == thread for event in run.events] for thread in threads
        }
        for events in of_threads.values():
            events.sort(key=lambda event: event.position)
        wrong = await followers.until_through({run.run: run.events for run in ended}, of_threads)
        await followers.stop()
        wrong += await campaign.check(leases, ATTEMPTS)
    assert wrong == [], (seed, wrong[:20])
    assert [line for server in servers for line in troubles(server.log)] == []
    assert restarts.count > 0, seed
    record_property("seed", seed)
    record_property("restarts", restarts.count)
    record_property("events", sum(len(run.events) for run in ended))
    record_property("broken off", sum(one.broken_off for one in followers.all))


async def test_a_thread_is_followed_in_the_order_in_which_its_events_are_there(
    serve: Serve, make_database: MakeDatabase
) -> None:
    """An event that took its position first and is committed later is not passed over."""
    url = make_database()
    server = await serve(url)
    async with (
        grpc.aio.insecure_channel(server.target) as channel,
        await psycopg.AsyncConnection.connect(url) as other,
    ):
        api = GrpcApi(channel, "postgres", 5)
        owner: dict[str, Any] = {"owner_id": OWNER}
        await api.call("CreateAssistant", **owner, assistant_id=ASSISTANT, graph_id="agent")
        await api.call("CreateThread", **owner, thread_id="t")
        for run in ("leased", "waiting"):
            await api.call(
                "CreateRun", **owner, run_id=run, thread_id="t", assistant_id=ASSISTANT, multitask_strategy=2
            )
        (claimed,) = (await api.call("ClaimRuns", **owner, worker_id="w")).runs
        followers = Followers([runs_pb2_grpc.RunServiceStub(channel)], random.Random(1))
        followers.add(thread="t")
        # As a runtime, or a call that stops the run, does it, with its commit to come.
        await other.execute("UPDATE langgraph_server.runs SET status = 'interrupted' WHERE id = 'waiting'")
        held = {**owner, "run_id": "leased", "lease_token": claimed.lease_token}
        appending = asyncio.create_task(
            api.call("AppendRunEvents", **held, first_sequence=1, events=[{"type": "step"}])
        )
        # Whether the append waits or not.
        await asyncio.wait([appending], timeout=0.5)
        await asyncio.sleep(0.3)
        await other.commit()
        await appending
        await api.call("FinishRun", **held, status=3)
        parts = [await api.stream("StreamRunEvents", **owner, run_id=run) for run in ("leased", "waiting")]
        log = sorted((event_of(event) for those in parts for part in those for event in part.events), key=_position)
        wrong = await followers.until_through({}, {"t": log})
        await followers.stop()
    assert wrong == []


def _position(event: Event) -> int:
    return event.position
