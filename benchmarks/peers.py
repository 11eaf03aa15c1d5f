"""Who is measured, side by side in one run: every peer is something that answers operations. Those of LangGraph are in ``savers``."""

# ruff: noqa: D102 - the contract is told once, on Peer

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Container
from typing import Any, Protocol

import grpc
import psutil
import psycopg
from psycopg.conninfo import make_conninfo

from agentstorage import Connection
from benchmarks import echo
from benchmarks.client import Client, Order, through
from benchmarks.load import CallOnce, Load, drive, measured
from benchmarks.operations import METHODS, Operation, Rows

_OPTIONS = [("grpc.max_receive_message_length", 64 * 1024 * 1024), ("grpc.enable_http_proxy", 0)]
# One read and one write say what the client's layer costs, and what a second process gives; it is the same for every method.
_ONE_OF_EACH = frozenset({"GetThread", "PutItem"})
# Every call has a deadline, as those of the clients do. In seconds.
_TIMEOUT = 10.0
_SERVES_ON = re.compile(r" serves on (\S+:\d+) ")


class Peer(Protocol):
    """Something that answers operations."""

    name: str
    #: Those that it measures.
    operations: Container[str] = METHODS.keys()

    async def open(self) -> None:
        """Start it and connect to it."""
        ...

    async def close(self) -> None:
        """Stop it."""
        ...

    async def prepare(self, rows: Rows) -> None:
        """Insert the rows that the operations need."""
        ...

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        """What makes one call of an operation that it measures."""
        ...

    async def load(
        self, operation: Operation, rows: Rows, callers: int, seconds: float, most_calls: int
    ) -> Load | None:
        """Call an operation that it measures in a closed loop; None when the peer does not with so many callers."""
        return await drive(await self.caller(operation, rows), callers, seconds, most_calls)

    def server_cpu(self) -> float:
        """The seconds of CPU, user and system, that its server has used."""
        ...

    def resident_bytes(self) -> int:
        """The memory of its server."""
        ...

    async def database_connections(self) -> int:
        """The connections to Postgres that its server holds."""
        ...


