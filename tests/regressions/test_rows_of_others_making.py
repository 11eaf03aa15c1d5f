"""Rows that no call of the service made: checkpoints without a thread, displaced items, words of another version."""

from __future__ import annotations

from typing import Any

import pytest

from tests.regressions.conftest import Bench
from tests.service import CallFailed

_CHECKPOINTS = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


async def leave_checkpoints(bench: Bench, thread_id: str) -> None:
    """A checkpoint as LangGraph's own saver leaves it, in all its tables."""
    await bench.connection.execute(
        "INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint, metadata) VALUES (%s, '1', '{}', '{}')",
        [thread_id],
    )
    await bench.connection.execute(
        "INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type) VALUES (%s, 'c', '1', 'empty')",
        [thread_id],
    )
    await bench.connection.execute(
        "INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)"
        " VALUES (%s, '1', 't', 0, 'c', '')",
        [thread_id],
    )


async def checkpoints(bench: Bench, thread_id: str) -> list[int]:
    """How many rows of a thread the tables of checkpoints have."""
    return [
        await bench.number(f"SELECT count(*) FROM public.{table} WHERE thread_id = %s", thread_id)
        for table in _CHECKPOINTS
    ]


async def test_no_owner_gets_checkpoints_by_making_their_thread(bench: Bench, owner: str) -> None:
    taken, source = f"taken-{owner}", f"source-{owner}"
    await leave_checkpoints(bench, taken)
    await leave_checkpoints(bench, source)
    # Without an owner, a thread may be made of what is there.
    assert (await bench.api.call("CreateThread", thread_id=source)).thread.thread_id == source
    mine = f"mine-{owner}"
    await bench.api.call("CreateThread", owner_id=owner, thread_id=mine)
    await leave_checkpoints(bench, mine)
    await bench.api.call("AddThreadState", owner_id=owner, thread_id=mine, checkpoint_id="s", values="{}")
    calls: tuple[tuple[str, dict[str, Any]], ...] = (
        ("CreateThread", {"thread_id": taken}),
        ("CreateThread", {"thread_id": taken, "if_exists": "IF_EXISTS_DO_NOTHING"}),
        ("CreateThread", {"thread_id": taken, "request_id": "r"}),
        ("CopyThread", {"thread_id": mine, "new_thread_id": taken}),
        ("CopyThread", {"thread_id": mine, "new_thread_id": taken, "request_id": "r"}),
    )
    for method, fields in calls:
        with pytest.raises(CallFailed) as refused:
            await bench.api.call(method, owner_id=owner, **fields)
        assert refused.value.code.name == refused.value.reason == "ALREADY_EXISTS"
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await bench.api.call("DeleteThread", owner_id=owner, thread_id=taken)
    assert await checkpoints(bench, taken) == [1, 1, 1]
    assert await bench.number("SELECT count(*) FROM langgraph_server.threads WHERE id = %s", taken) == 0
    assert await bench.number("SELECT count(*) FROM langgraph_server.thread_states WHERE thread_id = %s", taken) == 0
    await bench.api.call("CreateThread", thread_id=taken)
    assert await checkpoints(bench, taken) == [1, 1, 1]


async def test_a_reader_of_a_shared_thread_copies_no_checkpoints(bench: Bench, owner: str, other: str) -> None:
    shared = f"shared-{owner}"
    visibility = "THREAD_VISIBILITY_READ_BY_ID"
    await bench.api.call("CreateThread", owner_id=owner, thread_id=shared, visibility=visibility, values='{"a": 1}')
    await bench.api.call("AddThreadState", owner_id=owner, thread_id=shared, checkpoint_id="s", values='{"b": 2}')
    await leave_checkpoints(bench, shared)
    for who, wanted in ((other, [0, 0, 0]), (owner, [1, 1, 1])):
        copy = (await bench.api.call("CopyThread", owner_id=who, thread_id=shared)).thread
        states = (await bench.api.call("ListThreadStates", owner_id=who, thread_id=copy.thread_id)).states
        assert [(state.checkpoint_id, state.values) for state in states] == [("s", '{"b": 2}')]
        assert await checkpoints(bench, copy.thread_id) == wanted
    copy = (await bench.api.call("CopyThread", thread_id=shared)).thread
    assert await checkpoints(bench, copy.thread_id) == [1, 1, 1]


async def test_displaced_items_are_counted_and_erased(bench: Bench, owner: str, other: str) -> None:
    insert = (
        "INSERT INTO langgraph_server.store_items_displaced (namespace, key, owner_id, value, reason)"
        " SELECT 'a', 'k' || n, %s, '{}', 'spelling' FROM generate_series(1, %s) AS n"
    )
    await bench.connection.execute(insert, [owner, 450])
    await bench.connection.execute(insert, [other, 1])
    await bench.api.call("PutItem", owner_id=owner, namespace=["a"], key="k", value="1")
    usage = (await bench.api.call("GetOwnerUsage", owner_id=owner)).usage
    ((rows, size),) = [(row.rows, row.bytes) for row in usage if row.rows]
    assert rows == 451
    assert size > 451
    erased = await bench.api.call("EraseOwner", owner_id=owner)
    assert (erased.done, erased.deleted) == (True, 451)
    left = "SELECT count(*) FROM langgraph_server.store_items_displaced WHERE owner_id = %s"
    assert (await bench.number(left, owner), await bench.number(left, other)) == (0, 1)
    assert not any(row.rows for row in (await bench.api.call("GetOwnerUsage", owner_id=owner)).usage)


@pytest.mark.parametrize("direction", ["ASC", "DESC"])
@pytest.mark.parametrize("kind", ["Run", "Thread"])
async def test_a_status_of_another_version_ends_a_listing(bench: Bench, owner: str, kind: str, direction: str) -> None:
    # Before, between, and after the words that this version knows.
    words = {
        "Run": ("aborted", "error", "interrupted", "paused", "pending", "success", "zombie"),
        "Thread": ("archived", "busy", "error", "frozen", "idle", "interrupted", "waiting"),
    }[kind]
    table = f"langgraph_server.{kind.lower()}s"
    for number, word in enumerate(words):
        await bench.connection.execute(
            f"INSERT INTO {table} (id, status, metadata) VALUES (%s, %s, jsonb_build_object('owner', %s::text))",
            [f"{owner}-{number}", word, owner],
        )
    wanted = [f"{owner}-{number}" for number in range(len(words))]
    order = wanted if direction == "ASC" else wanted[::-1]
    search: dict[str, Any] = {
        "owner_id": owner,
        "sort_by": f"{kind.upper()}_SORT_STATUS",
        "sort_order": f"SORT_ORDER_{direction}",
    }

    async def page(**fields: Any) -> tuple[list[str], str]:
        answer = await bench.api.call(f"Search{kind}s", **search, **fields)
        return [
            getattr(row, f"{kind.lower()}_id") for row in getattr(answer, f"{kind.lower()}s")
        ], answer.next_page_token

    # All at once, nothing is missing.
    assert await page(page_size=100) == (order, "")
    found: list[str] = []
    token = ""
    for _ in range(len(words) + 1):
        ids, token = await page(page_size=1, page_token=token)
        found += ids
        if not token:
            break
    assert not token
    # In order, and no row twice.
    assert found == order[: len(found)]
    # By offset the whole of it can be read.
    assert [(await page(page_size=1, offset=offset))[0] for offset in range(len(words))] == [[id] for id in order]
