"""What servers do for the queue by themselves, and how they hear of each other."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import AsyncIterator

import grpc
import psycopg
import pytest

from agentstorage.v1 import runs_pb2, runs_pb2_grpc
from tests.conformance.queue import Queue, held
from tests.faults.servers import Serve, until
from tests.postgres_server import MakeDatabase
from tests.service import CallFailed, GrpcApi, ServerProcess


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """A new database."""
    return make_database()


@pytest.fixture(params=["memory", "postgres"])
def place(request: pytest.FixtureRequest, make_database: MakeDatabase) -> str:
    """Where a server keeps its rows: "" for memory."""
    return make_database() if request.param == "postgres" else ""


@contextlib.asynccontextmanager
async def queue_of(server: ServerProcess, owner: str) -> AsyncIterator[Queue]:
    """The queue of an owner through a server."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield Queue(GrpcApi(channel, server.backend), owner)


@pytest.fixture
async def two(serve: Serve, database: str, owner: str) -> AsyncIterator[tuple[Queue, Queue]]:
    """One owner's queue through two servers on one database."""
    one, other = await serve(database), await serve(database)
    async with (
        grpc.aio.insecure_channel(one.target) as first,
        grpc.aio.insecure_channel(other.target) as second,
    ):
        yield Queue(GrpcApi(first, "postgres"), owner), Queue(GrpcApi(second, "postgres"), owner)


async def waits_at(here: Queue, there: Queue) -> float:
    """How long after a run is admitted at one server a claim that waits at the other has it, in seconds."""
    waiting = asyncio.create_task(here.claim(wait_seconds=10))
    await asyncio.sleep(0.1)
    await there.admit()
    admitted = time.monotonic()
    (claimed,) = await waiting
    waited = time.monotonic() - admitted
    await here.finish(claimed)
    return waited


async def test_a_claim_hears_of_a_run_of_another_server(two: tuple[Queue, Queue]) -> None:
    here, there = two
    await waits_at(here, there)
    # Whoever looks by itself does so once a second.
    assert statistics.median([await waits_at(here, there) for _ in range(9)]) < 0.2


async def test_listening_begins_again(two: tuple[Queue, Queue], database: str) -> None:
    here, there = two
    await waits_at(here, there)
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as admin:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%' AND pid <> pg_backend_pid()"
        )
    # Until then those who wait look for themselves.
    assert await waits_at(here, there) < 1.6
    await asyncio.sleep(1.5)
    assert statistics.median([await waits_at(here, there) for _ in range(9)]) < 0.2


async def test_a_follower_hears_of_events_of_another_server(two: tuple[Queue, Queue]) -> None:
    here, there = two
    await there.admit()
    (claimed,) = await there.claim()
    seen: list[float] = []
    sent: list[float] = []

    async def follow() -> None:
        channel = here.api._channel  # type: ignore[attr-defined]  # the stream is read as it comes
        request = runs_pb2.StreamRunEventsRequest(owner_id=here.owner, run_id=claimed.run.run_id)
        async for part in runs_pb2_grpc.RunServiceStub(channel).StreamRunEvents(request):
            seen.extend(time.monotonic() for event in part.events if not event.end)

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.2)
    for sequence in range(1, 10):
        await there.call("AppendRunEvents", **held(claimed), first_sequence=sequence, events=[{"type": "t"}])
        sent.append(time.monotonic())
        await asyncio.sleep(0.1)
    await there.finish(claimed)
    await asyncio.wait_for(following, 5)
    assert len(seen) == len(sent)
    assert statistics.median(there - then for there, then in zip(seen, sent, strict=True)) < 0.2


async def test_a_lapsed_lease_is_taken_back(serve: Serve, place: str, owner: str) -> None:
    server = await serve(place, environment={"STORAGE_LEASE_SWEEP_SECONDS": "0.2"})
    async with queue_of(server, owner) as queue:
        run_id = await queue.admit()
        await queue.claim(lease_seconds=0.3)
        (claimed,) = await queue.claim(wait_seconds=10)
        assert (claimed.run.run_id, claimed.run.attempt) == (run_id, 2)


async def test_the_scheduler(serve: Serve, database: str, owner: str) -> None:
    environment = {"STORAGE_CRON_SECONDS": "0.1"}
    servers = [await serve(database, environment=environment) for _ in range(3)]
    async with queue_of(servers[0], owner) as queue:
        assistant = await queue.assistant()
        crons = [
            (await queue.call("CreateCron", assistant_id=assistant, schedule="0 * * * *")).cron.cron_id
            for _ in range(20)
        ]
        # Its assistant is not there: it is switched off, and the log names it.
        lost = {"assistant_id": f"no-{owner}", "schedule": "0 * * * *", "record_only": True}
        lost_id = (await queue.call("CreateCron", **lost)).cron.cron_id
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as admin:
            await admin.execute("UPDATE langgraph_server.crons SET next_run_date = now() - interval '5 seconds'")

        async def all_fired() -> bool:
            return int((await queue.call("CountRuns")).count) >= len(crons)

        await until(all_fired, 10)
        await asyncio.sleep(0.5)
        runs = (await queue.call("SearchRuns", page_size=100)).runs
        assert sorted(run.cron_id for run in runs) == sorted(crons)
        assert not (await queue.call("GetCron", cron_id=lost_id)).cron.enabled
    assert sum(server.log.read_text().count(f'"disabled_crons": ["{lost_id}"]') for server in servers) == 1


async def test_nothing_fires_without_the_setting(serve: Serve, database: str, owner: str) -> None:
    server = await serve(database)
    async with queue_of(server, owner) as queue:
        await queue.call("CreateCron", assistant_id=await queue.assistant(), schedule="0 * * * *")
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as admin:
            await admin.execute("UPDATE langgraph_server.crons SET next_run_date = now() - interval '5 seconds'")
        await asyncio.sleep(1.5)
        assert (await queue.call("CountRuns")).count == 0
        assert (await queue.call("GetRunStats")).crons_due == 1


async def test_those_who_wait_do_not_hold_up_a_stop(serve: Serve, place: str, owner: str) -> None:
    server = await serve(place)
    async with queue_of(server, owner) as queue:
        run_id = await queue.admit()
        await queue.claim()
        calls = [
            asyncio.create_task(call)
            for call in (
                queue.claim(wait_seconds=15),
                queue.call("WaitRun", run_id=run_id, wait_seconds=15),
                queue.api.stream("StreamRunEvents", owner_id=owner, run_id=run_id),
            )
        ]
        await asyncio.sleep(0.3)
        started = time.monotonic()
        assert await asyncio.to_thread(server.stop) == 0
        assert time.monotonic() - started < 5
        for call in calls:
            with pytest.raises(CallFailed) as failure:
                await call
            assert failure.value.code.name == "UNAVAILABLE"


async def test_a_stream_that_is_left_leaves_nothing(serve: Serve, place: str, owner: str) -> None:
    server = await serve(place)
    async with queue_of(server, owner) as queue:
        run_id = await queue.admit()
        for _ in range(20):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await queue.api.stream("StreamRunEvents", owner_id=owner, run_id=run_id)
        await queue.call("CancelRuns", run_ids=[run_id])
        assert (await queue.call("GetRunStats")).leased == 0
    assert "error" not in server.log.read_text().lower()
