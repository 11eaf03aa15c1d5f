"""A worker: claims runs and executes each with a handler."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import os
import signal
import socket
from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from agentstorage.connection import Connection, checked_owner
from agentstorage.errors import StorageError
from agentstorage.identifiers import new_id
from agentstorage.queue.claimed import ClaimedRun, Handler, StopReason
from agentstorage.queue.execution import Execution, Terms
from agentstorage.queue.retrying import Pauses, connection_of, may_pass
from agentstorage.v1 import runs_pb2 as pb
from agentstorage.v1 import runs_pb2_grpc

if TYPE_CHECKING:
    from agentstorage.storage import GrpcStorage

log = logging.getLogger("agentstorage.queue")

_STUB: Any = runs_pb2_grpc.RunServiceStub
# What the service takes.
_MOST_RUNS, _LONGEST_WAIT, _LONGEST_LEASE = 100, 3600.0, 86400.0
_WORKER_ID_BYTES: Final = 255
# The least seconds between two claims that found nothing.
_LEAST_WAIT: Final = 1.0
# How long a stop waits for handlers that it has cancelled, and for their runs to be given back, in seconds.
_LAST: Final = 5.0


class Worker:
    """Claims queued runs and executes each with a handler, several at once, until it is stopped.

        async def handler(run: ClaimedRun) -> dict[str, Any]:
            await run.emit("greeting", f"attempt {run.attempt}")
            return {"answer": 42}

        async with Worker(connection, handler, concurrency=4) as worker:
            await worker.wait()

    The handler is a task of this event loop. What it returns, a mapping or a :class:`Result`, becomes the thread's values, and the
    run ends as success; with interrupts, returned or raised by :class:`Interrupted`, as interrupted. An exception ends it as error,
    with the exception's type and message.

    While it runs, its lease is renewed at each third of ``lease_seconds`` by another task of this event loop. A handler that blocks
    the loop for longer than its lease, by computing or by calling what does not await, therefore loses the lease, and so do the
    others in this loop: give such work to ``asyncio.to_thread``.

    The handler is cancelled, and ``run.stop_reason`` says why, when the lease is lost, when somebody cancels the run, which then ends
    as interrupted, when it takes longer than ``run_timeout``, which ends it as timeout, and when the worker is stopped and its
    grace is over, which leaves the run to another worker. A handler that is cancelled has to end soon. Unless the lease is lost
    it may still emit events, and return values that are kept.

    A service that is away ends no worker: it goes on when the service is back. What was finished meanwhile is told to the service
    as long as the lease lasts.

    Args:
        connection: An open connection or storage. It stays open.
        handler: An async function, called with each run. A plain function that returns a coroutine is taken as a lambda, or when it
            wraps an async one by ``functools.wraps``.
        worker_id: What leases name. Default: the host's name, the process and a part of its own.
        owner_id: Whose runs are claimed. Default: the owner of the connection; without one those of every owner, which needs the right
            "unscoped". All that the worker says about a run names the run's owner.
        concurrency: How many runs are executed at once.
        lease_seconds: How long a run waits for another worker when this one is dead, at most a day.
        run_timeout: The most seconds of a run; None for any.
        wait_seconds: How long a claim waits for a run before it is made again, at most an hour; below 1 it is made every second.
        grace: Seconds that :meth:`stop` lets runs at work end.

    Raises:
        TypeError: An argument has another type.
        ValueError: A number is out of its range, or an id is empty or too long.
    """

    def __init__(
        self,
        connection: Connection | GrpcStorage,
        handler: Handler,
        *,
        worker_id: str | None = None,
        owner_id: str | None = None,
        concurrency: int = 1,
        lease_seconds: float = 30.0,
        run_timeout: float | None = None,
        wait_seconds: float = 20.0,
        grace: float = 10.0,
    ) -> None:
        self._connection = connection_of(connection)
        if wrong := _no_handler(handler):
            raise TypeError(f"handler must be an async function, not {wrong}")
        if worker_id is None:
            host = socket.gethostname().encode("ascii", "replace").decode()[:100]
            worker_id = f"{host}-{os.getpid()}-{new_id()[-8:]}"
        if not 0 < len(worker_id.encode()) <= _WORKER_ID_BYTES:
            raise ValueError(f"worker_id must have 1 to {_WORKER_ID_BYTES} bytes")
        if not _is_number(concurrency, int):
            raise TypeError(f"concurrency must be an int, not {type(concurrency).__name__}")
        numbers = {"lease_seconds": lease_seconds, "wait_seconds": wait_seconds, "grace": grace}
        if run_timeout is not None:
            numbers["run_timeout"] = run_timeout
        for name, number in numbers.items():
            if not _is_number(number, int, float):
                raise TypeError(f"{name} must be a number, not {type(number).__name__}")
        if concurrency < 1:
            raise ValueError("concurrency must be 1 or more")
        if not 0 < lease_seconds <= _LONGEST_LEASE:
            raise ValueError(f"lease_seconds must be more than 0 and at most {_LONGEST_LEASE:g}")
        if not 0 <= wait_seconds <= _LONGEST_WAIT:
            raise ValueError(f"wait_seconds must be from 0 to {_LONGEST_WAIT:g}")
        if run_timeout is not None and not run_timeout > 0:
            raise ValueError("run_timeout must be more than 0 seconds")
        if not grace >= 0:
            raise ValueError("grace must be 0 seconds or more")
        self._worker_id = worker_id
        self._owner_id = checked_owner(owner_id) or self._connection.owner_id
        self._concurrency = concurrency
        self._wait_seconds = wait_seconds
        self._grace = grace
        self._terms = Terms(handler, lease_seconds, run_timeout)
        self._executions: dict[asyncio.Task[None], Execution] = {}
        self._claiming: asyncio.Task[None] | None = None
        self._call: Any = None
        self._woken = asyncio.Event()
        self._is_stopping = False
        self._was_told = False

    @property
    def worker_id(self) -> str:
        """What its leases name."""
        return self._worker_id

    @property
    def runs(self) -> tuple[ClaimedRun, ...]:
        """The runs at work."""
        return tuple(execution.run for execution in self._executions.values())

    def start(self) -> None:
        """Begin to claim runs, in tasks of the running event loop. RuntimeError when it was started before."""
        if self._claiming is not None:
            raise RuntimeError("a worker is started once")
        self._claiming = asyncio.get_running_loop().create_task(self._claim(), name=f"worker {self._worker_id}")
        self._claiming.add_done_callback(self._claims_ended)

    async def wait(self) -> None:
        """Wait until the worker claims no more, because it is stopped.

        Raises:
            StorageError: The service refuses its claims for good, as it does without the right to them. Runs at work go on until
                :meth:`stop`.
            RuntimeError: The connection is closed, or the worker is not started.
        """
        claiming = self._claiming
        if claiming is None:
            raise RuntimeError("the worker is not started")
        await asyncio.wait({claiming})
        self._was_told = True
        if not claiming.cancelled() and (error := claiming.exception()) is not None:
            raise error

    async def stop(self, grace: float | None = None) -> None:
        """Claim no more, let the runs at work end, and give back those that have not ended in time, once their handlers have.

        Not to be awaited by a handler, for whose end it waits.

        Args:
            grace: Seconds that the runs at work get. Default: those of the worker.
        """
        self.stop_claiming()
        try:
            if self._claiming is not None:
                await asyncio.wait({self._claiming})
            await self._drain(self._grace if grace is None else grace)
        finally:
            # Who can't wait for the end any more leaves the runs to their leases.
            for task in self._executions:
                task.cancel()

    def stop_claiming(self) -> None:
        """Claim no more, without waiting for anything: :meth:`wait` ends, and so does :meth:`run` once the runs at work have.

        What a handler calls, or a signal, which can't wait for :meth:`stop`.
        """
        self._is_stopping = True
        self._woken.set()
        if self._call is not None:
            # A claim that was answered already is not lost by this: its runs are given back.
            self._call.cancel()

    async def run(self, signals: Iterable[signal.Signals] = ()) -> None:
        """Start, claim and execute until somebody stops the worker or cancels this, and stop.

        Args:
            signals: What stops the worker, such as ``signal.SIGTERM``; in the main thread alone, and not on Windows. A second one ends
                the grace: the handlers are cancelled, and their runs given back.

        Raises:
            StorageError: As :meth:`wait`, once the runs at work have ended; and so for RuntimeError.
        """
        loop = asyncio.get_running_loop()
        told = tuple(signals)
        for number in told:
            loop.add_signal_handler(number, self._signalled)
        try:
            async with self:
                await self.wait()
        finally:
            for number in told:
                loop.remove_signal_handler(number)

    async def __aenter__(self) -> Worker:
        self.start()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.stop()
        if exc is None and not self._was_told:
            await self.wait()

    def __repr__(self) -> str:
        return f"Worker({self._worker_id!r})"

    def _signalled(self) -> None:
        if self._is_stopping:
            self._cancel_handlers()
        else:
            log.log(
                logging.WARNING if self._executions else logging.INFO,
                "worker %s stops: %d runs at work, up to %g s; another signal ends them now",
                self._worker_id,
                len(self._executions),
                self._grace,
            )
        self.stop_claiming()

    def _cancel_handlers(self) -> None:
        for execution in self._executions.values():
            execution.stop(StopReason.SHUTDOWN)

    async def _drain(self, grace: float) -> None:
        if self._executions:
            await asyncio.wait(set(self._executions), timeout=grace)
        self._cancel_handlers()
        if self._executions:
            await asyncio.wait(set(self._executions), timeout=_LAST)
        for execution in self._executions.values():
            log.warning("run %s did not end in time and is left to its lease", execution.run.run_id)

    # Claims.

    async def _claim(self) -> None:
        loop = asyncio.get_running_loop()
        pauses = Pauses()
        request = pb.ClaimRunsRequest(
            owner_id=self._owner_id,
            worker_id=self._worker_id,
            wait_seconds=self._wait_seconds,
            lease_seconds=self._terms.lease_seconds,
        )
        while not self._is_stopping:
            self._woken.clear()
            free = self._concurrency - len(self._executions)
            if free < 1:
                await self._woken.wait()
                continue
            request.limit = min(free, _MOST_RUNS)
            began = loop.time()
            try:
                claimed = await self._claimed(request)
            except StorageError as error:
                if not may_pass(error):
                    raise
                # Once for each absence, however long that is.
                level = logging.INFO if pauses.failures else logging.WARNING
                log.log(level, "worker %s can not claim, and tries until it can: %s", self._worker_id, error)
                await self._rest(pauses.next())
                continue
            if pauses.failures:
                log.info("worker %s claims again", self._worker_id)
                pauses.reset()
            if claimed:
                await self._begin(claimed)
            else:
                # Nothing came: a service that did not wait, or was not asked to, is not asked again at once.
                await self._rest(began + _LEAST_WAIT - loop.time())

    async def _claimed(self, request: pb.ClaimRunsRequest) -> list[pb.ClaimedRun]:
        self._call = self._connection.stub(_STUB).ClaimRuns(request)
        try:
            return list((await self._call).runs)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            if self._is_stopping:
                return []
            raise RuntimeError("the connection was closed under the worker") from None
        finally:
            self._call = None

    async def _begin(self, claimed: list[pb.ClaimedRun]) -> None:
        loop = asyncio.get_running_loop()
        executions = [Execution(self._connection, run, self._terms) for run in claimed]
        if self._is_stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LAST):
                    await asyncio.gather(*(execution.give_back() for execution in executions))
            return
        for execution in executions:
            task = loop.create_task(execution.live())
            self._executions[task] = execution
            task.add_done_callback(self._ended)

    def _claims_ended(self, claiming: asyncio.Task[None]) -> None:
        if not claiming.cancelled() and (error := claiming.exception()) is not None:
            # Whoever waits is told too, but it may be long before anybody does.
            log.error("worker %s claims no more: %s", self._worker_id, error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        execution = self._executions.pop(task)
        self._woken.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("run %s was left to its lease", execution.run.run_id, exc_info=error)

    async def _rest(self, seconds: float) -> None:
        """Wait for so long, or until the worker is stopped."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not self._is_stopping and (left := deadline - asyncio.get_running_loop().time()) > 0:
            self._woken.clear()
            try:
                async with asyncio.timeout(left):
                    await self._woken.wait()
            except TimeoutError:
                return


def _no_handler(handler: Any) -> str:
    """What a handler is that can't be one; "" for one that may be."""
    if not callable(handler):
        return type(handler).__name__
    while isinstance(handler, functools.partial):
        handler = handler.func
    if inspect.isasyncgenfunction(handler):
        return "an async generator function"
    if inspect.isgeneratorfunction(handler):
        return "a generator function"
    if not (inspect.isfunction(handler) or inspect.ismethod(handler)) or inspect.iscoroutinefunction(handler):
        return ""
    # What these return may be a coroutine, which only a call tells.
    is_open = hasattr(handler, "__wrapped__") or handler.__name__ == "<lambda>"
    return "" if is_open else "a plain function"


def _is_number(value: Any, *types: type) -> bool:
    return isinstance(value, types) and not isinstance(value, bool)
