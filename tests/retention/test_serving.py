"""What a running server sweeps by itself, and what the command does."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import grpc
import psycopg
import pytest

from tests.conformance.checkpoints import Thread, value
from tests.conformance.rows import ASSISTANTS, RUNS, THREADS
from tests.faults.cluster import Cluster
from tests.faults.servers import Serve, run, troubles, until, until_healthy, until_ok
from tests.postgres_server import MakeDatabase
from tests.retention.histories import id_at, ids, put, rows
from tests.service import GrpcApi, ServerProcess

BRIEF: dict[str, Any] = {"minutes": 1e-6}
# As often as the loop goes round.
ALWAYS = {"STORAGE_SWEEP_SECONDS": "0.05", "STORAGE_LOG_LEVEL": "INFO"}


def lines(log: Path, event: str) -> list[dict[str, Any]]:
    """The lines of a log that tell of an event."""
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return [line for line in found if line["event"] == event]


async def until_told(log: Path, **numbers: int) -> None:
    """Wait until the lines of sweeps add up to these numbers."""

    async def is_told() -> bool:
        swept = lines(log, "swept")
        return {kind: sum(line.get(kind, 0) for line in swept) for kind in numbers} == numbers

    await until(is_told, 5)


async def count(api: GrpcApi, owner: str) -> int:
    return await THREADS.count(api, owner)


async def until_swept(api: GrpcApi, owner: str, left: int = 0) -> None:
    async def is_swept() -> bool:
        return await count(api, owner) == left

    await until(is_swept, 20)


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_a_server_sweeps_by_itself(
    serve: Serve, make_database: MakeDatabase, owner: str, other: str, backend: str
) -> None:
    url = make_database() if backend == "postgres" else ""
    server = await serve(url, environment=ALWAYS | {"STORAGE_THREAD_TTL_MINUTES": "60"})
    async with grpc.aio.insecure_channel(server.target) as channel:
        api = GrpcApi(channel, backend)
        for who in (owner, other):
            for number in range(30):
                await THREADS.create(api, who, f"{who}-{number}", ttl=BRIEF)
            await THREADS.create(api, who, f"{who}-stays")
        kept = Thread(api, owner, f"{owner}-kept")
        await put(kept, id_at(2), a="1")
        await put(kept, id_at(1), a="2")
        keep = {"minutes": 1e-6, "strategy": "THREAD_TTL_STRATEGY_KEEP_LATEST"}
        await kept.call("UpdateThread", ttl=keep)
        await until_swept(api, owner, 2)
        await until_swept(api, other, 1)

        async def is_pruned() -> bool:
            return len(await ids(kept)) == 1

        await until(is_pruned, 20)
        stays = await THREADS.get(api, owner, f"{owner}-stays")
        assert stays.expires_at.ToMicroseconds() == stays.updated_at.ToMicroseconds() + 3600_000_000
    await until_told(server.log, threads=60, pruned=1)
    assert not troubles(server.log)
    assert server.process.poll() is None
    assert stopped_within(server) < 10


def stopped_within(server: ServerProcess) -> float:
    began = time.monotonic()
    assert server.stop() == 0
    return time.monotonic() - began


async def test_it_can_be_switched_off(serve: Serve, make_database: MakeDatabase, owner: str) -> None:
    url = make_database()
    off, on = [await serve(url, environment=ALWAYS | more) for more in ({"STORAGE_SWEEP_SECONDS": "0"}, {})]
    async with grpc.aio.insecure_channel(on.target) as channel:
        api = GrpcApi(channel, "postgres")
        await THREADS.create(api, owner, ttl=BRIEF)
        await until_swept(api, owner)
    await until_told(on.log, threads=1)
    assert not lines(off.log, "swept")


async def test_old_checkpoints_of_all_threads_once_a_day(
    serve: Serve, make_database: MakeDatabase, owner: str, other: str
) -> None:
    url = make_database()
    quiet = await serve(url)
    async with grpc.aio.insecure_channel(quiet.target) as channel:
        api = GrpcApi(channel, "postgres")
        threads = [Thread(api, who, f"{who}-{number}") for who in (owner, other) for number in range(15)]
        for thread in threads:
            await put(thread, id_at(9), a="1")
            await put(thread, id_at(8), a="2")
            await put(thread, id_at(6), a="3")
        first, second = [
            await serve(url, environment=ALWAYS | {"STORAGE_CHECKPOINT_DAYS": "7", "STORAGE_WORKERS": workers})
            for workers in ("1", "2")
        ]

        async def are_swept() -> bool:
            return all([len(await ids(thread)) == 1 for thread in threads])

        await until(are_swept, 30)
        # The next time is tomorrow.
        await put(threads[0], id_at(9), a="1")
        await THREADS.create(api, owner, ttl=BRIEF)
        await until_swept(api, owner, 15)
        assert len(await ids(threads[0])) == 2
    told = [line for server in (first, second) for line in lines(server.log, "swept") if "checkpoints" in line]
    assert [line["checkpoints"] for line in told] == [60]
    assert not troubles(first.log) + troubles(second.log)


async def test_what_somebody_holds_on_to_holds_up_nothing_else(
    serve: Serve, make_database: MakeDatabase, owner: str
) -> None:
    url = make_database()
    server = await serve(url, environment=ALWAYS | {"DATABASE_LOCK_TIMEOUT": "0.1"})
    async with grpc.aio.insecure_channel(server.target) as channel:
        api = GrpcApi(channel, "postgres")
        held = Thread(api, owner, f"{owner}-held")
        item: dict[str, Any] = {"namespace": ["a"], "key": "k", "value": "1"}
        await THREADS.create(api, owner, held.id)
        assistant = await ASSISTANTS.create(api, owner)
        run_of_it = {"thread_id": held.id, "assistant_id": assistant.assistant_id, "status": "RUN_STATUS_SUCCESS"}
        await RUNS.create(api, owner, **run_of_it)
        with psycopg.connect(url) as holder:
            holder.execute("SELECT FROM langgraph_server.runs FOR UPDATE")
            await held.call("UpdateThread", ttl=BRIEF)

            async def is_given_up() -> bool:
                return bool(lines(server.log, "the sweep was broken off: concurrent calls collided; try again"))

            await until(is_given_up, 20)
            await api.call("PutItem", owner_id=owner, ttl_minutes=1e-7, **item)
            await until_told(server.log, items=1)
            assert await count(api, owner) == 1
        await until_swept(api, owner)
    assert not troubles(server.log)


async def test_the_database_goes_and_comes_back(serve: Serve, cluster: Cluster, owner: str) -> None:
    server = await serve(cluster.create_database(), environment=ALWAYS)
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        api = GrpcApi(channel, "postgres")
        for way in (cluster.kill, cluster.stop):
            await until_ok(api, 20)
            for number in range(20):
                await THREADS.create(api, owner, ttl=BRIEF | {"minutes": 1e-6 if number else 1e6})
            way()
            await until_healthy(channel, 10, "NOT_SERVING")
            cluster.start()
            await until_ok(api, 20)
            await until_swept(api, owner, 1)
            for id in await THREADS.search(api, owner):
                await THREADS.call(api, "Delete", owner, thread_id=id)
    assert not troubles(server.log)
    assert stopped_within(server) < 10


async def test_it_stops_while_the_database_is_frozen(serve: Serve, cluster: Cluster, owner: str) -> None:
    server = await serve(cluster.create_database(), environment=ALWAYS)
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        await THREADS.create(GrpcApi(channel, "postgres"), owner, ttl=BRIEF)
    cluster.freeze()
    try:
        assert stopped_within(server) < 15
    finally:
        cluster.thaw()


# The command.


def told(*arguments: str, **environment: str) -> dict[str, list[int]]:
    """What the command says: the numbers of each line, by its first words."""
    result = run("sweep", *arguments, **environment)
    assert (result.returncode, result.stderr) == (0, "")
    found: dict[str, list[int]] = {}
    for line in result.stdout.splitlines():
        name, _, rest = line.partition(": ")
        found.setdefault(name, []).append(int(re.findall(r"\d+", rest)[0]))
    return found


def counts(
    threads: int = 0, pruned: int = 0, renewed: int = 0, items: int = 0, checkpoints: int = 0, blobs: int = 0
) -> dict[str, list[int]]:
    return {
        "threads": [threads, pruned, renewed],
        "items": [items],
        "checkpoints": [checkpoints],
        "values that no checkpoint uses": [blobs],
    }


async def test_the_command(serve: Serve, make_database: MakeDatabase, owner: str, other: str) -> None:
    url = make_database()
    server = await serve(url)
    async with grpc.aio.insecure_channel(server.target) as channel:
        api = GrpcApi(channel, "postgres")
        made: dict[str, Thread] = {}
        for who in (owner, other):
            for name, strategy in (("over", "DELETE"), ("keep", "KEEP_LATEST"), ("used", "DELETE"), ("old", "")):
                thread = made[f"{name}-{who}"] = Thread(api, who, f"{name}-{who}")
                for days, version in ((40, "1"), (20, "2"), (10, "3")):
                    await put(thread, id_at(days), a=version)
                await put(thread, id_at(10), ns="sub", a="1")
                if name == "used":
                    await put(thread, id_at(0), a="4")
                if name == "old":
                    await thread.put(id_at(11), checkpoint="", channels=[value("forgotten", "1", b"x")])
                if strategy:
                    ttl = {"minutes": 1e-6 if name != "used" else 60, "strategy": f"THREAD_TTL_STRATEGY_{strategy}"}
                    await thread.call("UpdateThread", ttl=ttl)
            for number in range(3):
                item: dict[str, Any] = {"namespace": ["a"], "key": f"{number}", "value": "1"}
                await api.call("PutItem", owner_id=who, ttl_minutes=1e-7, **item)
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(
                "UPDATE langgraph_server.threads SET updated_at = now() - interval '2 hours' WHERE id LIKE 'old-%'"
            )
            conn.execute("UPDATE langgraph_server.threads SET expires_at = now() WHERE id LIKE 'used-%'")
        before = {name: await rows(thread) for name, thread in made.items()}
        database = {"DATABASE_URL": url}

        # Of one owner, in steps; each dry run says what the next run does, and does nothing.
        for arguments, expected in (
            (("--thread", f"old-{owner}", "--older-than", "30"), counts(checkpoints=1, blobs=1)),
            (("--owner", owner), counts(threads=1, pruned=1, renewed=1, items=3)),
            (("--owner", owner, "--older-than", "15"), counts(checkpoints=3)),
            (("--owner", owner, "--older-than", "0"), counts(checkpoints=1)),
            (("--owner", owner, "--older-than", "0"), counts()),
        ):
            for _ in range(2):
                assert told(*arguments, "--dry-run", **database) == expected, arguments
            assert told(*arguments, **database) == expected, arguments
        for name in ("over", "keep", "used", "old"):
            assert await rows(made[f"{name}-{other}"]) == before[f"{name}-{other}"]
        assert await THREADS.search(api, owner, sort_by=5, sort_order=1) == [
            f"{name}-{owner}" for name in ("keep", "old", "used")
        ]

        # Of everybody, with the age from the settings.
        everything = counts(threads=1, pruned=1, renewed=1, items=3, checkpoints=3, blobs=1)
        assert told("--dry-run", **database, STORAGE_CHECKPOINT_DAYS="30.5") == everything | {"checkpoints": [2]}
        assert told(**database, STORAGE_CHECKPOINT_DAYS="15") == everything | {"checkpoints": [4]}
        assert told(**database, STORAGE_CHECKPOINT_DAYS="15") == counts()


def test_what_the_command_refuses(make_database: MakeDatabase) -> None:
    for arguments, environment, words in (
        ((), {}, "DATABASE_URL is not set"),
        ((), {"DATABASE_URL": "postgresql://app:hunter2@127.0.0.1:1/app"}, "the database can't be reached"),
        ((), {"DATABASE_URL": make_database()}, "run storage-service migrate"),
        (("--owner", ""), {"DATABASE_URL": "postgresql://h/d"}, "--owner"),
    ):
        result = run("sweep", *arguments, **environment)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: ")
        assert words in result.stderr
        assert "hunter2" not in result.stderr
        assert len(result.stderr.splitlines()) == 1
    for days in ("-1", "x", "nan", "inf"):
        assert run("sweep", "--older-than", days).returncode == 2


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"STORAGE_THREAD_TTL_STRATEGY": "forget"}, "STORAGE_THREAD_TTL_STRATEGY takes delete or keep_latest"),
        ({"STORAGE_THREAD_TTL_MINUTES": "52596001"}, "STORAGE_THREAD_TTL_MINUTES"),
        ({"STORAGE_THREAD_TTL_MINUTES": "-1"}, "STORAGE_THREAD_TTL_MINUTES"),
        ({"STORAGE_SWEEP_SECONDS": "inf"}, "STORAGE_SWEEP_SECONDS"),
        ({"STORAGE_CHECKPOINT_DAYS": "nan"}, "STORAGE_CHECKPOINT_DAYS"),
    ],
)
def test_settings_that_cannot_be(environment: dict[str, str], named: str) -> None:
    result = run("serve", "--port", "0", **environment)
    assert result.returncode == 1
    assert named in result.stderr.splitlines()[-1]
