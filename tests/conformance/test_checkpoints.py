"""LangGraph's checkpoints on Postgres: they are copied and deleted with their thread."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from tests.conformance.expect import exists
from tests.conformance.rows import ASSISTANTS, THREADS
from tests.service import Api

pytestmark = pytest.mark.parametrize("api", ["postgres-direct", "postgres-grpc", "unprepared-grpc"], indirect=True)

COLUMNS = {
    "checkpoints": ("checkpoint_ns", "checkpoint_id", "parent_checkpoint_id", "type", "checkpoint", "metadata"),
    "checkpoint_blobs": ("checkpoint_ns", "channel", "version", "type", "blob"),
    "checkpoint_writes": ("checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type", "blob", "task_path"),
}
ROWS: dict[str, list[tuple[Any, ...]]] = {
    "checkpoints": [
        ("", "1", None, None, {"v": 4, "channel_values": {"a": 1}}, {"step": 1}),
        ("", "2", "1", "msgpack", {"v": 4}, {"step": 2}),
        ("sub:1", "3", None, None, {"v": 4}, {}),
    ],
    "checkpoint_blobs": [("", "messages", "1", "msgpack", b"\x00\xff"), ("sub:1", "x", "2.0", "empty", None)],
    "checkpoint_writes": [("", "2", "t", 0, "c", "msgpack", b"\x01", "p"), ("", "2", "t", -1, "c", None, b"", "")],
}


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        yield connection


async def fill(connection: psycopg.AsyncConnection[Any], thread_id: str) -> None:
    for table, rows in ROWS.items():
        for row in rows:
            values = [thread_id, *(Jsonb(value) if isinstance(value, dict) else value for value in row)]
            places = ", ".join(["%s"] * len(values))
            await connection.execute(
                f"INSERT INTO public.{table} (thread_id, {', '.join(COLUMNS[table])}) VALUES ({places})", values
            )


async def found(connection: psycopg.AsyncConnection[Any], thread_id: str) -> dict[str, list[tuple[Any, ...]]]:
    rows = {}
    for table, columns in COLUMNS.items():
        cursor = await connection.execute(
            f"SELECT {', '.join(columns)} FROM public.{table} WHERE thread_id = %s", [thread_id]
        )
        rows[table] = sorted(await cursor.fetchall(), key=repr)
    return rows


NONE: dict[str, list[tuple[Any, ...]]] = {table: [] for table in COLUMNS}
ALL = {table: sorted(rows, key=repr) for table, rows in ROWS.items()}


@pytest.mark.parametrize("way", ["DeleteThread", "PruneThreads", "DeleteAssistant", "EraseOwner"])
async def test_deleted_with_their_thread(
    api: Api, connection: psycopg.AsyncConnection[Any], owner: str, other: str, way: str
) -> None:
    id, kept = f"{owner}-t", f"{other}-t"
    await THREADS.create(api, owner, id, metadata=f'{{"assistant_id": "{owner}-a"}}')
    await THREADS.create(api, other, kept)
    await ASSISTANTS.create(api, owner, f"{owner}-a")
    for thread_id in (id, kept):
        await fill(connection, thread_id)
    requests: dict[str, dict[str, Any]] = {
        "DeleteThread": {"thread_id": id},
        "PruneThreads": {"thread_ids": [id, kept], "strategy": "PRUNE_STRATEGY_DELETE"},
        "DeleteAssistant": {"assistant_id": f"{owner}-a", "delete_threads": True},
        "EraseOwner": {},
    }
    await api.call(way, owner_id=owner, **requests[way])
    assert await found(connection, id) == NONE
    assert await found(connection, kept) == ALL


async def test_left_by_calls_of_other_owners(
    api: Api, connection: psycopg.AsyncConnection[Any], owner: str, other: str
) -> None:
    id = f"{owner}-t"
    await THREADS.create(api, owner, id)
    await fill(connection, id)
    await api.call("DeleteThread", owner_id=other, thread_id=id, allow_missing=True)
    await api.call("PruneThreads", owner_id=other, thread_ids=[id], strategy="PRUNE_STRATEGY_DELETE")
    await api.call("EraseOwner", owner_id=other)
    # Pruning to the newest state leaves the checkpoints as they are.
    await api.call("PruneThreads", owner_id=owner, thread_ids=[id], strategy="PRUNE_STRATEGY_KEEP_LATEST")
    assert await found(connection, id) == ALL


async def test_copied_with_their_thread(api: Api, connection: psycopg.AsyncConnection[Any], owner: str) -> None:
    id, copy = f"{owner}-t", f"{owner}-copy"
    await THREADS.create(api, owner, id)
    await fill(connection, id)
    await api.call("CopyThread", owner_id=owner, thread_id=id, new_thread_id=copy)
    assert await found(connection, copy) == ALL
    assert await found(connection, id) == ALL
    await api.call("DeleteThread", owner_id=owner, thread_id=copy)
    assert await found(connection, copy) == NONE
    assert await found(connection, id) == ALL


async def test_copy_that_is_refused_copies_none(api: Api, connection: psycopg.AsyncConnection[Any], owner: str) -> None:
    id, taken = f"{owner}-t", f"{owner}-taken"
    for thread_id in (id, taken):
        await THREADS.create(api, owner, thread_id)
    await fill(connection, id)
    await api.call("CopyThread", owner_id=owner, thread_id=id, new_thread_id=f"{owner}-2", request_id="r")
    await api.call("CopyThread", owner_id=owner, thread_id=id, new_thread_id=f"{owner}-2", request_id="r")
    assert await found(connection, f"{owner}-2") == ALL
    with exists("thread", taken):
        await api.call("CopyThread", owner_id=owner, thread_id=id, new_thread_id=taken)
    assert await found(connection, taken) == NONE
