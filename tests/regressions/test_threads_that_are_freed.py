"""A thread is freed of a run that goes, or ends with its assistant, only when nobody else's call put it to work meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.regressions.conftest import Bench

IDLE, BUSY = 1, 2


async def busy(bench: Bench, owner: str, runs: int) -> tuple[dict[str, Any], list[str]]:
    """A thread with runs in flight, each of an assistant of its own whose id is the run's."""
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": f"t-{owner}"}
    await bench.api.call("CreateThread", **thread)
    ids = [f"{number}-{owner}" for number in range(runs)]
    for id in ids:
        await bench.api.call("CreateAssistant", owner_id=owner, assistant_id=id, graph_id="g")
        await bench.api.call("CreateRun", run_id=id, assistant_id=id, multitask_strategy=2, **thread)
    return thread, ids


def deletion(way: str, owner: str, id: str) -> tuple[str, dict[str, Any]]:
    """The call that ends or deletes the run of an assistant."""
    return way, {"owner_id": owner, {"DeleteRun": "run_id", "DeleteAssistant": "assistant_id"}[way]: id}


async def at_once(bench: Bench, thread: dict[str, Any], *calls: tuple[str, dict[str, Any]]) -> int:
    """The status of the thread after calls that wait for its row, one behind the other, and then go on."""
    async with await bench.hold("threads", thread["thread_id"]):
        tasks = []
        for number, (method, fields) in enumerate(calls, 1):
            tasks.append(asyncio.create_task(bench.api.call(method, **fields)))
            await bench.until_waiting(number)
    await asyncio.gather(*tasks)
    return int((await bench.api.call("GetThread", **thread)).thread.status)


@pytest.mark.parametrize("way", ["DeleteRun", "DeleteAssistant"])
async def test_a_thread_that_just_got_another_run_stays_busy(bench: Bench, owner: str, way: str) -> None:
    thread, [id] = await busy(bench, owner, 1)
    await bench.api.call("CreateAssistant", owner_id=owner, assistant_id=f"of-run-{owner}", graph_id="g")
    run = {"run_id": f"r-{owner}", "assistant_id": f"of-run-{owner}", "multitask_strategy": 2, **thread}
    assert await at_once(bench, thread, ("CreateRun", run), deletion(way, owner, id)) == BUSY
    assert (await bench.api.call("GetActiveRun", **thread)).run.run_id == f"r-{owner}"


@pytest.mark.parametrize("second", ["DeleteRun", "DeleteAssistant"])
@pytest.mark.parametrize("first", ["DeleteRun", "DeleteAssistant"])
async def test_the_last_of_two_that_go_at_once_frees_the_thread(
    bench: Bench, owner: str, first: str, second: str
) -> None:
    thread, ids = await busy(bench, owner, 2)
    calls = [deletion(way, owner, id) for way, id in zip((first, second), ids, strict=True)]
    assert await at_once(bench, thread, *calls) == IDLE
