"""What the campaigns of the queue share: runs to work on, what is left when all have ended, and the checks of it."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc

from agentstorage.v1 import runs_pb2
from tests.faults.queue_histories import (
    Ended,
    Event,
    Lease,
    check_ends,
    check_leases,
    check_log,
    check_threads,
)
from tests.faults.queue_workers import OWNER, gather_some
from tests.faults.servers import until
from tests.service import CallFailed, GrpcApi

_Answer = TypeVar("_Answer")
ASSISTANT = "assistant-of-the-crew"
_IN_FLIGHT = [runs_pb2.RUN_STATUS_PENDING, runs_pb2.RUN_STATUS_RUNNING]
#: What says nothing of what became of a call.
UNKNOWN = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def event_of(event: runs_pb2.RunEvent) -> Event:
    """An event as the checks take it."""
    return Event(
        event.sequence,
        event.position,
        event.data.decode(),
        event.attempt,
        event.created_at.ToMicroseconds(),
        event.end,
    )


@dataclass
class Campaign:
    """The owner of the runs that a crew works on, at any of some servers, which may be down."""

    apis: Sequence[GrpcApi]
    dice: random.Random
    channels: Sequence[grpc.aio.Channel] = ()
    admitted: list[str] = field(default_factory=list)

    async def call(self, method: str, seconds: float = 20, **fields: Any) -> Any:
        """Make a call, again and again while nothing is known of it. It is to be idempotent."""
        return await self._repeat(lambda api: api.call(method, owner_id=OWNER, **fields), seconds)

    async def stream(self, method: str, **fields: Any) -> list[Any]:
        """All that a stream has, from its beginning again where a server left it."""
        return await self._repeat(lambda api: api.stream(method, owner_id=OWNER, **fields), 20)

    async def _repeat(self, call: Callable[[GrpcApi], Awaitable[_Answer]], seconds: float) -> _Answer:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    return await call(self.dice.choice(self.apis))
                except CallFailed as failure:
                    if failure.code not in UNKNOWN:
                        raise
                    await asyncio.sleep(0.1)

    async def prepare(self, threads: int) -> list[str]:
        """Make an assistant and so many threads."""
        await self.call("CreateAssistant", graph_id="agent", assistant_id=ASSISTANT, if_exists="IF_EXISTS_DO_NOTHING")
        ids = [f"thread-{number}" for number in range(threads)]
        await gather_some(
            [lambda id=id: self.call("CreateThread", thread_id=id, if_exists="IF_EXISTS_DO_NOTHING") for id in ids]  # type: ignore[misc] # mypy has no name for the argument's default
        )
        return ids

    async def admit(self, count: int, threads: Sequence[str]) -> None:
        """Queue more runs, some threads having many of them."""

        async def one(run_id: str) -> None:
            await self.call(
                "CreateRun",
                run_id=run_id,
                thread_id=threads[min(self.dice.randrange(len(threads)), self.dice.randrange(len(threads)))],
                assistant_id=ASSISTANT,
                multitask_strategy="MULTITASK_STRATEGY_ENQUEUE",
                if_exists="IF_EXISTS_DO_NOTHING",
            )
            self.admitted.append(run_id)

        first = len(self.admitted)
        await gather_some([lambda id=f"run-{first + n}": one(id) for n in range(count)])  # type: ignore[misc] # as above

    async def until_ended(self, seconds: float) -> None:
        """Wait until no run is in flight. AssertionError after so long."""

        async def have_ended() -> bool:
            return not (await self.call("CountRuns", statuses=_IN_FLIGHT)).count

        await until(have_ended, seconds)

    async def ended(self) -> list[Ended]:
        """Every run with its log, which one who comes late gets whole."""
        runs = await self.all("SearchRuns", "runs")
        return await gather_some([lambda run=run: self._ended(run) for run in runs])  # type: ignore[misc] # as above

    async def _ended(self, run: runs_pb2.Run) -> Ended:
        parts = await self.stream("StreamRunEvents", run_id=run.run_id)
        assert parts[-1].run == run
        return Ended(
            run.run_id,
            run.thread_id,
            run.status,
            run.attempt,
            run.finished_at.ToMicroseconds(),
            run.last_sequence,
            run.error,
            [event_of(event) for part in parts for event in part.events],
        )

    async def threads(self) -> dict[str, int]:
        """The status of every thread."""
        return {thread.thread_id: thread.status for thread in await self.all("SearchThreads", "threads")}

    async def all(self, method: str, name: str) -> list[Any]:
        """Every row that a search finds, page after page."""
        found: list[Any] = []
        token = ""
        while True:
            page = await self.call(method, page_size=1000, page_token=token)
            found += getattr(page, name)
            token = page.next_page_token
            if not token:
                return found

    async def check(self, leases: Sequence[Lease], most_attempts: int) -> list[str]:
        """Everything that is wrong when all runs have ended."""
        ended = await self.ended()
        of_runs = leases_by_run(leases)
        wrong = check_leases(leases) + check_ends(ended, self.admitted, leases, most_attempts)
        for run in ended:
            wrong += check_log(run, of_runs.get(run.run, ()))
        return wrong + check_threads(await self.threads(), ended)


def leases_by_run(leases: Sequence[Lease]) -> dict[str, list[Lease]]:
    """The leases of each run."""
    found: dict[str, list[Lease]] = {}
    for lease in leases:
        found.setdefault(lease.run, []).append(lease)
    return found


def refusals(leases: Iterable[Lease]) -> Counter[str]:
    """How often workers were refused, by the call."""
    found: Counter[str] = Counter()
    for lease in leases:
        found.update(lease.refused)
    return found
