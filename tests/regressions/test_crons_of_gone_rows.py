"""Whatever deletes a thread or an assistant while a cron of it is made leaves no cron that names a row that is gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.regressions.conftest import Bench
from tests.service import CallFailed

_LEFT = "SELECT count(*) FROM langgraph_server.crons AS c WHERE c.thread_id = %s OR c.assistant_id = %s"


@pytest.mark.parametrize("cron_first", [True, False], ids=["cron-first", "deletion-first"])
@pytest.mark.parametrize("way", ["DeleteThread", "PruneThreads", "DeleteAssistant", "EraseOwner"])
async def test_a_deletion_and_a_cron_at_once(bench: Bench, owner: str, way: str, cron_first: bool) -> None:
    thread, assistant = f"t-{owner}", f"a-{owner}"
    deletions: dict[str, tuple[str, str, dict[str, Any]]] = {
        "DeleteThread": ("threads", thread, {"thread_id": thread}),
        "PruneThreads": ("threads", thread, {"thread_ids": [thread], "strategy": "PRUNE_STRATEGY_DELETE"}),
        "DeleteAssistant": ("assistants", assistant, {"assistant_id": assistant}),
        "EraseOwner": ("assistants", assistant, {}),
    }
    table, held, fields = deletions[way]
    await bench.api.call("CreateAssistant", owner_id=owner, assistant_id=assistant, graph_id="g")
    await bench.api.call("CreateThread", owner_id=owner, thread_id=thread)
    cron = {"cron_id": f"c-{owner}", "thread_id": thread, "assistant_id": assistant, "schedule": "@daily"}
    calls: list[tuple[str, dict[str, Any]]] = [("CreateCron", cron), (way, fields)]
    async with await bench.hold(table, held):
        tasks = []
        for number, (method, asked) in enumerate(calls if cron_first else calls[::-1], 1):
            tasks.append(asyncio.create_task(bench.api.call(method, owner_id=owner, **asked)))
            await bench.until_waiting(number)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    assert all(isinstance(failure, CallFailed) for failure in failures), failures
    # Whoever came first had what it asked for; a cron that came second found no thread or no assistant.
    assert [getattr(failure, "reason", "") for failure in failures] == ([] if cron_first else ["NOT_FOUND"])
    assert await bench.number(f"SELECT count(*) FROM langgraph_server.{table} WHERE id = %s", held) == 0
    assert await bench.number(_LEFT, thread, assistant) == 0


async def test_a_cron_that_waits_for_one_that_takes_its_id_answers_as_if_it_had_come_later(
    bench: Bench, owner: str
) -> None:
    thread, assistant = f"t-{owner}", f"a-{owner}"
    await bench.api.call("CreateAssistant", owner_id=owner, assistant_id=assistant, graph_id="g")
    await bench.api.call("CreateThread", owner_id=owner, thread_id=thread)
    cron: dict[str, Any] = {
        "cron_id": f"c-{owner}",
        "thread_id": thread,
        "assistant_id": assistant,
        "schedule": "@daily",
    }
    calls = [bench.api.call("CreateCron", owner_id=owner, **cron) for _ in range(8)]
    calls.append(bench.api.call("CreateCron", owner_id=owner, **cron, if_exists="IF_EXISTS_DO_NOTHING"))
    rows = [answer.cron for answer in await asyncio.gather(*calls)]
    assert all(row == rows[0] for row in rows)
    with pytest.raises(CallFailed, match="ALREADY_EXISTS"):
        await bench.api.call("CreateCron", owner_id=owner, **{**cron, "schedule": "@hourly"})
