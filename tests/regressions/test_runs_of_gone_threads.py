"""Whatever deletes a thread while a run is admitted to it leaves no run whose thread is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.regressions.conftest import Bench
from tests.service import CallFailed

_LEFT = (
    "SELECT count(*) FROM langgraph_server.runs AS r WHERE r.thread_id = %s"
    " AND NOT EXISTS (SELECT FROM langgraph_server.threads AS t WHERE t.id = r.thread_id)"
)


@pytest.mark.parametrize("run_first", [True, False], ids=["run-first", "deletion-first"])
@pytest.mark.parametrize("way", ["DeleteThread", "PruneThreads", "EraseOwner", "DeleteAssistant", "DeleteOwnerless"])
async def test_a_deletion_and_an_admission_at_once(bench: Bench, owner: str, way: str, run_first: bool) -> None:
    # EraseOwner deletes the owner's assistants before it comes to the threads; one of the system's stays.
    whose: dict[str, Any] = {"owner_id": "system" if way == "EraseOwner" else owner}
    mine: dict[str, Any] = {} if way == "DeleteOwnerless" else {"owner_id": owner}
    if way == "DeleteOwnerless":
        whose = {}
    thread, assistant = f"t-{owner}", f"a-{owner}"
    await bench.api.call("CreateAssistant", assistant_id=assistant, graph_id="g", **whose)
    # The run's is another than the one that goes, so that no more than the thread is between the two.
    await bench.api.call("CreateAssistant", assistant_id=f"of-run-{owner}", graph_id="g", **whose)
    await bench.api.call("CreateThread", thread_id=thread, metadata=f'{{"assistant_id": "{assistant}"}}', **mine)
    deletions: dict[str, tuple[str, dict[str, Any]]] = {
        "DeleteThread": ("DeleteThread", {"thread_id": thread}),
        "PruneThreads": ("PruneThreads", {"thread_ids": [thread], "strategy": "PRUNE_STRATEGY_DELETE"}),
        "EraseOwner": ("EraseOwner", {}),
        "DeleteAssistant": ("DeleteAssistant", {"assistant_id": assistant, "delete_threads": True}),
        "DeleteOwnerless": ("DeleteAssistant", {"assistant_id": assistant, "delete_threads": True}),
    }
    run = {"thread_id": thread, "assistant_id": f"of-run-{owner}", "multitask_strategy": "MULTITASK_STRATEGY_ENQUEUE"}
    calls = [("CreateRun", {"run_id": f"r-{owner}", **run}), deletions[way]]
    async with await bench.hold("threads", thread):
        tasks = []
        for number, (method, fields) in enumerate(calls if run_first else calls[::-1], 1):
            tasks.append(asyncio.create_task(bench.api.call(method, **fields, **mine)))
            await bench.until_waiting(number)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(failure, CallFailed) for failure in failures), failures
    # Whoever came first had what it asked for; a run that came second found no thread.
    assert [getattr(failure, "reason", "") for failure in failures] == ([] if run_first else ["NOT_FOUND"])
    assert await bench.number("SELECT count(*) FROM langgraph_server.threads WHERE id = %s", thread) == 0
    assert await bench.number(_LEFT, thread) == 0
