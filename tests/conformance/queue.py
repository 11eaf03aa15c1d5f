"""One owner's queue, as tests of it use it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service import Api, CallFailed

PENDING, RUNNING, SUCCESS, ERROR, INTERRUPTED = (
    f"RUN_STATUS_{word}" for word in ("PENDING", "RUNNING", "SUCCESS", "ERROR", "INTERRUPTED")
)
STATUS = {1: "pending", 2: "running", 3: "success", 4: "error", 5: "timeout", 6: "interrupted"}
THREAD = {1: "idle", 2: "busy", 3: "interrupted", 4: "error"}


class Queue:
    """One owner's runs, and a worker that claims them."""

    def __init__(self, api: Api, owner: str) -> None:
        self.api = api
        self.owner = owner
        self.worker = f"worker-{owner}"

    async def call(self, method: str, **fields: Any) -> Any:
        return await self.api.call(method, owner_id=self.owner, **fields)

    async def assistant(self) -> str:
        made = await self.call("CreateAssistant", graph_id="agent", assistant_id=f"assistant-{self.owner}", if_exists=2)
        return str(made.assistant.assistant_id)

    async def thread(self) -> str:
        return str((await self.call("CreateThread")).thread.thread_id)

    async def admit(self, thread: str = "", strategy: str = "ENQUEUE", **fields: Any) -> str:
        made = await self.call(
            "CreateRun",
            thread_id=thread or await self.thread(),
            assistant_id=await self.assistant(),
            multitask_strategy=f"MULTITASK_STRATEGY_{strategy}",
            **fields,
        )
        return str(made.run.run_id)

    async def claim(self, limit: int = 1, **fields: Any) -> list[Any]:
        return list((await self.call("ClaimRuns", worker_id=self.worker, limit=limit, **fields)).runs)

    async def finish(self, claimed: Any, status: str = SUCCESS, **fields: Any) -> Any:
        held = {"run_id": claimed.run.run_id, "lease_token": claimed.lease_token}
        return await self.call("FinishRun", **held, status=status, **fields)

    async def run(self, run_id: str) -> Any:
        return (await self.call("GetRun", run_id=run_id)).run

    async def status(self, run_id: str) -> str:
        return STATUS[(await self.run(run_id)).status]

    async def thread_status(self, thread: str) -> str:
        return THREAD[(await self.call("GetThread", thread_id=thread)).thread.status]


async def reason(call: Any) -> str:
    """The reason with which a call fails."""
    with pytest.raises(CallFailed) as failure:
        await call
    return failure.value.reason


def held(claimed: Any) -> dict[str, Any]:
    """What a worker shows."""
    return {"run_id": claimed.run.run_id, "lease_token": claimed.lease_token}
