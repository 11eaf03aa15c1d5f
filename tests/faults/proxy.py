"""A TCP proxy that breaks the network on demand, between a client and a server or between a server and its Postgres.

    async with Proxy(target_port) as proxy:
        connect(proxy.port)
        proxy.silence()

It runs on the loop of the test: whatever blocks that loop (starting a process, say) belongs in a thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType

_CHUNK = 65536


class _Link:
    """One proxied connection."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near = near
        self.far = far
        # Whether the next reply is to be lost together with the connection.
        self.cuts_reply = False

    def reset(self) -> None:
        """End both sides with an RST, as a crashed router or peer does."""
        for writer in (self.near, self.far):
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class Proxy:
    """Passes bytes to a port of this machine, late, partly or not at all. ``port`` is where it listens.

    ``delay`` is the time in seconds that each piece is held back, each way. ``limit`` is the number of bytes from the far side
    after which a connection is reset; None for no limit.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.delay = 0.0
        self.limit: int | None = None
        self.cuts = 0
        # How many of the next connections are taken and never served, whatever becomes of those after them.
        self.swallowed = 0
        self._target_port = target_port
        self._markers: list[bytes] = []
        self._refuses = False
        self._passing = asyncio.Event()
        self._passing.set()
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        self.reset()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Modes.

    def silence(self) -> None:
        """Keep connections open and take new ones, but pass nothing on: a black hole."""
        self._passing.clear()

    def refuse(self) -> None:
        """Reset every connection, and each new one as soon as it is made."""
        self._refuses = True
        self.reset()

    def restore(self) -> None:
        """Pass everything again; what was held back comes late."""
        self._refuses = False
        self.delay = 0.0
        self.limit = None
        self._markers.clear()
        self._passing.set()

    def reset(self) -> None:
        """Reset every connection that there is."""
        for link in list(self._links):
            link.reset()

    def cut_reply_to(self, marker: bytes) -> None:
        """Pass the next request that holds these bytes, and lose its reply together with the connection.

        The far side has then done what the near side cannot know of: the unknown outcome, without chance.
        """
        self._markers.append(marker)

    # Passing.

    def _accept(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        # A coroutine here would be a task of asyncio's own, which reports its cancellation as an error.
        task = asyncio.create_task(self._join(near_reader, near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: near.transport.abort())

    async def _join(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        if self.swallowed:
            self.swallowed -= 1
            await asyncio.Event().wait()
        await self._passing.wait()
        try:
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            return
        link = _Link(near, far)
        self._links.add(link)
        try:
            if self._refuses:
                return
            there = asyncio.create_task(self._pass(near_reader, far, link, replies=False))
            back = asyncio.create_task(self._pass(far_reader, near, link, replies=True))
            _, rest = await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
            for task in rest:
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
        finally:
            self._links.discard(link)
            link.reset()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link, *, replies: bool
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                await self._passing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if replies and link.cuts_reply:
                    self.cuts += 1
                    return
                if not replies:
                    for marker in [marker for marker in self._markers if marker in data]:
                        self._markers.remove(marker)
                        link.cuts_reply = True
                passed += len(data)
                if replies and self.limit is not None and passed > self.limit:
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()
