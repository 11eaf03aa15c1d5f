"""LangGraph's checkpointers as peers: on the service, and on Postgres without it."""

# ruff: noqa: D102 - the contract is told once, on Peer

from __future__ import annotations

from typing import Any

import psycopg
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from psycopg.conninfo import make_conninfo
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool

from agentstorage.langgraph import AsyncGrpcSaver
from benchmarks.checkpoints import CHECKPOINTS, Saver, calling, insert
from benchmarks.load import CallOnce
from benchmarks.operations import Operation, Rows
from benchmarks.peers import Peer, Service, ThroughClient
from storage_service.settings import Settings

_DATABASE = "langgraph"


class GrpcSaver(ThroughClient):
    """``AsyncGrpcSaver`` on the service; its calls are plain RPCs or go by the exchange."""

    def __init__(self, name: str, service: Service, *, exchange: bool) -> None:
        super().__init__(name, service, exchange=exchange)
        self.operations = CHECKPOINTS.keys()

    async def prepare(self, rows: Rows) -> None:
        await insert(self._saver(rows), rows)

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        return calling(self._saver(rows), operation, rows)

    def _saver(self, rows: Rows) -> Saver:
        return AsyncGrpcSaver(self.connection, owner_id=rows.owner)


class PostgresSaver(Peer):
    """``AsyncPostgresSaver`` in the process that calls, as a runtime has it that opens the database itself.

    It has as many connections as the service, to the same Postgres, and its tables as it makes them: in a database of its own, where they
    have no triggers and indexes of the service.
    """

    name = "AsyncPostgresSaver"
    operations = CHECKPOINTS.keys()

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    async def open(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._database_url, autocommit=True) as connection:
            await connection.execute(f"CREATE DATABASE {_DATABASE}")
        size = Settings().pool_max_size
        # As LangGraph's own from_conn_string opens a connection.
        settings: dict[str, Any] = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        self._pool: AsyncConnectionPool[psycopg.AsyncConnection[DictRow]] = AsyncConnectionPool(
            make_conninfo(self._database_url, dbname=_DATABASE),
            min_size=size,
            max_size=size,
            kwargs=settings,
            open=False,
        )
        await self._pool.open(wait=True)
        self._saver = AsyncPostgresSaver(self._pool)
        await self._saver.setup()

    async def close(self) -> None:
        await self._pool.close()

    async def prepare(self, rows: Rows) -> None:
        await insert(self._saver, rows)

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        return calling(self._saver, operation, rows)

    def server_cpu(self) -> float:
        """There is no server: its work is the caller's."""
        return 0.0

    def resident_bytes(self) -> int:
        return 0

    async def database_connections(self) -> int:
        return self._pool.get_stats()["pool_size"]
