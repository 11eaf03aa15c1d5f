"""One call of an exchange."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, Final

import grpc
from google.protobuf.message import DecodeError

from agentstorage.errors import DeadlineExceeded, ServerFault, StorageError
from agentstorage.methods import Method

if TYPE_CHECKING:
    from agentstorage.exchange.stream import Stream
    from agentstorage.exchange.streams import Exchange

#: Requests above this many bytes go as plain RPCs, so that nothing large holds up the others.
LARGEST: Final = 262144


class FutureCall:
    """A call that ends with a future, with the interface of grpc's own unary call. Awaiting it raises ``StorageError``."""

    __slots__ = ()

    future: asyncio.Future[Any]
    method: Method

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            return (yield from self.future.__await__())
        except asyncio.CancelledError:
            self._leave()
            raise

    def _leave(self) -> None:
        """End the work on it, for which nobody waits any more."""
        raise NotImplementedError

    def fail(self, error: BaseException) -> None:
        """End it with a failure."""
        if not self.future.done():
            self.future.set_exception(error)
            # Who does not await it has asked for no report.
            self.future.exception()

    def end_as(self, task: asyncio.Task[Any]) -> None:
        """End it as a task has ended that did its work."""
        if task.cancelled():
            self.future.cancel()
        elif (error := task.exception()) is not None:
            self.fail(error)
        elif not self.future.done():
            self.future.set_result(task.result())

    # As grpc.aio.UnaryUnaryCall has it.

    def cancel(self) -> bool:
        """Cancel the call; False when it is over."""
        if not self.future.cancel():
            return False
        self._leave()
        return True

    def cancelled(self) -> bool:
        """Say whether it was cancelled."""
        return self.future.cancelled()

    def done(self) -> bool:
        """Say whether it is over."""
        return self.future.done()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        """Call something with this call when it is over."""
        self.future.add_done_callback(lambda _: callback(self))

    async def code(self) -> grpc.StatusCode:
        """Wait for the end and say the code."""
        error = await self._error()
        return grpc.StatusCode.OK if error is None else getattr(error, "code", grpc.StatusCode.UNKNOWN)

    async def details(self) -> str:
        """Wait for the end and say what went wrong; ``""`` when nothing did."""
        error = await self._error()
        return "" if error is None else str(error)

    async def _error(self) -> BaseException | None:
        await asyncio.wait({self.future})
        if self.future.cancelled():
            return StorageError("the call was cancelled", code=grpc.StatusCode.CANCELLED, method=self.method.path)
        return self.future.exception()


class ExchangedCall(FutureCall):
    """A call of an exchange on its way."""

    __slots__ = (
        "_deserialize",
        "_exchange",
        "_plain",
        "attempts",
        "data",
        "deadline",
        "future",
        "id",
        "idempotent",
        "is_sent",
        "method",
        "parts",
        "since",
        "stream",
        "timer",
    )

    def __init__(
        self,
        exchange: Exchange,
        method: Method,
        data: bytes,
        seconds: float,
        idempotent: bool,
        deserialize: Callable[[bytes], Any],
        plain: Callable[[float], Awaitable[Any]],
    ) -> None:
        loop = exchange.loop
        self._exchange = exchange
        self._deserialize = deserialize
        self._plain = plain
        self.method = method
        self.data = data
        self.idempotent = idempotent
        self.since = loop.time()
        self.deadline = self.since + seconds
        self.future: asyncio.Future[Any] = loop.create_future()
        self.timer = loop.call_at(self.deadline, self._expire, context=exchange.context)
        self.attempts = 0
        self.id = 0
        self.stream: Stream | None = None
        # Whether a server may have it.
        self.is_sent = False
        self.parts: list[bytes] | None = None

    def _leave(self) -> None:
        self.timer.cancel()
        self._exchange.forget(self)

    def _expire(self) -> None:
        if not self.future.done():
            self._exchange.forget(self)
            self.fail(
                DeadlineExceeded(
                    f"{self.method.path} got no answer from {self._exchange.target} in time",
                    reason="",
                    method=self.method.path,
                    safe_to_retry=self.idempotent,
                )
            )

    def succeed(self, data: bytes) -> None:
        """End it with a response."""
        self.timer.cancel()
        if self.future.done():
            return
        try:
            response = self._deserialize(data)
        except DecodeError:
            text = f"{self._exchange.target} answered {self.method.path} with what is no answer to it"
            self.fail(ServerFault(text, reason="", method=self.method.path))
        except StopIteration as error:
            # The one exception that no future takes.
            failure = RuntimeError("the deserializer raised StopIteration")
            failure.__cause__ = error
            self.fail(failure)
        # Whatever a deserializer raises is for who waits for this call, not for the others of its stream.
        except Exception as error:
            self.fail(error)
        else:
            self.future.set_result(response)

    def fail(self, error: BaseException) -> None:
        """End it with a failure."""
        self.timer.cancel()
        super().fail(error)

    async def as_plain(self) -> Any:
        """Give what a plain RPC gives, for what is left of its time; that RPC keeps the time."""
        self.timer.cancel()
        return await self._plain(max(0.001, self.time_remaining()))

    # As grpc.aio.UnaryUnaryCall has it.

    def time_remaining(self) -> float:
        """Say how many seconds are left."""
        return max(0.0, self.deadline - self._exchange.loop.time())

    async def wait_for_connection(self) -> None:
        """Wait for nothing: a call that can't be sent fails when it is awaited."""

    async def initial_metadata(self) -> grpc.aio.Metadata:
        """Give no metadata: a call in an exchange has none of its own."""
        return grpc.aio.Metadata()

    async def trailing_metadata(self) -> grpc.aio.Metadata:
        """Give no metadata: what a failure carries is in its exception."""
        return grpc.aio.Metadata()
