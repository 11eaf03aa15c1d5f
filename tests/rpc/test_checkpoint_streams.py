"""Listings of checkpoints as streams: however much they give, the server holds little of it, and nothing once a client stops reading."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import psutil
import psycopg
import pytest

from agentstorage.v1 import checkpoints_pb2 as pb
from tests.conformance.checkpoints import Thread
from tests.service import GrpcApi, ServerProcess

MEBIBYTE = 1024 * 1024
_PATH = "/agentstorage.v1.CheckpointService/ListCheckpoints"


@pytest.fixture
async def channel(servers: dict[str, ServerProcess]) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", 64 * MEBIBYTE)]
    async with grpc.aio.insecure_channel(servers["postgres"].target, options=options) as channel:
        yield channel


@pytest.fixture
async def thread(channel: grpc.aio.Channel, owner: str) -> Thread:
    thread = Thread(GrpcApi(channel, "postgres"), owner, f"{owner}-t")
    await thread.put("0")
    return thread


async def fill(server: ServerProcess, thread: Thread, checkpoints: int, channels: int, size: int) -> None:
    """Checkpoints that each have so many channels of so many bytes, which do not compress."""
    async with await psycopg.AsyncConnection.connect(server.database_url, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint) SELECT %(thread)s, to_char(n, 'FM000000'),"
            " jsonb_build_object('v', 4, 'channel_versions', (SELECT jsonb_object_agg('c' || c, n::text)"
            " FROM generate_series(1, %(channels)s) AS c)) FROM generate_series(1, %(checkpoints)s) AS n",
            {"thread": thread.id, "channels": channels, "checkpoints": checkpoints},
        )
        await connection.execute("ALTER TABLE public.checkpoint_blobs ALTER COLUMN blob SET STORAGE EXTERNAL")
        await connection.execute(
            "INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type, blob)"
            " SELECT %(thread)s, 'c' || c, n::text, 'msgpack', decode(repeat('ab', %(size)s), 'hex')"
            " FROM generate_series(1, %(channels)s) AS c, generate_series(1, %(checkpoints)s) AS n",
            {"thread": thread.id, "channels": channels, "checkpoints": checkpoints, "size": size},
        )


class Memory:
    """The memory of a process from here on."""

    def __init__(self, server: ServerProcess) -> None:
        self._process = psutil.Process(server.process.pid)
        self.before = self._process.memory_info().rss
        self.most = self.before

    def look(self) -> None:
        self.most = max(self.most, self._process.memory_info().rss)

    @property
    def growth(self) -> int:
        return self.most - self.before


def stream(channel: grpc.aio.Channel, thread: Thread, **fields: Any) -> Any:
    request = pb.ListCheckpointsRequest(owner_id=thread.owner, thread_id=thread.id, **fields)
    return channel.unary_stream(_PATH, None, pb.ListCheckpointsResponse.FromString)(
        request.SerializeToString(), timeout=60
    )


@pytest.mark.parametrize(
    ("checkpoints", "channels", "size"), [(1000, 2, 50_000), (1, 50, 2 * MEBIBYTE), (20, 1, 5 * MEBIBYTE)]
)
async def test_a_listing_takes_little_memory(
    servers: dict[str, ServerProcess],
    channel: grpc.aio.Channel,
    thread: Thread,
    checkpoints: int,
    channels: int,
    size: int,
) -> None:
    """100 MB in many checkpoints, in one, and in few, to a client that reads more slowly than the server."""
    server = servers["postgres"]
    await fill(server, thread, checkpoints, channels, size)
    assert await thread.ids(limit=1, summary=True) == [f"{checkpoints:06}"]
    memory = Memory(server)
    found = total = 0
    async for message in stream(channel, thread):
        found += not message.more and bool(message.checkpoint.checkpoint_id or message.checkpoint.channels)
        total += sum(len(item.value) for item in message.checkpoint.channels)
        memory.look()
        if found % 50 == 0:
            await asyncio.sleep(0.001)
    assert (found, total) == (checkpoints + 1, checkpoints * channels * size)
    # Far from all of it. What the puts before have left to the process for this varies with the threads that they were sent by.
    assert memory.growth < 64 * MEBIBYTE, f"{memory.growth / MEBIBYTE:.0f} MiB"
    memory = Memory(server)
    assert len([item async for item in stream(channel, thread, summary=True)]) == checkpoints + 1
    memory.look()
    assert memory.growth < 16 * MEBIBYTE


async def test_a_client_may_stop_reading(
    servers: dict[str, ServerProcess], channel: grpc.aio.Channel, thread: Thread
) -> None:
    server = servers["postgres"]
    await fill(server, thread, 300, 1, 100_000)
    memory = Memory(server)
    for _ in range(30):
        call = stream(channel, thread)
        for _ in range(3):
            assert (await call.read()).checkpoint.checkpoint_id
        call.cancel()
    # More at once than the pool has connections: none is held by a stream that ended.
    listed = await asyncio.gather(*(thread.ids(limit=3) for _ in range(20)))
    assert all(ids == ["000300", "000299", "000298"] for ids in listed)
    memory.look()
    assert memory.growth < 48 * MEBIBYTE
    info = await thread.api.call("GetServerInfo")
    assert info.pool.waiting == 0


async def test_streams_that_nobody_reads_hold_no_connection(
    channel: grpc.aio.Channel, servers: dict[str, ServerProcess], thread: Thread
) -> None:
    await fill(servers["postgres"], thread, 300, 1, 100_000)
    idle = [stream(channel, thread) for _ in range(30)]
    for call in idle:
        assert (await call.read()).checkpoint.checkpoint_id == "000300"
    assert (await thread.get("0")).checkpoint_id == "0"
    await thread.put("0", metadata='{"again": true}')
    for call in idle:
        call.cancel()
