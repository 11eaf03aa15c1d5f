"""Rules that memory and Postgres share: whose a run is, what goes with an assistant of the system, what is an error."""

from __future__ import annotations

from typing import Any

import pytest

from tests.service import Api, CallFailed

pytestmark = pytest.mark.parametrize("api", ["memory-direct", "postgres-direct"], indirect=True)


async def test_a_run_that_was_before_its_thread_becomes_its_owners(api: Api, owner: str, other: str) -> None:
    run, thread = f"r-{owner}", f"t-{owner}"
    await api.call("CreateRun", run_id=run, thread_id=thread, assistant_id="a", record_only=True)
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await api.call("GetRun", owner_id=owner, run_id=run)
    await api.call("CreateThread", owner_id=owner, thread_id=thread)
    await api.call("UpdateRun", run_id=run, status="RUN_STATUS_RUNNING")
    found = (await api.call("GetRun", owner_id=owner, run_id=run)).run
    assert (found.status, found.metadata) == (2, f'{{"owner": "{owner}"}}')
    assert [row.run_id for row in (await api.call("SearchRuns", owner_id=owner)).runs] == [run]
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await api.call("GetRun", owner_id=other, run_id=run)
    assert (await api.call("EraseOwner", owner_id=owner)).done
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await api.call("GetRun", run_id=run)


@pytest.mark.parametrize("delete_threads", [False, True])
async def test_what_goes_with_an_assistant_of_the_system(
    api: Api, owner: str, other: str, delete_threads: bool
) -> None:
    gone, kept = f"gone-{owner}", f"kept-{owner}"
    for assistant in (gone, kept):
        await api.call("CreateAssistant", owner_id="system", assistant_id=assistant, graph_id="g")
        for who in (owner, other):
            id = f"{assistant}-{who}"
            thread: dict[str, Any] = {"owner_id": who, "thread_id": id}
            await api.call("CreateThread", metadata=f'{{"assistant_id": "{assistant}"}}', **thread)
            await api.call("CreateRun", run_id=id, assistant_id=assistant, **thread)
            ended: dict[str, Any] = {"owner_id": who, "run_id": f"ended-{id}"}
            await api.call("CreateRun", thread_id=id, assistant_id=assistant, record_only=True, **ended)
            await api.call("UpdateRun", status="RUN_STATUS_SUCCESS", **ended)
            await api.call("CreateCron", owner_id=who, cron_id=id, assistant_id=assistant, schedule="@daily")
    await api.call("DeleteAssistant", owner_id="system", assistant_id=gone, delete_threads=delete_threads)
    for who in (owner, other):
        runs = (await api.call("SearchRuns", owner_id=who)).runs
        assert {row.run_id: (row.status, row.HasField("finished_at")) for row in runs} == {
            f"{gone}-{who}": (6, True),
            f"{kept}-{who}": (1, False),
            f"ended-{gone}-{who}": (3, True),
            f"ended-{kept}-{who}": (3, True),
        }
        crons = (await api.call("SearchCrons", owner_id=who)).crons
        assert [row.cron_id for row in crons] == [f"{kept}-{who}"]
        # Their threads stay their own.
        assert (await api.call("CountThreads", owner_id=who)).count == 2
    # Every owner sees it, those of other tests too.
    await api.call("DeleteAssistant", owner_id="system", assistant_id=kept)


async def test_the_assistant_of_an_owner_takes_nothing_of_others(api: Api, owner: str, other: str) -> None:
    assistant = f"a-{owner}"
    for who in (other, owner):
        fields: dict[str, Any] = {"owner_id": who, "assistant_id": assistant, "record_only": True}
        # The assistant of that name comes after the rows that name it.
        await api.call("CreateCron", cron_id=f"c-{who}", schedule="@daily", **fields)
        await api.call("CreateRun", run_id=f"r-{who}", thread_id=f"t-{who}", **fields)
    await api.call("CreateAssistant", owner_id=owner, assistant_id=assistant, graph_id="g")
    await api.call("DeleteAssistant", owner_id=owner, assistant_id=assistant)
    assert (await api.call("GetCron", owner_id=other, cron_id=f"c-{other}")).cron.cron_id == f"c-{other}"
    assert (await api.call("GetRun", owner_id=other, run_id=f"r-{other}")).run.status == 1
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await api.call("GetCron", owner_id=owner, cron_id=f"c-{owner}")


@pytest.mark.parametrize("error", ["null", " null ", "\n\tnull\r\n"])
async def test_no_error_is_no_error_however_it_is_written(api: Api, owner: str, error: str) -> None:
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": f"t-{owner}"}
    await api.call("CreateThread", **thread)
    failed = (await api.call("SetThreadStatus", error='{"message": "null"}', **thread)).thread
    assert (failed.status, failed.error) == (4, '{"message": "null"}')
    mended = (await api.call("SetThreadStatus", error=error, **thread)).thread
    assert (mended.status, mended.error) == (1, "")
    interrupted = (await api.call("SetThreadStatus", error=error, next=["node"], **thread)).thread
    assert (interrupted.status, interrupted.error) == (3, "")


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "Factory"])
async def test_a_time_zone_that_each_machine_has_its_own_of(api: Api, owner: str, zone: str) -> None:
    cron: dict[str, Any] = {"owner_id": owner, "cron_id": f"c-{owner}"}
    fields: dict[str, Any] = {"assistant_id": "a", "schedule": "@daily", "record_only": True, **cron}
    with pytest.raises(CallFailed) as refused:
        await api.call("CreateCron", timezone=zone, **fields)
    assert (refused.value.reason, set(refused.value.fields)) == ("INVALID_REQUEST", {"timezone"})
    await api.call("CreateCron", timezone="Europe/Berlin", **fields)
    with pytest.raises(CallFailed) as refused:
        await api.call("UpdateCron", timezone=zone, **cron)
    assert (refused.value.reason, set(refused.value.fields)) == ("INVALID_REQUEST", {"timezone"})
    assert (await api.call("GetCron", **cron)).cron.timezone == "Europe/Berlin"
