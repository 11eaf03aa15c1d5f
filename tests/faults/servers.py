"""Servers that a test starts, breaks and leaves behind, and ways to look at them from outside."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

import grpc
import pytest
from grpc_health.v1 import health_pb2

from tests.service import CallFailed, GrpcApi, ServerProcess

#: The fixture ``record_property`` of pytest: puts a measured figure into the report.
Record: TypeAlias = Callable[[str, object], None]


class Serve(Protocol):
    """Starts a server that ends with the test."""

    async def __call__(
        self,
        database_url: str = "",
        *arguments: str,
        environment: Mapping[str, str] = {},
        port: int = 0,
    ) -> ServerProcess:
        """A server on a database, or on memory."""
        ...


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts servers that end with the test, without blocking the loop of the test."""
    started: list[ServerProcess] = []

    async def start(
        database_url: str = "",
        *arguments: str,
        environment: Mapping[str, str] = {},
        port: int = 0,
    ) -> ServerProcess:
        server = ServerProcess(
            "postgres" if database_url or arguments else "memory", database_url, arguments, environment, port
        )
        started.append(server)
        return await asyncio.to_thread(server.start)

    yield start
    for server in started:
        end(server)


def end(server: ServerProcess) -> None:
    """End a server that may have ended before, or may never have started."""
    if hasattr(server, "process"):
        server.kill()


async def until(check: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Wait until a check is true; gives how long that took. AssertionError when it takes more than so many seconds."""
    started = time.monotonic()
    while not await check():
        waited = time.monotonic() - started
        assert waited < seconds, f"not so within {seconds} s"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def health(channel: grpc.aio.Channel, service: str = "") -> str:
    """What the health service says, or the name of the status with which asking failed."""
    check = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    try:
        response = await check(health_pb2.HealthCheckRequest(service=service), timeout=2)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(response.status))


async def until_healthy(channel: grpc.aio.Channel, seconds: float, status: str = "SERVING") -> float:
    """Wait until the health service says so; gives how long that took."""

    async def says_so() -> bool:
        return await health(channel) == status

    return await until(says_so, seconds)


async def until_ok(api: GrpcApi, seconds: float, owner: str = "probe") -> float:
    """Wait until a write is acknowledged; gives how long that took."""

    async def succeeds() -> bool:
        try:
            await api.call("PutItem", owner_id=owner, namespace=["probe"], key="k", value="1")
        except CallFailed:
            return False
        return True

    return await until(succeeds, seconds)


def troubles(log: Path) -> list[str]:
    """The lines of a log that tell of a fault of the server: errors, tracebacks, anything that is not a line of JSON."""
    return [line for line in log.read_text().splitlines() if _level(line) not in ("debug", "info", "warning")]


def _level(line: str) -> str:
    try:
        return str(json.loads(line)["level"])
    except (ValueError, KeyError, TypeError):
        return "none"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the service to its end, with nothing else in its environment."""
    return subprocess.run(
        [sys.executable, "-m", "storage_service", *arguments],
        env={"PATH": "/usr/bin:/bin", "HOME": "/tmp", **environment},  # noqa: S108 - only named, not used
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
