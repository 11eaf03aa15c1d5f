"""A claim whose caller goes while it is at work."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from agentstorage.v1 import runs_pb2 as pb
from storage_service.services import Call
from storage_service.services.run_queue import RunQueue
from storage_service.store import Finished
from storage_service.wakeups import Wakeups, queue_of


class Rows:
    """A store whose claim takes as long as the test wants."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()
        self.released: list[tuple[str, int]] = []

    async def claim_runs(self, worker_id: str, limit: int, lease_seconds: float) -> list[pb.ClaimedRun]:
        await self.go_on.wait()
        return [pb.ClaimedRun(run=pb.Run(run_id="r"), owner_id="alice", lease_token=7)]

    async def release_run(self, run_id: str, token: int, delay_seconds: float) -> Finished:
        self.released.append((run_id, token))
        return Finished("t", None)


class FakeCall:
    """The call of an owner."""

    owner_id = "alice"

    def __init__(self, rows: Rows) -> None:
        self.rows = rows
        self.store = self
        self.wakeups = Wakeups()

    def seconds(self) -> float:
        return 10


async def test_what_it_gets_is_given_back() -> None:
    rows = Rows()
    call: Any = FakeCall(rows)
    claiming = asyncio.create_task(RunQueue().claim_runs(pb.ClaimRunsRequest(worker_id="w"), cast("Call", call)))
    await asyncio.sleep(0)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    with call.wakeups.waiter(queue_of("alice")) as waiter:
        rows.go_on.set()
        async with asyncio.timeout(2):
            await waiter.wait(2)
        assert rows.released == [("r", 7)]


async def test_what_it_gets_in_time_is_answered() -> None:
    rows = Rows()
    rows.go_on.set()
    call: Any = FakeCall(rows)
    answer = await RunQueue().claim_runs(pb.ClaimRunsRequest(worker_id="w"), cast("Call", call))
    assert [one.run.run_id for one in answer.runs] == ["r"]
    assert rows.released == []
