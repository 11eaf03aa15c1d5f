"""One stream of an exchange, to one process of the service."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from agentstorage.exchange.call import LARGEST, ExchangedCall
from agentstorage.v1 import exchange_pb2 as pb

if TYPE_CHECKING:
    from agentstorage.exchange.streams import Exchange

#: Seconds without a word before a server with calls at work is asked whether it is there, and again before it is taken for frozen.
SILENCE: Final = 1.0

_PATH: Final = "/agentstorage.v1.ExchangeService/Exchange"
# The process of the service that a stream has come to, and how many calls at once it takes, in the metadata that begins it.
_INSTANCE: Final = "agentstorage-instance"
_ROOM: Final = "agentstorage-exchange-calls"
_DEFAULT_ROOM: Final = 100
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs


class Stream:
    """One stream to one process of the service."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._loop = exchange.loop
        # The stubs of grpc want arguments that it has defaults for.
        self._channel: Any = exchange.open_channel()
        self._rpc: Any = None
        self._last_id = 0
        self._unsent: deque[ExchangedCall] = deque()
        self._cancels: list[int] = []
        self._woken = asyncio.Event()
        self._asks = False
        self._asked = 0.0
        # How many further calls the server takes now.
        self._room = 0
        self.metadata = exchange.source()
        self.calls: dict[int, ExchangedCall] = {}
        self.instance = ""
        self.since = self.heard = self._loop.time()
        self.has_begun = self.is_open = self.is_suspect = False
        self._is_retired = False

    def send(self, call: ExchangedCall) -> None:
        """Send a call with the next message."""
        self._last_id += 1
        call.id = self._last_id
        call.stream = self
        call.since = self._loop.time()
        self.calls[call.id] = call
        self._unsent.append(call)
        self._woken.set()

    def cancel(self, call: ExchangedCall) -> None:
        """Tell the server that nobody waits for a call."""
        if self.calls.pop(call.id, None) is not None and call.is_sent:
            self._room += 1
            self._cancels.append(call.id)
            self._woken.set()

    def retire(self) -> None:
        """Take no more calls, and end when those at work are answered."""
        self._is_retired = True
        self.is_open = False
        self._exchange.retired(self)
        self._woken.set()

    def abandon(self) -> None:
        """End now."""
        self._exchange.retired(self)
        if self._rpc is not None:
            self._rpc.cancel()

    def is_frozen(self, now: float) -> bool:
        """Say whether a server with calls at work has said nothing for long, not even when asked."""
        oldest = next(iter(self.calls.values())).since
        silent = now - max(self.heard, oldest)
        if silent < SILENCE:
            return False
        if self._asked <= self.heard:
            self._asks, self._asked = True, now
            self._woken.set()
        self.is_suspect = self.is_suspect or now - self._asked >= SILENCE
        return self.is_suspect

    async def run(self) -> None:
        """Live: begin, carry calls, end."""
        error: grpc.aio.AioRpcError | None = None
        writing: asyncio.Task[None] | None = None
        try:
            self._rpc = self._channel.stream_stream(_PATH)(metadata=self.metadata)
            begun = await self._rpc.initial_metadata()
            if not self._rpc.done():
                self.has_begun = True
                self.instance = str(begun.get(_INSTANCE, id(self)))
                self._room = int(begun.get(_ROOM, _DEFAULT_ROOM))
                if not self._exchange.opened(self):
                    return
                writing = self._loop.create_task(self._write())
            while (data := await self._rpc.read()) is not _EOF:
                self._take(pb.ExchangeResponse.FromString(data))
            # Without an end that was announced, what is not answered may have been run.
            if not self._is_retired:
                error = _broken(await self._rpc.code(), "the stream ended")
        except grpc.aio.AioRpcError as failure:
            error = failure
        except DecodeError:
            error = _broken(grpc.StatusCode.INTERNAL, "what came is not an answer of the storage service")
        finally:
            if writing is not None:
                writing.cancel()
            if self._rpc is not None:
                self._rpc.cancel()
            self.is_open = False
            self._exchange.ended(self, error)
            await self._channel.close()

    def _take(self, response: pb.ExchangeResponse) -> None:
        self.heard = self._loop.time()
        self.is_suspect = False
        for reply in response.replies:
            if reply.more:
                call = self.calls.get(reply.id)
                if call is not None:
                    call.parts = call.parts or []
                    call.parts.append(reply.response)
                continue
            call = self.calls.pop(reply.id, None)
            if call is not None:
                self._room += 1
                self._exchange.replied(call, reply)
        if response.draining and not self._is_retired:
            self.retire()
        elif self._unsent or (self._is_retired and not self.calls):
            self._woken.set()

    async def _write(self) -> None:
        try:
            while not (self._is_retired and not self.calls):
                await self._woken.wait()
                self._woken.clear()
                while (self._unsent and self._room > 0) or self._cancels or self._asks:
                    await self._rpc.write(self._next())
            await self._rpc.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The reader learns of it too, and says why.
            return

    def _next(self) -> bytes:
        request = pb.ExchangeRequest(cancels=self._cancels)
        self._cancels.clear()
        self._asks = False
        size, now = 0, self._loop.time()
        while self._unsent and self._room > 0 and size < LARGEST:
            call = self._unsent.popleft()
            # Nobody waits for it any more, or it has gone elsewhere.
            if call.stream is not self or call.id not in self.calls:
                continue
            call.is_sent = True
            self._room -= 1
            size += len(call.data)
            left = max(1, int((call.deadline - now) * 1000))
            request.calls.add(id=call.id, method=call.method.path, request=call.data, timeout_ms=min(left, 2**32 - 1))
        return request.SerializeToString()


def _broken(code: grpc.StatusCode, text: str) -> grpc.aio.AioRpcError:
    if code in (grpc.StatusCode.OK, grpc.StatusCode.INTERNAL):
        code = grpc.StatusCode.UNAVAILABLE
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), text, None)