def inherited() -> dict[str, str]:
    """What a server gets of this process's environment: none of the settings of the service."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("DATABASE_", "STORAGE_"))}


class ServerProcess:
    """A server in a process of its own, which says in its first line where it listens. What it logs goes to a file."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            env=inherited() | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        output = self._process.stdout
        found = _SERVES_ON.search(output.readline() if output else "")
        if found is None:
            self._process.kill()
            self._log.seek(0)
            raise RuntimeError(f"{arguments} did not start: {self._log.read()[-2000:]}")
        self.target = found[1]
        self._watched = psutil.Process(self._process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """End it as an operator would."""
        self.signal(signal.SIGTERM)
        self._process.wait(timeout=40)
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def cpu(self) -> float:
        """The seconds of CPU that it has used, its workers included."""
        times = [process.cpu_times() for process in self._processes()]
        return float(sum(time.user + time.system for time in times))

    def resident_bytes(self) -> int:
        """The memory that it holds, its workers included."""
        return sum(process.memory_info().rss for process in self._processes())

    def _processes(self) -> list[psutil.Process]:
        return [self._watched, *self._watched.children()]


class _OverGrpc(Peer):
    """What the peers with a gRPC server share: a process, one channel, and calls of bytes."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.arguments = arguments
        self._environment = environment

    async def open(self) -> None:
        self.server = await asyncio.to_thread(ServerProcess, self.arguments, self._environment)
        # Its stubs want arguments that grpc has defaults for.
        self.channel: Any = grpc.aio.insecure_channel(self.server.target, options=_OPTIONS)
        await self.channel.channel_ready()

    async def close(self) -> None:
        await self.channel.close()
        await asyncio.to_thread(self.server.stop)

    async def send(self, path: str, data: bytes) -> bytes:
        answer: bytes = await self.channel.unary_unary(path)(data)
        return answer

    def server_cpu(self) -> float:
        return self.server.cpu()

    def resident_bytes(self) -> int:
        return self.server.resident_bytes()

    async def database_connections(self) -> int:
        return 0


class Service(_OverGrpc):
    """The service on one backend; ``database_url`` is empty for memory."""

    def __init__(
        self, backend: str, database_url: str = "", environment: dict[str, str] | None = None, workers: int = 1
    ) -> None:
        given = {"STORAGE_DRAIN_SECONDS": "0", "STORAGE_WORKERS": str(workers), **(environment or {})}
        # By which its connections are known from those of others.
        self._application = f"storage-service {workers}"
        if database_url:
            given["DATABASE_URL"] = make_conninfo(database_url, application_name=self._application)
        super().__init__(backend, ["-m", "storage_service", "serve", "--port", "0"], given)
        self._database_url = database_url

    async def prepare(self, rows: Rows) -> None:
        await rows.insert(self.send)

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        requests = operation.requests(rows)
        call = self.channel.unary_unary(f"/agentstorage.v1.{operation.path}")
        return lambda: call(next(requests).SerializeToString(), timeout=_TIMEOUT)

    async def answer_bytes(self, operation: Operation, rows: Rows) -> int:
        """The size of an answer."""
        once = await self.caller(operation, rows)
        answer = await once()
        assert isinstance(answer, bytes)
        return len(answer)

    async def database_connections(self) -> int:
        if not self._database_url:
            return 0
        statement = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        async with await psycopg.AsyncConnection.connect(self._database_url) as connection:
            row = await (await connection.execute(statement, [self._application])).fetchone()
        return int(row[0]) if row else 0


class Echo(_OverGrpc):
    """The bare server, asked with requests of the operation's size and answering with its answers' size."""

    def __init__(self, sizes: Callable[[Operation, Rows], Awaitable[int]]) -> None:
        super().__init__("echo", ["-m", "benchmarks.echo"], {})
        self._sizes = sizes

    async def prepare(self, rows: Rows) -> None:
        """Needs no rows."""

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        size = await self._sizes(operation, rows)
        requests = operation.requests(rows)
        call = self.channel.unary_unary(echo.PATH)
        return lambda: call(echo.request_of(size, next(requests).SerializeToString()), timeout=_TIMEOUT)


class _Again(Peer):
    """A running service again, called in another way."""

    def __init__(self, name: str, service: Service) -> None:
        self.name = name
        self.service = service

    async def prepare(self, rows: Rows) -> None:
        """The service has its rows already."""

    def server_cpu(self) -> float:
        return self.service.server_cpu()

    def resident_bytes(self) -> int:
        return self.service.resident_bytes()

    async def database_connections(self) -> int:
        return await self.service.database_connections()


class ThroughClient(_Again):
    """Called through the generated stubs of ``agentstorage``: messages in and out, deadlines, retries; as plain RPCs or by the exchange."""

    def __init__(self, name: str, service: Service, *, exchange: bool) -> None:
        super().__init__(name, service)
        self._exchange = exchange
        if not exchange:
            self.operations = _ONE_OF_EACH

    async def open(self) -> None:
        self.connection = Connection(self.service.server.target, exchange=self._exchange)

    async def close(self) -> None:
        await self.connection.close()

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        return through(self.connection, operation, rows)


class TwoClients(_Again):
    """Called by two client processes, since one is at its end before a second worker has anything to do."""

    operations = _ONE_OF_EACH

    def __init__(self, name: str, service: Service, *, owns_service: bool) -> None:
        super().__init__(name, service)
        self._owns_service = owns_service

    async def open(self) -> None:
        if self._owns_service:
            await self.service.open()
        self._clients = [await Client.start(self.service.server.target) for _ in range(2)]

    async def close(self) -> None:
        for client in self._clients:
            await client.close()
        if self._owns_service:
            await self.service.close()

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        """Only the clients call."""
        raise NotImplementedError

    async def load(
        self, operation: Operation, rows: Rows, callers: int, seconds: float, most_calls: int
    ) -> Load | None:
        if callers < len(self._clients):
            return None
        count = len(self._clients)
        payload, each = len(rows.document), max(1, most_calls // count)
        orders = [
            Order(operation.name, payload, callers // count, seconds, each, number / count) for number in range(count)
        ]
        pairs = zip(self._clients, orders, strict=True)
        return measured(await asyncio.gather(*(client.do(order) for client, order in pairs)))
