"""How the benchmarks ask Aegra for what they ask the service for."""

from __future__ import annotations

import asyncio
import json

import pytest
from google.protobuf.json_format import MessageToDict

from benchmarks import aegra
from benchmarks.operations import METHODS, Rows
from benchmarks.run import make_peers


@pytest.mark.parametrize("method", sorted(aegra.REQUESTS))
async def test_requests_are_http(method: str) -> None:
    seen: list[tuple[str, bytes]] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(3):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"content-length: ")[2].split()[0])
            seen.append((head.decode().split(" HTTP/1.1")[0], await reader.readexactly(length)))
            status = "404 Not Found" if len(seen) == 3 else "200 OK"
            writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        writer.close()

    rows = Rows.of_size(1024)
    request = aegra.REQUESTS[method](MessageToDict(next(METHODS[method].requests(rows))))
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        http = aegra.Http(server.sockets[0].getsockname()[1])
        # The second one on the connection of the first.
        assert [await http.ask(request), await http.ask(request)] == [b"{}", b"{}"]
        with pytest.raises(AssertionError, match="404"):
            await http.ask(request)
        http.close()
    line, body = seen[0]
    assert line.split("?")[0].split()[0] in ("GET", "POST", "PUT")
    assert (line.startswith("GET")) == (body == b"")
    if method in ("CreateThread", "PutItem"):
        assert len(body) > 1024
        assert json.loads(body)


def test_it_is_run_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BENCHMARK_AEGRA", raising=False)
    names = ("postgres", "aegra")
    assert [peer.name for peer in make_peers(names, "postgresql:///x", {})] == ["postgres"]
    monkeypatch.setenv("BENCHMARK_AEGRA", "/somewhere/python")
    assert [peer.name for peer in make_peers(names, "postgresql:///x", {})] == ["postgres", "Aegra"]
