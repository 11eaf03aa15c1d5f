"""The one pipeline of every call: raw bytes in, raw bytes out, or a failure with a rich status.

    bytes ─> caller ─> decode ─> owner ─> validate ─> service method ─> bytes
                └──────────── any failure ──────────> google.rpc.Status
                                    and one log line

It decodes by itself because grpc, left to do it, answers a malformed message with UNKNOWN and the text of the exception. Unary calls of
grpc.aio enter by :meth:`Pipeline.answer`; so may any other way in that has bytes, metadata and a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NoReturn, TypeVar

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from agentstorage.v1 import options_pb2, server_pb2
from storage_service import errors
from storage_service.caller import AllOwners, Caller, Callers, Owner, Scope
from storage_service.callline import Line
from storage_service.figures import Figures
from storage_service.logs import Lines
from storage_service.services import Call
from storage_service.settings import Limits
from storage_service.status import status_of
from storage_service.store import Store, too_large
from storage_service.validate import Validator, check_id

log = logging.getLogger("storage_service.calls")

T = TypeVar("T")
Metadata = Sequence[tuple[str, str | bytes]]
Identity = Caller | Metadata
_DETAILS: Final = "grpc-status-details-bin"
# A request of so many bytes is large.
_LARGE: Final = 1024 * 1024
# The part of the places of calls that those may fill that wait, and streams.
_MAY_WAIT: Final = 0.8


@dataclass(frozen=True, slots=True)
class Method:
    """A method of the API with what answers it."""

    path: str
    request: type[Message]
    response: type[Message]
    validator: Validator
    handler: Callable[[Any, Call], Any]
    owner: int
    admin: bool
    waits: bool
    streams: bool
    figures: Figures = field(default_factory=Figures, compare=False)


@lru_cache(maxsize=4096)
def _owner(owner_id: str) -> Owner:
    """The owner that a request names. Raises InvalidRequest."""
    wrong = check_id(owner_id)
    if not wrong and owner_id in ("*", "%"):
        wrong = "names no owner; nothing stands for all of them"
    if wrong:
        raise errors.InvalidRequest(violations={"owner_id": wrong})
    return Owner(owner_id)


class Pipeline:
    """Answers calls with the methods that are registered."""

    def __init__(self, store: Store, callers: Callers, limits: Limits, lines: Lines | None = None) -> None:
        self._store = store
        self._lines = lines
        self._callers = callers
        self._limits = limits
        self._methods: dict[str, Method] = {}
        self._handlers: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {}
        # What reads large requests.
        self._readers = ThreadPoolExecutor(2, "requests")
        self._in_flight = 0
        self._bytes_in_flight = 0
        self._draining = False
        self.services: list[str] = []

    def register(self, service: ServiceDescriptor, implementation: object) -> None:
        """Answer the methods of a service with those of an object: ``GetThread`` with ``get_thread``."""
        self.services.append(service.full_name)
        for descriptor in service.methods:
            method = self._method(descriptor, implementation)
            self._methods[method.path] = method
            self._handlers[method.path] = self._handler(method)

    def _method(self, descriptor: MethodDescriptor, implementation: object) -> Method:
        name = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in descriptor.name).lstrip("_")
        rule: options_pb2.MethodRule = descriptor.GetOptions().Extensions[options_pb2.admission]  # type: ignore[index]  # the stubs know no extension
        return Method(
            path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
            request=GetMessageClass(descriptor.input_type),
            response=GetMessageClass(descriptor.output_type),
            validator=Validator(descriptor.input_type, self._limits),
            handler=getattr(implementation, name),
            owner=rule.owner,
            admin=rule.admin,
            waits=rule.waits,
            streams=descriptor.server_streaming,
            figures=Figures(waits=descriptor.server_streaming or rule.waits),
        )

    def method(self, path: str) -> Method | None:
        """The method of a path, ``/package.Service/Method``; None for what is not registered."""
        return self._methods.get(path)

    def figures(self) -> list[server_pb2.MethodFigures]:
        """How the calls of the methods went that were called, since this pipeline is there."""
        return [method.figures.message(path) for path, method in self._methods.items() if method.figures.calls]

    def identify(self, metadata: Metadata) -> Caller:
        """The caller behind the metadata of a call. Raises Unauthenticated."""
        return self._callers.identify(metadata)

    def refuse_calls(self) -> None:
        """Answer new calls with UNAVAILABLE from now on."""
        self._draining = True

    async def idle(self, seconds: float) -> None:
        """Wait until no call is at work, but no longer than so long."""
        deadline = time.monotonic() + seconds
        while self._in_flight and time.monotonic() < deadline:  # noqa: ASYNC110 - an event would cost every call
            await asyncio.sleep(0.01)

    # The ways in.

    def service(self, call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a path, as grpc asks for it with each call; None for what is not registered."""
        return self._handlers.get(call_details.method)

    def _handler(self, method: Method) -> grpc.RpcMethodHandler[bytes, bytes]:
        """What grpc.aio calls for a method: this pipeline between it and the context."""
        if method.streams:

            async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
                try:
                    async for response in self.stream(method, request, context.invocation_metadata() or ()):
                        yield response
                    return
                except Exception as error:
                    failure = presentable(error)
                await abort(context, failure)

            return grpc.unary_stream_rpc_method_handler(stream)

        async def unary(request: bytes, context: Any) -> bytes:
            try:
                return await self.answer(method, request, context.invocation_metadata() or (), context.time_remaining())
            except Exception as error:
                failure = presentable(error)
            await abort(context, failure)
            raise failure

        return grpc.unary_unary_rpc_method_handler(unary)

    async def answer(
        self, method: Method, data: bytes, identity: Identity, seconds: float | None, *, is_admitted: bool = False
    ) -> bytes:
        """Answer a unary call that has ``seconds`` left, or None for as long as the server allows. Raises only Failures.

        ``identity`` is the caller, or the metadata that tells who it is. Who knows the call's deadline ends this by cancelling it;
        without one, or with a longer one than the server's, it ends here. The place of a call that :meth:`admit` gave is free
        afterwards.
        """
        line = Line(method.path, len(data), method.figures, self._lines)
        limit = self._limits.stream_seconds if method.waits else self._limits.call_seconds
        left = min(limit, seconds if seconds is not None else limit)
        answering = self._answer(method, data, identity, left, line, is_admitted)
        try:
            response = await (answering if seconds is not None and seconds <= limit else _within(answering, limit))
        # What is no failure is a fault of the server: its text stays in here.
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error, line)
        line.bytes_out = len(response)
        line.write(grpc.StatusCode.OK, None)
        return response

    async def stream(self, method: Method, data: bytes, metadata: Metadata) -> AsyncIterator[bytes]:
        """Answer a call with a stream; otherwise as :meth:`answer`."""
        line = Line(method.path, len(data), method.figures, self._lines)
        try:
            self.admit(method, len(data))
            try:
                caller = self._caller(method, metadata, line)
                request, call = self._open(method, data, caller, self._limits.stream_seconds, line)
                messages = method.handler(request, call)
                while (message := await _within(anext(messages, None), call.seconds())) is not None:
                    response = self._encode(message)
                    line.bytes_out += len(response)
                    yield response
            finally:
                self.leave(len(data))
        except GeneratorExit:
            line.write(grpc.StatusCode.CANCELLED, None)
            raise
        except (Exception, asyncio.CancelledError) as error:
            self._fail(error, line)
        line.write(grpc.StatusCode.OK, None)

    def refuse(self, method: Method, size: int, caller: Caller, failure: errors.Failure | None) -> None:
        """Log and count a call of so many bytes that ended before it came to :meth:`answer`; without a failure its client gave up."""
        line = Line(method.path, size, method.figures, self._lines)
        line.caller = caller.name
        line.write(failure.code if failure is not None else grpc.StatusCode.CANCELLED, failure)

    def admit(self, method: Method, size: int) -> None:
        """Give a call of so many bytes its place among those at work. Raises ShuttingDown and LimitReached.

        Those that wait, and streams, leave some of the places to the others: heartbeats must not fail because workers wait.
        """
        if self._draining:
            raise errors.ShuttingDown()
        if (method.waits or method.streams) and self._in_flight >= self._limits.calls_in_flight * _MAY_WAIT:
            raise errors.LimitReached("too many calls that wait, and streams, at once")
        if self._in_flight >= self._limits.calls_in_flight:
            raise errors.LimitReached("too many calls at once")
        if self._in_flight and self._bytes_in_flight + size > self._limits.bytes_in_flight:
            raise errors.LimitReached("too many bytes of requests at once")
        self._in_flight += 1
        self._bytes_in_flight += size

    def leave(self, size: int) -> None:
        """Free the place of a call."""
        self._in_flight -= 1
        self._bytes_in_flight -= size

    # The steps.

    async def _answer(
        self, method: Method, data: bytes, identity: Identity, seconds: float, line: Line, is_admitted: bool
    ) -> bytes:
        size = len(data)
        if not is_admitted:
            self.admit(method, size)
        reading: Future[tuple[Message, Call]] | None = None
        try:
            caller = self._caller(method, identity, line)
            if size < _LARGE:
                request, call = self._open(method, data, caller, seconds, line)
            else:
                # Others get a turn in between, as often as what reads it lets them.
                reading = self._readers.submit(self._open, method, data, caller, seconds, line)
                request, call = await asyncio.wrap_future(reading)
            return self._encode(await method.handler(request, call))
        finally:
            if reading is None or reading.done():
                self.leave(size)
            else:
                # The caller has gone, and the request is still being read.
                reading.add_done_callback(functools.partial(self._leave_later, asyncio.get_running_loop(), size))

    def _leave_later(self, loop: asyncio.AbstractEventLoop, size: int, _: Future[Any]) -> None:
        # A loop that has ended counts no more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self.leave, size)

    def _caller(self, method: Method, identity: Identity, line: Line) -> Caller:
        """Who calls, and may."""
        caller = identity if isinstance(identity, Caller) else self._callers.identify(identity)
        line.caller = caller.name
        if method.admin and "admin" not in caller.rights:
            raise errors.PermissionDenied('the method needs the right "admin"')
        return caller

    def _open(self, method: Method, data: bytes, caller: Caller, seconds: float, line: Line) -> tuple[Message, Call]:
        """Decoding, owner and validation: all that comes between the caller and the method."""
        try:
            request = method.request.FromString(data)
        except DecodeError as error:
            raise errors.InvalidRequest("the request is not a message of the method's type") from error
        scope = self._scope(method, request, caller)
        line.owner = scope.id if isinstance(scope, Owner) else ""
        method.validator.check(request)
        return request, Call(caller, scope, time.monotonic() + seconds, self._store, self._limits)

    @staticmethod
    def _scope(method: Method, request: Any, caller: Caller) -> Scope:
        if method.owner == options_pb2.OWNER_USE_NONE:
            return AllOwners()
        if request.HasField("owner_id"):
            return caller.scope(_owner(request.owner_id))
        if method.owner == options_pb2.OWNER_USE_REQUIRED:
            raise errors.OwnerRequired(violations={"owner_id": "is required"})
        return caller.scope(None)

    def _encode(self, message: Message) -> bytes:
        data: bytes = message.SerializeToString()
        if len(data) > self._limits.message_bytes:
            raise too_large()
        return data

    def _fail(self, error: BaseException, line: Line) -> NoReturn:
        """Log what went wrong, and raise what it is to the client."""
        failure: errors.Failure
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # Whoever cancels for another reason than that the client gave up gives it as the message.
                reason = error.args[0] if error.args else None
                if isinstance(reason, errors.Failure):
                    line.write(reason.code, reason)
                else:
                    line.write(grpc.StatusCode.CANCELLED, None)
                raise error
            # Not the call was cancelled but something inside it, when it may have been done. grpc would leave the client waiting.
            failure = errors.DatabaseUnavailable("the server ended the call")
        elif isinstance(error, errors.Failure):
            line.write(error.code, error, error if isinstance(error, errors.ServerFault) else None)
            raise error
        elif getattr(error, "sqlstate", None) in ("XX001", "XX002"):
            failure = errors.DataLoss(secrets.token_hex(8))
        else:
            failure = errors.ServerFault(secrets.token_hex(8))
        line.write(failure.code, failure, error if isinstance(failure, errors.ServerFault) else None)
        raise failure from error


async def _within(work: Awaitable[T], seconds: float) -> T:
    """Await work for so long, then leave it behind: a frozen database would hold up its cancellation for seconds more."""

    async def awaited() -> T:
        return await work

    task = asyncio.create_task(awaited())
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    except asyncio.CancelledError:
        task.add_done_callback(_forget)
        task.cancel()
        raise
    if not done:
        task.add_done_callback(_forget)
        task.cancel()
        raise errors.DeadlineExceeded()
    return task.result()


def presentable(error: Exception) -> errors.Failure:
    """The failure, or, for a fault of the pipeline's own, one that says nothing: grpc would tell the client its text."""
    if isinstance(error, errors.Failure):
        return error
    failure = errors.ServerFault(secrets.token_hex(8))
    log.error("fault", extra={"fields": {"error_id": failure.metadata["error_id"]}}, exc_info=error)
    return failure


def _forget(task: asyncio.Task[Any]) -> None:
    """Take note of how the task ended, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()


async def abort(context: Any, failure: errors.Failure) -> None:
    """End the call of grpc.aio with the failure's status."""
    status = status_of(failure)
    await context.abort(failure.code, status.message, ((_DETAILS, status.SerializeToString()),))
