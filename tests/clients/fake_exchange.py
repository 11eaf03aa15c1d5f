"""An ExchangeService whose answers are set by a test, and that keeps what it was sent."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
from google.rpc import error_details_pb2

from agentstorage import Connection
from agentstorage.v1 import exchange_pb2 as pb
from agentstorage.v1 import exchange_pb2_grpc, threads_pb2, threads_pb2_grpc

#: Answers a call with replies, none to leave it unanswered; their ids are filled in.
Answer = Callable[[pb.Call], Awaitable[list[pb.Reply]]]
ROOM = 1000
SIZE = 67108864


class FakeExchange(exchange_pb2_grpc.ExchangeServiceServicer):
    """The service. ``messages`` holds every message, ``calls`` every call, ``cancels`` every id that was cancelled.

    ``room`` and ``size`` are how many calls and bytes at once it says that it takes, ``most`` how many calls it ever had; ``streams``
    counts the streams, ``open`` those that have not ended, ``half_closed`` those whose client has said that it sends no more. While
    ``thawed`` is cleared it neither begins a stream nor reads nor answers. ``refusal`` is what it refuses streams with.
    """

    def __init__(self, answer: Answer, instance: str = "fake", room: int = ROOM, size: int = SIZE) -> None:
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.refusal: grpc.StatusCode | None = None
        self.answer = answer
        self.instance = instance
        self.room = room
        self.size = size
        self.messages: list[pb.ExchangeRequest] = []
        self.metadata: list[dict[str, Any]] = []
        self.streams = self.open = self.most = self.half_closed = 0
        self._outs: list[asyncio.Queue[pb.ExchangeResponse | grpc.StatusCode | None]] = []

    @property
    def calls(self) -> list[pb.Call]:
        """Every call, in the order in which they came."""
        return [call for message in self.messages for call in message.calls]

    @property
    def cancels(self) -> list[int]:
        """Every id that was cancelled."""
        return [id for message in self.messages for id in message.cancels]

    def push(self, response: pb.ExchangeResponse | grpc.StatusCode) -> None:
        """Write a message on the newest stream, or end it with a status."""
        self._outs[-1].put_nowait(response)

    def end(self, number: int) -> None:
        """End a stream, as one whose end was announced."""
        self._outs[number].put_nowait(None)

    async def Exchange(  # noqa: N802 - gRPC's name for it
        self, requests: AsyncIterator[pb.ExchangeRequest], context: Any
    ) -> AsyncIterator[pb.ExchangeResponse]:
        """Serve one stream."""
        self.streams += 1
        self.metadata.append(dict(context.invocation_metadata()))
        await self.thawed.wait()
        if self.refusal is not None:
            await context.abort(self.refusal, "as told")
        out: asyncio.Queue[pb.ExchangeResponse | grpc.StatusCode | None] = asyncio.Queue()
        self._outs.append(out)
        await context.send_initial_metadata(
            (
                ("agentstorage-instance", self.instance),
                ("agentstorage-exchange-calls", str(self.room)),
                ("agentstorage-exchange-bytes", str(self.size)),
            )
        )
        self.open += 1
        running: dict[int, asyncio.Task[None]] = {}
        reading = asyncio.create_task(self._read(requests, out, running))
        try:
            while (response := await out.get()) is not None:
                await self.thawed.wait()
                if isinstance(response, grpc.StatusCode):
                    await context.abort(response, "as told")
                else:
                    yield response
        finally:
            self.open -= 1
            for task in (reading, *running.values()):
                task.cancel()

    async def _read(
        self,
        requests: AsyncIterator[pb.ExchangeRequest],
        out: asyncio.Queue[Any],
        running: dict[int, asyncio.Task[None]],
    ) -> None:
        async for message in requests:
            await self.thawed.wait()
            self.messages.append(message)
            if not message.calls and not message.cancels:
                out.put_nowait(pb.ExchangeResponse())
            for id in message.cancels:
                if id in running:
                    running.pop(id).cancel()
            for call in message.calls:
                assert call.id not in running
                running[call.id] = asyncio.create_task(self._answer(call, out))
                running[call.id].add_done_callback(functools.partial(self._ended, running, call.id))
            self.most = max(self.most, len(running))
        self.half_closed += 1
        out.put_nowait(None)

    async def until_called(self, times: int) -> None:
        """Wait until so many calls have come."""
        await until(lambda: len(self.calls) >= times)

    @staticmethod
    def _ended(running: dict[int, asyncio.Task[None]], id: int, _: asyncio.Task[None]) -> None:
        running.pop(id, None)

    async def _answer(self, call: pb.Call, out: asyncio.Queue[Any]) -> None:
        replies = await self.answer(call)
        for reply in replies:
            reply.id = call.id
            # Each in a message of its own.
            out.put_nowait(pb.ExchangeResponse(replies=[reply]))
        if not replies:
            await asyncio.Event().wait()


async def until(check: Callable[[], object]) -> None:
    """Wait until a check is true, 5 s at most."""
    async with asyncio.timeout(5):
        while not check():  # noqa: ASYNC110 - what is waited for is not of this loop's making
            await asyncio.sleep(0.01)


class Plain:
    """Answers plain RPCs of GetThread and counts them; ``ended`` counts those that were cancelled."""

    def __init__(self) -> None:
        self.calls = self.ended = 0
        self.hangs = False

    def servicer(self) -> Any:
        """The service, in which the generated one leaves all other methods unimplemented."""

        async def get_thread(_: Any, request: Any, __: Any) -> Any:
            return await self._answer(request)

        base: Any = threads_pb2_grpc.ThreadServiceServicer
        return type("Servicer", (base,), {"GetThread": get_thread})()

    async def _answer(self, request: Any) -> Any:
        self.calls += 1
        if self.hangs:
            try:
                await asyncio.Event().wait()
            finally:
                self.ended += 1
        return threads_pb2.GetThreadResponse(thread=threads_pb2.Thread(thread_id=request.thread_id))


async def echo(call: pb.Call) -> list[pb.Reply]:
    """Answer a GetThread with a thread of that id, and any other call with an empty message."""
    if not call.method.endswith("/GetThread"):
        return [pb.Reply(response=b"")]
    thread = threads_pb2.Thread(thread_id=threads_pb2.GetThreadRequest.FromString(call.request).thread_id)
    return [pb.Reply(response=threads_pb2.GetThreadResponse(thread=thread).SerializeToString())]


def stub_of(connection: Connection) -> Any:
    """The stub of the calls here."""
    return connection.stub(threads_pb2_grpc.ThreadServiceStub)


def get(connection: Connection, number: object = 0, **options: Any) -> Any:
    """Begin an idempotent call."""
    return stub_of(connection).GetThread(threads_pb2.GetThreadRequest(thread_id=str(number)), **options)


def copy(connection: Connection, number: object = 0, **options: Any) -> Any:
    """Begin a call that is not."""
    return stub_of(connection).CopyThread(threads_pb2.CopyThreadRequest(thread_id=str(number)), **options)


async def outcomes(*calls: Awaitable[Any]) -> Counter[str]:
    """How often calls ended in which way."""
    ends = await asyncio.gather(*calls, return_exceptions=True)
    return Counter(type(end).__name__ if isinstance(end, BaseException) else "ok" for end in ends)


async def never(_: pb.Call) -> list[pb.Reply]:
    """Answer nothing."""
    return []


def failing(code: grpc.StatusCode, reason: str = "") -> pb.Reply:
    """A reply that says so."""
    status = pb.Status(code=code.value[0], message="as told")
    if reason:
        info = error_details_pb2.ErrorInfo(domain="agentstorage", reason=f"ERROR_REASON_{reason}")
        status.details.add().Pack(info)
    return pb.Reply(error=status)


@contextlib.asynccontextmanager
async def serving(exchange: FakeExchange | None, plain: Plain | None = None, port: int = 0) -> AsyncIterator[str]:
    """Serve them; gives the target."""
    server = grpc.aio.server()
    if exchange is not None:
        exchange_pb2_grpc.add_ExchangeServiceServicer_to_server(exchange, server)
    threads_pb2_grpc.add_ThreadServiceServicer_to_server((plain or Plain()).servicer(), server)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        if exchange is not None:
            exchange.thawed.set()
        await server.stop(None)
