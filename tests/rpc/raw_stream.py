"""A stream of the exchange as the protocol has it, without the client of this project."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from agentstorage.v1 import exchange_pb2 as pb
from tests.service import METHODS, request_of

PATH = "/agentstorage.v1.ExchangeService/Exchange"
#: In the metadata that begins every stream.
INSTANCE = "agentstorage-instance"
OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
#: What ended a call: the bytes of its response, or its status.
Outcome: TypeAlias = bytes | status_pb2.Status
_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs


def path_of(method: str) -> str:
    """The path of a method by its name; what is no name of a method is a path already."""
    return f"/{METHODS[method].containing_service.full_name}/{method}" if method in METHODS else method


def call(id: int, method: str, request: Message | bytes | None = None, timeout_ms: int = 0, **fields: Any) -> pb.Call:
    """A call with a request, its bytes, or its fields as JSON has them."""
    request = request_of(method, fields) if request is None else request
    data = request if isinstance(request, bytes) else request.SerializeToString()
    return pb.Call(id=id, method=path_of(method), request=data, timeout_ms=timeout_ms)


def code_of(outcome: Outcome) -> str:
    """The name of the code of what ended a call."""
    number = outcome.code if isinstance(outcome, status_pb2.Status) else 0
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


def reason_of(outcome: Outcome) -> str:
    """The reason in the ErrorInfo of a status, or ``""``."""
    info = error_details_pb2.ErrorInfo()
    details = outcome.details if isinstance(outcome, status_pb2.Status) else ()
    return next((info.reason for detail in details if detail.Unpack(info)), "")


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The status of a failed RPC with its details."""
    trailers: Any = error.trailing_metadata() or ()
    status = status_pb2.Status.FromString(dict(trailers).get("grpc-status-details-bin", b""))
    status.code, status.message = error.code().value[0], error.details() or ""
    return status


class RawStream:
    """One stream. Every wait ends with ``TimeoutError`` after ``seconds``."""

    def __init__(self, channel: grpc.aio.Channel, *metadata: tuple[str, str | bytes], seconds: float = 20) -> None:
        stream: Any = channel.stream_stream(PATH, None, None)
        self.rpc: Any = stream(metadata=grpc.aio.Metadata(*metadata))
        self.seconds = seconds
        self.is_draining = False
        #: Every message that has come, as ids of the replies in it.
        self.messages: list[list[int]] = []
        self.outcomes: dict[int, Outcome] = {}
        self._parts: dict[int, list[bytes]] = {}

    async def send(self, *calls: pb.Call, cancels: Iterable[int] = (), in_flight: int = 0) -> None:
        """Send one message."""
        message = pb.ExchangeRequest(calls=calls, cancels=cancels, in_flight=in_flight)
        await self.send_bytes(message.SerializeToString())

    async def send_bytes(self, data: bytes) -> None:
        """Send what may be no message at all; nothing on a stream that was refused."""
        async with asyncio.timeout(self.seconds):
            # grpc takes a write that fails for the end of the stream, and forgets the status that comes.
            if INSTANCE in await self.rpc.initial_metadata():
                await self.rpc.write(data)

    async def read(self) -> bool:
        """Read one message; False at the end of the stream. Raises AioRpcError."""
        async with asyncio.timeout(self.seconds):
            data = await self.rpc.read()
        if data is _EOF:
            return False
        response = pb.ExchangeResponse.FromString(data)
        self.is_draining |= response.draining
        self.messages.append([reply.id for reply in response.replies])
        for reply in response.replies:
            assert reply.id not in self.outcomes, "a call was answered twice"
            if reply.WhichOneof("outcome") == "error":
                self.outcomes[reply.id] = status_pb2.Status.FromString(reply.error.SerializeToString())
                continue
            parts = self._parts.setdefault(reply.id, [])
            parts.append(reply.response)
            if not reply.more:
                self.outcomes[reply.id] = b"".join(self._parts.pop(reply.id))
        return True

    async def answers(self, *ids: int) -> list[Outcome]:
        """Read until these calls have ended, and give what ended them."""
        while not self.outcomes.keys() >= set(ids):
            assert await self.read(), "the stream ended"
        return [self.outcomes[id] for id in ids]

    async def ask(self, call: pb.Call) -> Outcome:
        """Send a call and wait for its end."""
        await self.send(call)
        return (await self.answers(call.id))[0]

    async def end(self) -> status_pb2.Status:
        """Read on until the stream has ended, and give its status."""
        try:
            while await self.read():
                pass
        except grpc.aio.AioRpcError as error:
            return status_of(error)
        async with asyncio.timeout(self.seconds):
            return status_pb2.Status(code=(await self.rpc.code()).value[0])

    async def close(self) -> None:
        """End this side, and wait for the other's end, which must be OK."""
        async with asyncio.timeout(self.seconds):
            await self.rpc.done_writing()
        assert (await self.end()).code == 0


async def plain(channel: grpc.aio.Channel, one: pb.Call) -> Outcome:
    """What ends a call as a plain RPC."""
    method: Any = channel.unary_unary(one.method, None, None)
    try:
        answer: bytes = await method(one.request, timeout=one.timeout_ms / 1000 or None)
    except grpc.aio.AioRpcError as error:
        return status_of(error)
    return answer
