"""Calls that wait for a row: they hold up nobody else, and see what was done while they waited."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import psycopg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.faults.servers import until
from tests.regressions.conftest import Bench
from tests.service import CallFailed

BOTH = pytest.mark.parametrize("reverse", [False, True], ids=["as-written", "reverse"])


async def queued(bench: Bench, table: str, id: str, *calls: tuple[str, dict[str, Any]]) -> list[Any]:
    """The answers of calls that come to a locked row one after the other, and go on when it is free."""
    async with await bench.hold(table, id):
        tasks = []
        for number, (method, fields) in enumerate(calls, 1):
            tasks.append(asyncio.create_task(bench.api.call(method, **fields)))
            await bench.until_waiting(number)
    return await asyncio.gather(*tasks)


async def several_wait(bench: Bench) -> bool:
    """Whether more than one statement waits for a lock."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return await bench.number(waiting) > 1


@pytest.mark.parametrize("writers", [4, 40])
@pytest.mark.parametrize("transactions", [False, True], ids=["statements", "transactions"])
async def test_calls_of_others_go_on(bench: Bench, owner: str, other: str, writers: int, transactions: bool) -> None:
    row: dict[str, Any] = {"owner_id": owner, "thread_id": f"t-{owner}"}
    seen: dict[str, Any] = {"owner_id": other, "thread_id": f"t-{other}"}
    await bench.api.call("CreateThread", **row)
    await bench.api.call("CreateThread", **seen)
    async with await bench.hold("threads", row["thread_id"]):
        writes = [
            asyncio.create_task(
                bench.api.call("SetThreadStatus", **row)
                if transactions
                else bench.api.call("UpdateThread", metadata=f'{{"k{n}": 1}}', **row)
            )
            for n in range(writers)
        ]
        for _ in range(20):
            started = time.monotonic()
            await asyncio.gather(
                *(bench.api.call("GetThread", **seen) for _ in range(4)),
                bench.api.call("SearchThreads", owner_id=other),
                bench.api.call("UpdateThread", metadata='{"k": 1}', **seen),
            )
            assert time.monotonic() - started < 0.5
            await asyncio.sleep(0.02)
        assert not any(write.done() for write in writes)
    await asyncio.gather(*writes)
    thread = (await bench.api.call("GetThread", **row)).thread
    assert thread.metadata.count('"k') == (0 if transactions else writers)


async def test_a_short_wait_of_one_owner_is_not_behind_the_long_ones_of_another(
    bench: Bench, owner: str, other: str
) -> None:
    stuck: dict[str, Any] = {"owner_id": owner, "thread_id": f"t-{owner}"}
    brief: dict[str, Any] = {"owner_id": other, "thread_id": f"t-{other}"}
    for row in (stuck, brief):
        await bench.api.call("CreateThread", **row)
    async with await bench.hold("threads", stuck["thread_id"]):
        waiting = [asyncio.create_task(bench.api.call("UpdateThread", metadata='{"k": 1}', **stuck)) for _ in range(40)]
        holder = await bench.hold("threads", brief["thread_id"])
        update = asyncio.create_task(bench.api.call("UpdateThread", metadata='{"k": 1}', **brief))
        await asyncio.sleep(0.2)
        started = time.monotonic()
        await holder.close()
        await update
        assert time.monotonic() - started < 0.5
    await asyncio.gather(*waiting)


async def test_a_write_that_waits_too_long_is_aborted(hasty: Bench, owner: str) -> None:
    row: dict[str, Any] = {"owner_id": owner, "thread_id": f"t-{owner}"}
    await hasty.api.call("CreateThread", **row)
    async with await hasty.hold("threads", row["thread_id"]):
        started = time.monotonic()
        writes = [hasty.api.call("UpdateThread", metadata='{"k": 1}', **row) for _ in range(3)]
        failures = await asyncio.gather(*writes, return_exceptions=True)
        assert 1 <= time.monotonic() - started < 3.5
    assert [getattr(failure, "reason", failure) for failure in failures] == ["CONFLICT"] * 3
    assert {failure.code.name for failure in failures if isinstance(failure, CallFailed)} == {"ABORTED"}
    assert (await hasty.api.call("UpdateThread", metadata='{"k": 2}', **row)).thread.metadata.count('"k": 2') == 1


