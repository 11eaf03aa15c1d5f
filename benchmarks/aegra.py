"""Aegra's HTTP API as a peer: an Agent Protocol server of FastAPI, SQLAlchemy and psycopg, on the same Postgres.

It is run where it is installed: by the Python that ``BENCHMARK_AEGRA`` names, as that of an environment made with
``python3.12 -m venv aegra && aegra/bin/pip install aegra-api greenlet``: it needs other versions of some packages than this project has.
"""

# ruff: noqa: D102 - the contract is told once, on Peer

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlencode

import psutil
import psycopg
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from psycopg.conninfo import conninfo_to_dict

from agentstorage.v1 import store_pb2, threads_pb2
from benchmarks.load import CallOnce
from benchmarks.operations import Operation, Rows
from benchmarks.peers import Peer, inherited
from storage_service.settings import Settings

_DATABASE: Final = "aegra"
_SECONDS: Final = 60.0
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
# So many requests are made before they are sent: one for each row.
_AHEAD: Final = 1000


def _request(method: str, path: str, body: dict[str, Any] | None = None) -> bytes:
    data = b"" if body is None else json.dumps(body).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


def _create_thread(fields: dict[str, Any]) -> bytes:
    # A thread has no values there until a run writes them: the document is in its metadata.
    metadata = {**json.loads(fields["metadata"]), "document": json.loads(fields["values"])}
    return _request("POST", "/threads", {"thread_id": fields["threadId"], "metadata": metadata})


def _get_item(fields: dict[str, Any]) -> bytes:
    place = {"key": fields["key"], "namespace": fields["namespace"]}
    return _request("GET", f"/store/items?{urlencode(place, doseq=True)}")


def _put_item(fields: dict[str, Any]) -> bytes:
    item = {"namespace": fields["namespace"], "key": fields["key"], "value": json.loads(fields["value"])}
    return _request("PUT", "/store/items", item)


#: What asks Aegra's API for what a request of the service asks, by the method, from its fields as JSON has them.
REQUESTS: Final[dict[str, Callable[[dict[str, Any]], bytes]]] = {
    "CreateThread": _create_thread,
    "GetThread": lambda fields: _request("GET", f"/threads/{fields['threadId']}"),
    "SearchThreads": lambda fields: _request("POST", "/threads/search", {"limit": fields["pageSize"]}),
    "PutItem": _put_item,
    "GetItem": _get_item,
}
_ROWS: Final[dict[str, type[Message]]] = {
    "CreateThread": threads_pb2.CreateThreadRequest,
    "PutItem": store_pb2.PutItemRequest,
}


def interpreter() -> str:
    """The Python that has Aegra; "" for none."""
    return os.environ.get("BENCHMARK_AEGRA", "")


def versions() -> dict[str, str]:
    """Which Aegra is run, if one is."""
    if not interpreter():
        return {}
    program = "import importlib.metadata as m, platform; print(m.version('aegra-api'), 'on Python', platform.python_version())"
    said = subprocess.run([interpreter(), "-c", program], capture_output=True, text=True, check=True)
    return {"aegra-api": said.stdout.strip()}


class Aegra(Peer):
    """Its server in a process of its own, with as many connections to Postgres as the service may have."""

    name = "Aegra"
    operations = REQUESTS.keys()

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    async def open(self) -> None:
        async with await psycopg.AsyncConnection.connect(self._database_url, autocommit=True) as connection:
            await connection.execute(f"CREATE DATABASE {_DATABASE}")
        self._start()
        self._http = Http(self._port)
        until = time.monotonic() + _SECONDS
        while not await self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self._log.seek(0)
                said = self._log.read()[-2000:].decode(errors="replace")
                await self.close()
                raise RuntimeError(f"Aegra did not start: {said}")
            await asyncio.sleep(0.2)

    def _start(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="aegra")
        Path(self._directory.name, "aegra.json").write_text('{"graphs": {}}')
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close
        connections = Settings().pool_max_size
        environment = inherited() | {
            "DATABASE_URL": _url(self._database_url),
            "SQLALCHEMY_POOL_SIZE": str(connections // 2),
            "LANGGRAPH_MAX_POOL_SIZE": str(connections - connections // 2),
            "LOG_LEVEL": "WARNING",
            "AUTH_TYPE": "noop",
        }
        options = f"--host 127.0.0.1 --port {self._port} --log-level warning --no-access-log"
        self._process = subprocess.Popen(
            [interpreter(), "-m", "uvicorn", "aegra_api.main:app", *options.split()],
            env=environment,
            cwd=self._directory.name,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        self._watched = psutil.Process(self._process.pid)

    async def close(self) -> None:
        self._http.close()
        self._process.terminate()
        await asyncio.to_thread(self._process.wait, 40)
        self._log.close()
        self._directory.cleanup()

    async def prepare(self, rows: Rows) -> None:
        await rows.insert(self._send)

    async def caller(self, operation: Operation, rows: Rows) -> CallOnce:
        messages = operation.requests(rows)
        made = REQUESTS[operation.name]
        # Made ahead, but for those that are new each time.
        requests: Iterator[bytes] = (
            (made(MessageToDict(message)) for message in messages)
            if operation.grows
            else itertools.cycle([made(MessageToDict(message)) for message in itertools.islice(messages, _AHEAD)])
        )
        return lambda: self._http.ask(next(requests))

    def server_cpu(self) -> float:
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    def resident_bytes(self) -> int:
        return int(self._watched.memory_info().rss)

    async def database_connections(self) -> int:
        statement = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
        async with await psycopg.AsyncConnection.connect(self._database_url) as connection:
            row = await (await connection.execute(statement, [_DATABASE])).fetchone()
        return int(row[0]) if row else 0

    async def _send(self, path: str, data: bytes) -> bytes:
        """Insert a row of those that the service is sent; states come from runs there, and nothing that is measured reads them."""
        name = path.rpartition("/")[2]
        kind = _ROWS.get(name)
        return b"" if kind is None else await self._http.ask(REQUESTS[name](MessageToDict(kind.FromString(data))))

    async def _answers(self) -> bool:
        try:
            await self._http.ask(_request("GET", "/health"))
        except (OSError, asyncio.IncompleteReadError):
            return False
        return True


class Http:
    """Connections to a server of HTTP, as many as there are requests at once: the least that a load can cost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, request: bytes) -> bytes:
        """Send a request and give the body of the answer. AssertionError for one that does not say that it was done."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(head)
        body = await reader.readexactly(int(length[1]) if length else 0)
        self._idle.append((reader, writer))
        assert head.startswith(b"HTTP/1.1 20"), (head, body)
        return body

    def close(self) -> None:
        """Close the connections."""
        for _, writer in self._idle:
            writer.close()


def _url(database_url: str) -> str:
    """The URL of Aegra's database: it takes no other form of a connection string."""
    parts = {name: str(value) for name, value in conninfo_to_dict(database_url).items() if name != "dbname"}
    user, password = (quote(parts.pop(name, ""), safe="") for name in ("user", "password"))
    # A "%" would be more than a character to what reads it there.
    others = urlencode(parts, safe="/")
    return f"postgresql://{user}{password and ':' + password}@/{_DATABASE}?{others}"
