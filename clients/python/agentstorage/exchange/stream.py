"""One stream of an exchange, to one process of the service."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
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
_BYTES: Final = "agentstorage-exchange-bytes"
_DEFAULT_ROOM: Final = 100
# Half of what a server takes by default, in bytes of requests: the other half is for replies.
_MOST_BYTES: Final = 33554432
# How often a connection is asked for another process: over several addresses, the calls of a channel go round.
_TRIES: Final = 3
_LONGEST_MS: Final = 2**32 - 1
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
        self._unsent: OrderedDict[int, ExchangedCall] = OrderedDict()
        self._cancels: list[int] = []
        self._woken = asyncio.Event()
        self._asks = False
        self._asked = 0.0
        # How many further calls the server takes now, and how many bytes are in those that it has.
        self._room = self._bytes = 0
        self._most_bytes = _MOST_BYTES
        self.metadata = exchange.source()
        self.calls: dict[int, ExchangedCall] = {}
        self.instance = ""
        self.since = self.heard = self._loop.time()
        self.has_begun = self.is_open = self.is_suspect = False
        # Whether the server has said that it answers what it has and refuses the rest.
        self.is_draining = False
        self._is_retired = self._is_abandoned = False

    def send(self, call: ExchangedCall) -> None:
        """Send a call with the next message."""
        self._last_id += 1
        call.id = self._last_id
        call.stream = self
        call.since = self._loop.time()
        self.calls[call.id] = self._unsent[call.id] = call
        self._woken.set()

    def cancel(self, call: ExchangedCall) -> None:
        """Tell the server that nobody waits for a call."""
        if self.calls.pop(call.id, None) is None:
            return
        if call.is_sent:
            self._free(call)
            self._cancels.append(call.id)
        else:
            del self._unsent[call.id]
        self._woken.set()

    def retire(self) -> None:
        """Take no more calls, hand on those that are not sent, and end when those at work are answered."""
        self._is_retired = True
        self.is_open = False
        self._exchange.retired(self)
        unsent, self._unsent = self._unsent, OrderedDict()
        for call in unsent.values():
            del self.calls[call.id]
            self._exchange.send(call)
        self._woken.set()

    def abandon(self) -> None:
        """End now, before it has begun."""
        self._is_abandoned = True
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
        # What is not answered may have been run, unless something better is known.
        error: grpc.aio.AioRpcError | None = _broken("the stream ended")
        writing: asyncio.Task[None] | None = None
        try:
            begun = await self._begin()
            # A stream that is refused may have metadata too, but not this.
            if _INSTANCE in begun:
                self.has_begun = True
                self.instance = str(begun[_INSTANCE])
                # However little a server says that it takes, there is always room for one call.
                self._room = max(1, int(begun.get(_ROOM, _DEFAULT_ROOM)))
                # Half of what the server takes, since others' answers count there too.
                self._most_bytes = max(1, int(begun.get(_BYTES, 2 * _MOST_BYTES)) // 2)
                if not self._exchange.opened(self):
                    error = None
                    return
                writing = self._loop.create_task(self._write())
            while (data := await self._rpc.read()) is not _EOF:
                self._take(pb.ExchangeResponse.FromString(data))
            if self.is_draining:
                error = None
        except grpc.aio.AioRpcError as failure:
            error = failure
        except DecodeError:
            error = _broken("what came is not an answer of the storage service")
        except asyncio.CancelledError:
            error = None
            if not self._is_abandoned:
                # The loop ends, or all of its tasks: nothing may begin again here.
                self._exchange.shut()
                raise
        finally:
            # In a loop that was closed nobody waits any more, and nobody can be told of anything.
            if not self._loop.is_closed():
                if writing is not None:
                    writing.cancel()
                if self._rpc is not None:
                    self._rpc.cancel()
                self.is_open = False
                self._exchange.ended(self, error)
                await self._channel.close()

    async def _begin(self) -> Any:
        """Begin, at a process that has no stream yet where the channel has one to offer; gives the metadata."""
        for left in reversed(range(_TRIES)):
            self._rpc = self._channel.stream_stream(_PATH)(metadata=self.metadata)
            begun = await self._rpc.initial_metadata()
            if not left or not self._exchange.knows(begun.get(_INSTANCE)) or self._is_abandoned:
                break
            self._rpc.cancel()
        return begun

    def _take(self, response: pb.ExchangeResponse) -> None:
        self.heard = self._loop.time()
        self.is_suspect = False
        if response.draining and not self.is_draining:
            self.is_draining = True
            if not self._is_retired:
                self.retire()
        for reply in response.replies:
            if reply.more:
                call = self.calls.get(reply.id)
                if call is not None:
                    call.parts = call.parts or []
                    call.parts.append(reply.response)
                continue
            call = self.calls.pop(reply.id, None)
            if call is not None:
                self._free(call)
                self._exchange.replied(call, reply, self)
        self._exchange.heard()
        if self._unsent or (self._is_retired and not self.calls):
            self._woken.set()

    async def _write(self) -> None:
        try:
            while not (self._is_retired and not self.calls):
                await self._woken.wait()
                self._woken.clear()
                while (self._unsent and self._has_room()) or self._cancels or self._asks:
                    await self._rpc.write(self._next())
            await self._rpc.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            # The reader learns of it too, and says why.
            return

    def _has_room(self) -> bool:
        return self._room > 0 and self._bytes < self._most_bytes

    def _free(self, call: ExchangedCall) -> None:
        self._room += 1
        self._bytes -= len(call.data)

    def _next(self) -> bytes:
        request = pb.ExchangeRequest(cancels=self._cancels, in_flight=len(self.calls))
        self._cancels.clear()
        self._asks = False
        size, now = 0, self._loop.time()
        while self._unsent and self._has_room() and size < LARGEST:
            id, call = self._unsent.popitem(last=False)
            call.is_sent = True
            self._room -= 1
            size += len(call.data)
            self._bytes += len(call.data)
            left = int(min(max((call.deadline - now) * 1000, 1), _LONGEST_MS))
            request.calls.add(id=id, method=call.method.path, request=call.data, timeout_ms=left)
        return request.SerializeToString()


def _broken(text: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), text, None)