async def test_reads_behind_a_locked_table_all_answer(
    hasty: Bench, owner: str, caplog: pytest.LogCaptureFixture
) -> None:
    row: dict[str, Any] = {"owner_id": owner, "thread_id": f"t-{owner}"}
    await hasty.api.call("CreateThread", **row)
    async with await psycopg.AsyncConnection.connect(hasty.database_url) as holder:
        await holder.execute("LOCK TABLE langgraph_server.threads IN ACCESS EXCLUSIVE MODE")
        with caplog.at_level(logging.WARNING):
            reads = [
                asyncio.create_task(hasty.api.call("GetThread", fields="config,interrupts,visibility", **row))
                for _ in range(16)
            ]
            # The first to come was to prepare the statement; when it gives up, those behind it wait on connections of their own.
            await until(lambda: several_wait(hasty), 5)
            await holder.rollback()
            answers = await asyncio.gather(*reads)
    assert {answer.thread.thread_id for answer in answers} == {row["thread_id"]}
    assert [record.getMessage() for record in caplog.records if "pooler" in record.getMessage()] == []


@BOTH
async def test_updates_of_a_crons_times_both_stay(bench: Bench, owner: str, reverse: bool) -> None:
    cron: dict[str, Any] = {"owner_id": owner, "cron_id": f"c-{owner}"}
    await bench.api.call("CreateCron", assistant_id="a", schedule="0 9 * * *", record_only=True, **cron)
    updates: list[tuple[str, dict[str, Any]]] = [
        ("UpdateCron", {"end_time": "2099-01-01T00:00:00Z", **cron}),
        ("UpdateCron", {"timezone": "Asia/Tokyo", **cron}),
    ]
    await queued(bench, "crons", cron["cron_id"], *(updates[::-1] if reverse else updates))
    found = (await bench.api.call("GetCron", **cron)).cron
    end = Timestamp()
    end.FromJsonString("2099-01-01T00:00:00Z")
    assert (found.end_time, found.timezone) == (end, "Asia/Tokyo")
    # Nine o'clock in Tokyo.
    assert found.next_run_date.ToJsonString().endswith("T00:00:00Z")


async def test_a_version_that_an_update_just_made_is_found(bench: Bench, owner: str) -> None:
    assistant: dict[str, Any] = {"owner_id": owner, "assistant_id": f"a-{owner}"}
    await bench.api.call("CreateAssistant", graph_id="g", description="first", **assistant)
    updated, latest = await queued(
        bench,
        "assistants",
        assistant["assistant_id"],
        ("UpdateAssistant", {"description": "second", **assistant}),
        ("SetLatestAssistantVersion", {"version": 1, **assistant}),
    )
    assert (updated.assistant.version, updated.assistant.description) == (2, "second")
    assert (latest.assistant.version, latest.assistant.description) == (1, "first")
    versions = (await bench.api.call("ListAssistantVersions", page_size=10, **assistant)).versions
    assert sorted(row.version for row in versions) == [1, 2]


async def test_a_thread_that_just_got_a_run_stays_busy(bench: Bench, owner: str) -> None:
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": f"t-{owner}"}
    assistant = f"a-{owner}"
    await bench.api.call("CreateThread", **thread)
    await bench.api.call("CreateAssistant", owner_id=owner, assistant_id=assistant, graph_id="g")
    _, status = await queued(
        bench,
        "threads",
        thread["thread_id"],
        ("CreateRun", {"run_id": f"r-{owner}", "assistant_id": assistant, **thread}),
        ("SetThreadStatus", {"values": '{"a": 1}', **thread}),
    )
    assert (status.thread.status, status.thread.values) == (2, '{"a": 1}')
    assert (await bench.api.call("GetThread", **thread)).thread.status == 2


async def test_an_item_that_loses_its_time_to_live_meanwhile_is_found(bench: Bench, owner: str) -> None:
    place: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k"}
    await bench.api.call("PutItem", value="1", ttl_minutes=10, **place)
    async with await psycopg.AsyncConnection.connect(bench.database_url) as writer:
        await writer.execute(
            "UPDATE langgraph_server.store_items SET ttl_minutes = NULL, expires_at = NULL WHERE owner_id = %s", [owner]
        )
        reading = asyncio.create_task(bench.api.call("GetItem", refresh_ttl=True, **place))
        await bench.until_waiting(1)
    item = (await reading).item
    assert (item.value, item.HasField("expires_at")) == ("1", False)
