"""What a server is at: its log, and calls in it that wait."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psycopg

from agentstorage.v1 import exchange_pb2 as pb
from tests.faults.servers import until, until_healthy
from tests.rpc.raw_stream import OPTIONS, call, code_of, plain
from tests.service import ServerProcess

#: A server that logs every call and waits long for a lock.
LOGS_ALL = {"STORAGE_LOG_LEVEL": "INFO", "DATABASE_LOCK_TIMEOUT": "20"}


@contextlib.asynccontextmanager
async def connect(server: ServerProcess) -> AsyncIterator[grpc.aio.Channel]:
    """A channel without limits of its own to a server that is ready."""
    async with grpc.aio.insecure_channel(server.target, options=OPTIONS) as channel:
        await until_healthy(channel, 10)
        yield channel


def log_lines(server: ServerProcess, start: int = 0) -> list[dict[str, Any]]:
    """The lines about calls in the log from a position on, without what is different each time."""
    with server.log.open() as log:
        log.seek(start)
        lines = [json.loads(line) for line in log.read().splitlines() if line.startswith("{")]
    return [
        {key: value for key, value in line.items() if key not in ("time", "ms")}
        for line in lines
        if line["event"] == "call"
    ]


async def logged(server: ServerProcess, start: int, count: int) -> list[dict[str, Any]]:
    """So many lines about calls from a position of the log on, as soon as they are written."""

    async def are_written() -> bool:
        return len(log_lines(server, start)) >= count

    await until(are_written, 5)
    return log_lines(server, start)


class Locked:
    """A thread whose row is locked until the block ends."""

    def __init__(self, database: str, channel: grpc.aio.Channel) -> None:
        self._database = database
        self._channel = channel

    async def __aenter__(self) -> Locked:
        made = await plain(
            self._channel, call(0, "CreateThread", owner_id="o", thread_id="t", if_exists="IF_EXISTS_DO_NOTHING")
        )
        assert code_of(made) == "OK"
        self._holder = await psycopg.AsyncConnection.connect(self._database)
        await self._holder.execute("SELECT FROM langgraph_server.threads WHERE id = 't' FOR UPDATE")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._holder.close()

    def update(self, id: int, timeout_ms: int = 0) -> pb.Call:
        """A call that waits for the row."""
        return call(id, "UpdateThread", timeout_ms=timeout_ms, owner_id="o", thread_id="t", metadata=f'{{"k{id}": 1}}')

    async def waiting(self, *counts: int) -> None:
        """Wait until one of so many statements wait for a lock."""

        async def is_so() -> bool:
            async with await psycopg.AsyncConnection.connect(self._database, autocommit=True) as looker:
                found = await looker.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
                )
                return await found.fetchone() in {(count,) for count in counts}

        await until(is_so, 5)
