"""Credentials: who is let in, for which owner, and with which right (B51 to B54)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2

from agentstorage.v1 import common_pb2, server_pb2, threads_pb2
from agentstorage.v1 import exchange_pb2 as pb
from tests.postgres_server import PostgresServer
from tests.rpc.raw_stream import RawStream, code_of, reason_of, status_of
from tests.service import ServerProcess

_ONE, _ALL, _CHIEF = "token-of-one-canary-7f3a9c", "token-of-all-canary-7f3a9c", "token-of-chief-canary-7f3a9c"
_TOKENS = f"""
[[token]]
name = "one"
token = "{_ONE}"
owners = ["alice"]

[[token]]
name = "all"
token = "{_ALL}"
owners = "all"

[[token]]
name = "chief"
token = "{_CHIEF}"
owners = "all"
rights = ["unscoped", "admin"]
"""
_SERVICE = "/agentstorage.v1.ThreadService/"
Pairs = tuple[tuple[str, str | bytes], ...]


@pytest.fixture(scope="module", params=("memory", "postgres"))
def server(
    request: pytest.FixtureRequest, postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    """A server that asks for tokens; its log holds none of them."""
    url = postgres_server.url(postgres_server.create_database()) if request.param == "postgres" else ""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(_TOKENS)
    environment = {"STORAGE_TOKEN_FILE": str(file), "STORAGE_LOG_LEVEL": "INFO"}
    process = ServerProcess(request.param, url, environment=environment).start()
    with process.log.open() as log:
        yield process
        process.stop()
        text = log.read()
    assert "canary" not in text
    assert '"UNAUTHENTICATED"' in text


@dataclass(frozen=True)
class Door:
    """A channel to a server, and whether calls go through the exchange, each on a stream of its own."""

    channel: Any
    is_exchange: bool

    async def status(self, path: str, request: bytes, metadata: Pairs) -> status_pb2.Status | None:
        """Why a call with this metadata fails, or None."""
        if self.is_exchange:
            stream = RawStream(self.channel, *metadata)
            try:
                found = await stream.ask(pb.Call(id=1, method=path, request=request))
            except grpc.aio.AioRpcError:
                return await stream.end()
            await stream.close()
            return found if isinstance(found, status_pb2.Status) else None
        try:
            await self.channel.unary_unary(path)(request, timeout=10, metadata=grpc.aio.Metadata(*metadata))
        except grpc.aio.AioRpcError as error:
            return status_of(error)
        return None


@pytest.fixture(params=(False, True), ids=("grpc", "exchange"))
async def channel(server: ServerProcess, request: pytest.FixtureRequest) -> AsyncIterator[Door]:
    """A channel to it."""
    async with grpc.aio.insecure_channel(server.target) as channel:
        yield Door(channel, request.param)


async def outcome(
    channel: Door,
    metadata: Pairs,
    owner: str | None = "alice",
    path: str = f"{_SERVICE}SearchThreads",
    data: bytes = b"",
) -> tuple[str, str]:
    """The code and reason of a call with this metadata."""
    request = data or threads_pb2.SearchThreadsRequest(owner_id=owner).SerializeToString()
    status = await channel.status(path, request, metadata)
    if status is None:
        return "OK", ""
    assert b"canary" not in status.SerializeToString()
    return code_of(status), reason_of(status)


def bearer(token: str) -> Pairs:
    """Metadata with a token."""
    return (("authorization", f"Bearer {token}"),)


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", ""),),
        (("authorization", "Bearer"),),
        (("authorization", "Bearer "),),
        (("authorization", _ONE),),
        (("authorization", f"Basic {_ONE}"),),
        (("authorization", f"Bearer {_ONE}x"),),
        (("authorization", f"Bearer {_ONE[:-1]}"),),
        (("authorization", f"Bearer {_ONE.upper()}"),),
        (("authorization", f"Bearer {_ONE},Bearer {_ALL}"),),
        (*bearer(_ONE), *bearer(_ONE)),
        (*bearer(_ONE), *bearer(_CHIEF)),
        (*bearer("unknown-canary"), *bearer(_ONE)),
        (("authorization-bin", f"Bearer {_ONE}".encode()),),
        (("x-authorization", f"Bearer {_ONE}"),),
        (("x-owner", "alice"),),
        (("token", _ONE),),
    ],
)
async def test_without_a_known_token(channel: Door, metadata: Pairs) -> None:
    """B51, B53: missing, malformed, unknown, given twice, or under another name."""
    assert await outcome(channel, metadata) == ("UNAUTHENTICATED", "UNAUTHENTICATED")
    # Before anything else is said of the request.
    assert await outcome(channel, metadata, data=b"\xff\xff") == ("UNAUTHENTICATED", "UNAUTHENTICATED")


async def test_the_owner_is_the_credentials(channel: Door) -> None:
    """B52: a token acts for its own owners only, whatever other metadata says."""
    assert await outcome(channel, bearer(_ONE)) == ("OK", "")
    assert await outcome(channel, (("authorization", f"bearer {_ONE}"),)) == ("OK", "")
    for owner in ("bob", "Alice", "alice ", "system", "al"):
        assert await outcome(channel, bearer(_ONE), owner) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    lie: Pairs = (*bearer(_ONE), ("x-owner", "bob"), ("owner_id", "bob"))
    assert await outcome(channel, lie, "bob") == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    create = threads_pb2.CreateThreadRequest(owner_id="bob", thread_id="of-bob").SerializeToString()
    denied = await outcome(channel, bearer(_ONE), path=f"{_SERVICE}CreateThread", data=create)
    assert denied == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    got = threads_pb2.GetThreadRequest(owner_id="bob", thread_id="of-bob").SerializeToString()
    assert await outcome(channel, bearer(_ALL), path=f"{_SERVICE}GetThread", data=got) == ("NOT_FOUND", "NOT_FOUND")


@pytest.mark.parametrize("token", [_ONE, _ALL, _CHIEF])
async def test_no_text_stands_for_all_owners(channel: Door, token: str) -> None:
    """B54."""
    for owner in ("", "*", "%", "\0", "a" * 256):
        assert await outcome(channel, bearer(token), owner) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert await outcome(channel, bearer(token), "NULL") == (
        ("PERMISSION_DENIED", "PERMISSION_DENIED") if token == _ONE else ("OK", "")
    )


async def test_rights(channel: Door) -> None:
    """Calls without an owner and of the administrator need a right of their own, also from who may act for all owners."""
    for token, code, reason in (
        (_ONE, "INVALID_ARGUMENT", "OWNER_REQUIRED"),
        (_ALL, "INVALID_ARGUMENT", "OWNER_REQUIRED"),
        (_CHIEF, "OK", ""),
    ):
        nobody = threads_pb2.SearchThreadsRequest(page_size=1).SerializeToString()
        assert await outcome(channel, bearer(token), data=nobody) == (code, reason)
    truncate = server_pb2.TruncateRequest(resources=[common_pb2.RESOURCE_THREADS]).SerializeToString()
    path = "/agentstorage.v1.ServerService/Truncate"
    for token, code in ((_ONE, "PERMISSION_DENIED"), (_ALL, "PERMISSION_DENIED"), (_CHIEF, "OK")):
        assert (await outcome(channel, bearer(token), path=path, data=truncate))[0] == code


async def test_what_is_open_to_all(channel: Door) -> None:
    """Health says how the server is, to anybody; nothing of the service itself is open."""
    assert await channel.channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=5)
    info = await outcome(channel, (), path="/agentstorage.v1.ServerService/GetServerInfo", data=b"\x08\x01")
    assert info == ("UNAUTHENTICATED", "UNAUTHENTICATED")
