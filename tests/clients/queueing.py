"""What the tests of the queue share: an owner with an assistant, runs of its own, and handlers that a test leads."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from agentstorage import Connection, GrpcStorage
from agentstorage.queue import ClaimedRun, Event, QueuedRun, StopReason
from agentstorage.v1 import runs_pb2, runs_pb2_grpc


@dataclass
class Queue:
    """The queue of one owner. ``submit`` queues a run, on a thread of its own unless one is named."""

    storage: GrpcStorage
    owner: str
    assistant: str

    @property
    def connection(self) -> Connection:
        """The connection, whose owner it is."""
        return self.storage.connection

    @property
    def thread(self) -> str:
        """The id of a thread; ids are taken for all owners."""
        return f"thread-of-{self.owner}"

    async def submit(
        self, thread_id: str | None = None, kwargs: dict[str, Any] | None = None, **more: Any
    ) -> QueuedRun:
        """Queue a run."""
        more = {"multitask_strategy": "enqueue", "if_not_exists": "create", **more}
        return await self.storage.runs.submit(thread_id or uuid.uuid4().hex, self.assistant, kwargs, **more)

    async def events(self, run_id: str, after: int = 0) -> list[Event]:
        """All events of a run, up to its end."""
        async with asyncio.timeout(30):
            return [event async for event in self.storage.runs.events(run_id, after=after)]

    async def sweep(self) -> runs_pb2.SweepRunsResponse:
        """Take back the leases that have lapsed."""
        stub = self.connection.stub(runs_pb2_grpc.RunServiceStub)
        reply: runs_pb2.SweepRunsResponse = await stub.SweepRuns(runs_pb2.SweepRunsRequest(owner_id=self.owner))
        return reply


@contextlib.asynccontextmanager
async def queue_at(target: str, owner: str | None = None) -> AsyncIterator[Queue]:
    """The queue of an owner that nothing belongs to yet."""
    owner = owner or f"owner-{uuid.uuid4().hex[:12]}"
    async with GrpcStorage(target, owner_id=owner) as storage:
        assistant = await storage.assistants.create({"graph_id": "agent"})
        yield Queue(storage, owner, assistant.assistant_id)


@dataclass
class Led:
    """A handler that does nothing but wait for the test, which finds the runs in ``runs`` and why they were cancelled in ``reasons``.

    A run goes on once ``go`` is set, and returns its attempt.
    """

    runs: list[ClaimedRun] = field(default_factory=list)
    reasons: list[StopReason | None] = field(default_factory=list)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, run: ClaimedRun) -> dict[str, Any]:
        self.runs.append(run)
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.reasons.append(run.stop_reason)
            raise
        return {"attempt": run.attempt}


async def some(events: AsyncGenerator[Event, None], count: int) -> list[Event]:
    """The next events of an iterator, so many of them."""
    found: list[Event] = []
    async with asyncio.timeout(30):
        while len(found) < count:
            found.append(await anext(events))
    return found
