"""One run in the hands of a worker, from its claim to its end."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import grpc

from agentstorage import jsontext
from agentstorage.connection import Connection
from agentstorage.errors import FailedPrecondition, LeaseLost, NotFound, StorageError
from agentstorage.queue.appending import Appender
from agentstorage.queue.claimed import ClaimedRun, Handler, Interrupted, Result, StopReason
from agentstorage.queue.records import FINAL, QueuedRun
from agentstorage.queue.retrying import Pauses, may_pass
from agentstorage.v1 import runs_pb2 as pb
from agentstorage.v1 import runs_pb2_grpc

log = logging.getLogger("agentstorage.queue")

_STUB: Any = runs_pb2_grpc.RunServiceStub
_EOF: Final = grpc.aio.EOF  # type: ignore[attr-defined]  # not in its stubs
# What a call about a lease fails with that is not this worker's any more.
_LOST: Final = (LeaseLost, FailedPrecondition, NotFound)
# How often a lease is renewed while it lasts, and the least seconds that a call about it gets.
_BEATS, _LEAST = 3, 1.0
# The longest text of an exception that a run keeps, in characters.
_TEXT: Final = 4000
# A run that ends within so many seconds is not worth a stream, which costs as much as all its other calls: a cancel that comes before is
# told when the stream begins.
_SHORT: Final = 0.2
# A place that no event has: who is told of a cancel alone need not get the events that it has just sent.
_BEYOND: Final = 2**62
_REASONS: Final = {
    pb.CANCEL_ACTION_INTERRUPT: StopReason.INTERRUPT,
    pb.CANCEL_ACTION_ROLLBACK: StopReason.ROLLBACK,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """How a worker executes its runs; its arguments of these names."""

    handler: Handler
    lease_seconds: float
    run_timeout: float | None


class Execution:
    """A claimed run: its lease, its handler and its events. The claim was answered just now.

    The lease is renewed and watched beside the handler. Whatever ends it, the handler's task has ended too, or is being
    cancelled, when the worker takes another run for it.
    """

    def __init__(self, connection: Connection, claimed: pb.ClaimedRun, terms: Terms) -> None:
        self._stub = connection.stub(_STUB)
        self._terms = terms
        # How long a call about the lease may take before it is made again: several of them fit in a lease.
        self._patience = max(terms.lease_seconds / _BEATS, _LEAST)
        self._loop = asyncio.get_running_loop()
        self._about: dict[str, Any] = {"run_id": claimed.run.run_id, "lease_token": claimed.lease_token}
        if claimed.owner_id:
            self._about["owner_id"] = claimed.owner_id
        self._appender = Appender(self._append, claimed.run.last_sequence + 1)
        self.run = ClaimedRun(QueuedRun.of(claimed.run), claimed.owner_id or None, self._appender)
        self._cancel = claimed.run.cancel
        # By this clock; of a call that renewed it, from when it was sent.
        self._lease_end = self._loop.time() + terms.lease_seconds
        # By when the task that renews the lease is to wake up; inf while it is awake.
        self._due = math.inf
        self._lost = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._handling: asyncio.Task[Result | Mapping[str, Any] | None] | None = None

    async def live(self) -> None:
        """Execute the run to its end, and tell the service how it ended. Raises nothing but CancelledError, and then tells nothing."""
        beside = [self._loop.create_task(self._beat()), self._loop.create_task(self._watch())]
        self._handling = self._loop.create_task(self._handle(), name=f"run {self.run.run_id}")
        if self._terms.run_timeout is not None:
            timeout = self._loop.call_later(self._terms.run_timeout, self.stop, StopReason.TIMEOUT)
            self._handling.add_done_callback(lambda _: timeout.cancel())
        if self._cancel:
            self.stop(_REASONS.get(self._cancel, StopReason.INTERRUPT))
        self._look_at_lease()
        try:
            await asyncio.wait({self._handling})
            await self._settle(self._handling, beside)
        finally:
            if not self._handling.done():
                # The worker is cancelled, which does not wait for the handler's end.
                self.run.stop_reason = self.run.stop_reason or StopReason.SHUTDOWN
            self._leave_lease()
            self._appender.fail(LeaseLost(f"run {self.run.run_id} is over"))
            for task in (*beside, self._handling):
                task.add_done_callback(_seen)
                task.cancel()

    def stop(self, reason: StopReason) -> None:
        """Cancel the handler. The first reason counts, but for a lost lease, which always does."""
        known, handling = self.run.stop_reason, self._handling
        if handling is None or handling.done() or (known and reason is not StopReason.LEASE_LOST):
            return
        self.run.stop_reason = reason
        handling.cancel()

    async def give_back(self) -> None:
        """Let another worker have the run; this one has not begun."""
        self._look_at_lease()
        try:
            await self._tell_end(self._stub.ReleaseRun, pb.ReleaseRunRequest(**self._about))
        finally:
            self._leave_lease()

    async def _handle(self) -> Result | Mapping[str, Any] | None:
        result = self._terms.handler(self.run)
        if not inspect.isawaitable(result):
            raise TypeError(f"the handler must be an async function: it returned {type(result).__name__}")
        return await result

    # The lease.

    def _look_at_lease(self) -> None:
        """Give the lease up when its end has come, and look again at its end when it has not."""
        now = self._loop.time()
        if now < self._lease_end:
            self._timer = self._loop.call_at(self._lease_end, self._look_at_lease)
            return
        is_late = now - min(self._due, self._lease_end) > self._terms.lease_seconds / _BEATS / 2
        hint = "; did a handler block the event loop?" if is_late else ""
        self._lose(LeaseLost(f"the lease of run {self.run.run_id} could not be renewed in time{hint}"))

    def _leave_lease(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _lose(self, error: StorageError) -> None:
        if self._lost.done():
            return
        log.warning("run %s is this worker's no more: %s", self.run.run_id, error)
        self._lost.set_result(None)
        self._appender.fail(error)
        self.stop(StopReason.LEASE_LOST)

    async def _beat(self) -> None:
        """Renew the lease until it is lost."""
        seconds = self._terms.lease_seconds
        interval = seconds / _BEATS
        pauses = Pauses(interval / 2)
        request = pb.HeartbeatRunRequest(**self._about, lease_seconds=seconds)
        pause = interval
        while True:
            self._due = self._loop.time() + pause
            await asyncio.sleep(pause)
            self._due = math.inf
            sent = self._loop.time()
            try:
                reply = await self._stub.HeartbeatRun(request, timeout=self._patience)
            except _LOST as error:
                self._lose(error)
                return
            except StorageError as error:
                # Whatever it is, all that can be done is to try again while there is a lease.
                log.info("no heartbeat for run %s: %s", self.run.run_id, error)
                pause = pauses.next()
                continue
            pauses.reset()
            self._lease_end = sent + seconds
            pause = max(0.0, sent + interval - self._loop.time())
            if reply.cancel:
                self.stop(_REASONS.get(reply.cancel, StopReason.INTERRUPT))

    async def _watch(self) -> None:
        """Follow what the service says of the run, to stop it as soon as somebody asks for that; heartbeats would tell later."""
        about = {key: value for key, value in self._about.items() if key != "lease_token"}
        request = pb.StreamRunEventsRequest(**about, after=_BEYOND)
        pauses = Pauses()
        await asyncio.sleep(_SHORT)
        while True:
            call = self._stub.StreamRunEvents(request)
            try:
                while (message := await call.read()) is not _EOF:
                    pauses.reset()
                    if message.cancel:
                        self.stop(_REASONS.get(message.cancel, StopReason.INTERRUPT))
                        return
                    if message.HasField("run") and message.run.status in FINAL:
                        # Somebody has set the status, with force or without.
                        self._lose(LeaseLost("the run has ended"))
                        return
            except NotFound as error:
                self._lose(error)
                return
            except StorageError as error:
                if not may_pass(error):
                    log.info("run %s is not watched, heartbeats have to do: %s", self.run.run_id, error)
                    return
            finally:
                call.cancel()
            await asyncio.sleep(pauses.next())

    # Its events and its end.

    async def _append(self, first: int, events: list[pb.NewRunEvent]) -> None:
        try:
            await self._stub.AppendRunEvents(
                pb.AppendRunEventsRequest(**self._about, first_sequence=first, events=events)
            )
        except _LOST as error:
            self._lose(error)
            raise

    async def _settle(self, handling: asyncio.Task[Any], beside: list[asyncio.Task[None]]) -> None:
        """Append what events are left, and tell the service how the run ended, while the lease lasts."""
        request = self._ending(handling)
        if self._lost.done():
            return
        try:
            async with asyncio.timeout(self._terms.lease_seconds):
                await self._appender.flush()
        except (StorageError, TimeoutError) as error:
            # An end without all of its events is no success.
            request = self._failed(error)
        if self._lost.done():
            return
        # Neither may find that the run has ended, as it soon has; and what can't be told within a lease is not worth another one.
        for task in beside:
            task.cancel()
        if request is None:
            await self._tell_end(self._stub.ReleaseRun, pb.ReleaseRunRequest(**self._about))
            return
        refusal = await self._tell_end(self._stub.FinishRun, request)
        if refusal is not None:
            await self._tell_end(self._stub.FinishRun, self._failed(refusal))

    def _ending(self, handling: asyncio.Task[Any]) -> pb.FinishRunRequest | None:
        """How the run ended; None when another worker is to have it."""
        reason = self.run.stop_reason
        try:
            request = self._returned(handling)
        # A handler may fail in any way, and be cancelled by what it awaits: it is the run that ends with that, not the worker.
        except BaseException as error:
            if reason is None or not isinstance(error, asyncio.CancelledError):
                log.error("run %s failed", self.run.run_id, exc_info=error)
            if reason is StopReason.SHUTDOWN:
                return None
            request = self._failed(error)
        if reason in _REASONS.values():
            request.status = pb.RUN_STATUS_INTERRUPTED
            request.ClearField("error")
        elif reason is StopReason.TIMEOUT:
            request.status = pb.RUN_STATUS_TIMEOUT
            request.error = _told(TimeoutError(f"the run took longer than {self._terms.run_timeout:g} seconds"))
        return request

    def _returned(self, handling: asyncio.Task[Any]) -> pb.FinishRunRequest:
        """The end by what the handler returned. Raises what it raised, TypeError and ValueError for what is no result."""
        try:
            result = _result(handling.result())
            is_interrupted = bool(result.interrupts)
        except Interrupted as interrupted:
            result, is_interrupted = interrupted.result, True
        status = pb.RUN_STATUS_INTERRUPTED if is_interrupted else pb.RUN_STATUS_SUCCESS
        request = pb.FinishRunRequest(**self._about, status=status)
        if result.values is not None:
            request.values = jsontext.dump(dict(result.values), "values")
        if result.interrupts is not None:
            request.interrupts = jsontext.dump(dict(result.interrupts), "interrupts")
        return request

    def _failed(self, error: BaseException) -> pb.FinishRunRequest:
        return pb.FinishRunRequest(**self._about, status=pb.RUN_STATUS_ERROR, error=_told(error))

    async def _tell_end(self, method: Any, request: Any) -> StorageError | None:
        """Call until the service has taken it or the lease is over; gives what it refused it with."""
        pauses = Pauses(1.0)
        while not self._lost.done():
            left = self._lease_end - self._loop.time()
            try:
                await method(request, timeout=min(max(left, 0.1), self._patience))
                return None
            except _LOST as error:
                self._lose(error)
            except StorageError as error:
                if not may_pass(error):
                    log.error("the end of run %s was refused: %s", self.run.run_id, error)
                    return error
                log.info("the end of run %s could not be told yet: %s", self.run.run_id, error)
                await asyncio.wait({self._lost}, timeout=pauses.next())
        return None


def _result(returned: Any) -> Result:
    if isinstance(returned, Result):
        return returned
    if returned is None or isinstance(returned, Mapping):
        return Result(returned)
    raise TypeError(f"a handler returns a mapping, a Result or None, not {type(returned).__name__}")


def _told(error: BaseException) -> str:
    """What a run keeps of an exception, as JSON that any database can hold."""
    text = str(error)[:_TEXT].encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
    return jsontext.dump({"error": type(error).__name__, "message": text}, "error")


def _seen(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended, so that asyncio does not report it as lost."""
    if not task.cancelled():
        task.exception()
