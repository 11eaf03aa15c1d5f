"""What the matrix does not say field by field: ids that are taken, rows that name rows of others, and what may be read."""

from __future__ import annotations

import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.service import Api, CallFailed
from tests.tenants.matrix import Rows, everything, populate

Scenario = Callable[[Api], Awaitable[None]]
PAGED: dict[str, Callable[[Rows], dict[str, Any]]] = {
    "SearchAssistants": lambda rows: {},
    "SearchThreads": lambda rows: {},
    "SearchRuns": lambda rows: {},
    "SearchCrons": lambda rows: {},
    "ListAssistantVersions": lambda rows: {"assistant_id": rows.assistant},
    "ListThreadStates": lambda rows: {"thread_id": rows.thread},
}


async def refused(code: str, call: Awaitable[Any]) -> CallFailed:
    """The failure of a call, which must be of this reason."""
    with pytest.raises(CallFailed) as caught:
        await call
    assert caught.value.reason == code
    return caught.value


async def taken_ids(api: Api) -> None:
    """A create or copy with another owner's id is ALREADY_EXISTS, whatever if_exists says, and shows nothing of the row."""
    victim, mine = await populate(api), await populate(api)
    before = await everything(api, victim)
    refers: dict[str, Any] = {"thread_id": mine.thread, "assistant_id": mine.assistant}
    creates: dict[str, dict[str, Any]] = {
        "CreateAssistant": {"assistant_id": victim.assistant, "graph_id": "agent"},
        "CreateThread": {"thread_id": victim.thread},
        "CreateRun": {"run_id": victim.run, **refers, "record_only": True},
        "CreateCron": {"cron_id": victim.cron, **refers, "schedule": "0 0 1 1 *"},
    }
    for method, fields in creates.items():
        hows: list[dict[str, Any]] = [{}, {"if_exists": "IF_EXISTS_DO_NOTHING"}, {"request_id": "r"}]
        for how in hows:
            failure = await refused("ALREADY_EXISTS", api.call(method, owner_id=mine.owner, **fields, **how))
            assert set(failure.metadata) == {"resource", "id"}
    copying: dict[str, Any] = {"thread_id": mine.thread, "new_thread_id": victim.thread}
    await refused("ALREADY_EXISTS", api.call("CopyThread", owner_id=mine.owner, **copying))
    await refused(
        "ALREADY_EXISTS",
        api.call(
            "CreateRun",
            owner_id=mine.owner,
            run_id=victim.run,
            **refers,
            multitask_strategy="MULTITASK_STRATEGY_ENQUEUE",
        ),
    )
    assert await everything(api, victim) == before


async def record_only(api: Api) -> None:
    """With record_only an absent thread or assistant is accepted; another owner's is NOT_FOUND still."""
    victim, mine = await populate(api), await populate(api)
    before = await everything(api, victim)
    kinds: tuple[tuple[str, dict[str, Any]], ...] = (("CreateRun", {}), ("CreateCron", {"schedule": "0 0 1 1 *"}))
    for method, more in kinds:
        own: dict[str, Any] = {"owner_id": mine.owner, "record_only": True, **more}
        await api.call(method, **own, thread_id=f"absent-{mine.owner}", assistant_id=f"absent-{mine.owner}")
        named: list[dict[str, Any]] = [
            {"thread_id": victim.thread, "assistant_id": "x"},
            {"thread_id": "x", "assistant_id": victim.assistant},
        ]
        for theirs in named:
            await refused("NOT_FOUND", api.call(method, **own, **theirs))
    assert await everything(api, victim) == before


async def rows_that_wait_for_an_id(api: Api) -> None:
    """A row may name an id before another owner makes a row of it: that owner neither sees nor ends it."""
    victim, mine = await populate(api), await populate(api)
    thread, assistant = f"thread-{uuid.uuid4().hex}", f"assistant-{uuid.uuid4().hex}"
    own: dict[str, Any] = {
        "owner_id": victim.owner,
        "record_only": True,
        "thread_id": thread,
        "assistant_id": assistant,
    }
    await api.call("CreateRun", **own, run_id=f"waits-{victim.owner}")
    await api.call("CreateCron", **own, cron_id=f"waits-{victim.owner}", schedule="0 0 1 1 *")
    before = await everything(api, victim)
    await api.call("CreateAssistant", owner_id=mine.owner, assistant_id=assistant, graph_id="agent")
    shared: dict[str, Any] = {
        "visibility": "THREAD_VISIBILITY_READ_BY_ID",
        "metadata": json.dumps({"assistant_id": assistant}),
    }
    await api.call("CreateThread", owner_id=mine.owner, thread_id=thread, **shared)
    assert not (await api.call("GetActiveRun", owner_id=mine.owner, thread_id=thread)).HasField("run")
    assert (await api.call("CountRuns", owner_id=mine.owner, thread_id=thread)).count == 0
    made = await api.call("CreateRun", owner_id=mine.owner, thread_id=thread, assistant_id=assistant)
    await api.call("DeleteRun", owner_id=mine.owner, run_id=made.run.run_id)
    status = await api.call("SetThreadStatus", owner_id=mine.owner, thread_id=thread)
    assert status.thread.status == 1, "another owner's run keeps the thread busy"
    await api.call("DeleteAssistant", owner_id=mine.owner, assistant_id=assistant, delete_threads=True)
    await refused("NOT_FOUND", api.call("GetThread", owner_id=mine.owner, thread_id=thread))
    await api.call("CreateThread", owner_id=mine.owner, thread_id=thread)
    await api.call("DeleteThread", owner_id=mine.owner, thread_id=thread)
    await api.call("EraseOwner", owner_id=mine.owner)
    assert await everything(api, victim) == before


async def threads_that_name_an_assistant(api: Api) -> None:
    """Deleting an assistant with its threads leaves another owner's threads that name it, and the other way round."""
    victim, mine = await populate(api), await populate(api)
    named = json.dumps({"assistant_id": victim.assistant})
    await api.call("UpdateThread", owner_id=mine.owner, thread_id=mine.thread, metadata=named)
    before = await everything(api, mine)
    await api.call("DeleteAssistant", owner_id=victim.owner, assistant_id=victim.assistant, delete_threads=True)
    assert await everything(api, mine) == before


async def metadata_gives_no_row_away(api: Api) -> None:
    """metadata.owner is the caller, whatever a request says."""
    victim, mine = await populate(api), await populate(api)
    gift = json.dumps({"owner": victim.owner})
    for kind in ("assistant", "thread", "run", "cron"):
        id: dict[str, Any] = {f"{kind}_id": getattr(mine, kind)}
        changes: dict[str, Any] = {"metadata": gift, "remove_metadata_keys": ["owner"]}
        answer = await api.call(f"Update{kind.title()}", owner_id=mine.owner, **id, **changes)
        assert json.loads(getattr(answer, kind).metadata)["owner"] == mine.owner
        await refused("NOT_FOUND", api.call(f"Get{kind.title()}", owner_id=victim.owner, **id))


async def page_tokens(api: Api) -> None:
    """Another owner's token is refused as one that is none; so is one of another filter."""
    victim, mine = await populate(api), await populate(api)
    for method, fields in PAGED.items():
        token = (await api.call(method, owner_id=victim.owner, page_size=1, **fields(victim))).next_page_token
        assert token
        garbage = await refused(
            "INVALID_PAGE_TOKEN", api.call(method, owner_id=mine.owner, page_token="AAAA", **fields(mine))
        )
        for asked in (fields(mine), fields(victim)):
            call = api.call(method, owner_id=mine.owner, page_size=1, page_token=token, **asked)
            failure = await refused("INVALID_PAGE_TOKEN", call)
            assert (failure.code, failure.message, failure.metadata) == (
                garbage.code,
                garbage.message,
                garbage.metadata,
            )
        other = api.call(method, owner_id=victim.owner, page_token=token, metadata='{"x": 1}', **fields(victim))
        await refused("INVALID_PAGE_TOKEN", other)


async def shared_threads(api: Api) -> None:
    """READ_BY_ID: who knows the id reads the thread, its states and runs, copies it, finds it by no search and changes nothing."""
    victim, mine = await populate(api), await populate(api)
    thread: dict[str, Any] = {"owner_id": mine.owner, "thread_id": victim.thread}
    run: dict[str, Any] = {"owner_id": mine.owner, "run_id": victim.run}
    await api.call(
        "UpdateThread", owner_id=victim.owner, thread_id=victim.thread, visibility="THREAD_VISIBILITY_READ_BY_ID"
    )
    before = await everything(api, victim)
    assert (await api.call("GetThread", **thread)).thread.thread_id == victim.thread
    assert (await api.call("GetThreadState", **thread)).state.checkpoint_id == victim.later
    assert len((await api.call("ListThreadStates", **thread)).states) == 2
    assert (await api.call("GetRun", **run)).run.run_id == victim.run
    assert (await api.call("CountRuns", **thread)).count == 1
    assert (await api.call("GetActiveRun", **thread)).run.run_id == victim.run
    await api.call("CopyThread", **thread, new_thread_id=f"copy-{mine.owner}")
    for method in ("SearchThreads", "SearchRuns"):
        found = await api.call(method, owner_id=mine.owner, page_size=100)
        assert victim.owner not in str(found).replace(f"copy-{mine.owner}", "") or method == "SearchThreads"
    assert (await api.call("CountThreads", owner_id=mine.owner, thread_ids=[victim.thread])).count == 0
    refers: dict[str, Any] = {"assistant_id": mine.assistant}
    writes: tuple[tuple[str, dict[str, Any]], ...] = (
        ("UpdateThread", {**thread, "values": "{}"}),
        ("DeleteThread", thread),
        ("SetThreadStatus", thread),
        ("AddThreadState", thread),
        ("CreateRun", {**thread, **refers}),
        ("CreateRun", {**thread, **refers, "record_only": True}),
        ("CreateCron", {**thread, **refers, "schedule": "0 0 1 1 *"}),
        ("UpdateRun", {**run, "kwargs": "{}"}),
        ("DeleteRun", run),
    )
    for method, fields in writes:
        await refused("NOT_FOUND", api.call(method, **fields))
    for strategy in ("PRUNE_STRATEGY_DELETE", "PRUNE_STRATEGY_KEEP_LATEST"):
        pruned = await api.call("PruneThreads", owner_id=mine.owner, thread_ids=[victim.thread], strategy=strategy)
        assert pruned.pruned == 0
    assert await everything(api, victim) == before


async def written_threads(api: Api) -> None:
    """Writing checkpoints to another owner's thread is NOT_FOUND, whether it is shared or has any; to one that is nowhere it is not."""
    victim, mine = await populate(api), await populate(api)
    bare = f"bare-{victim.owner}"
    shared: dict[str, Any] = {"visibility": "THREAD_VISIBILITY_READ_BY_ID"}
    await api.call("CreateThread", owner_id=victim.owner, thread_id=bare)
    await api.call("UpdateThread", owner_id=victim.owner, thread_id=victim.thread, **shared)
    before = await everything(api, victim)
    put: dict[str, Any] = {"owner_id": mine.owner, "checkpoint_id": victim.state, "checkpoint": "{}"}
    writes: dict[str, Any] = {"owner_id": mine.owner, "checkpoint_id": victim.state, "writes": [mine.write()]}
    writing: tuple[tuple[str, dict[str, Any]], ...] = (
        ("PutCheckpoint", put),
        ("PutCheckpoint", {**put, "checkpoint": "", "channels": [mine.channel()]}),
        ("PutCheckpoint", {**put, "expected_parent_id": victim.state}),
        ("PutCheckpoint", {**put, "expected_parent_id": ""}),
        ("PutWrites", writes),
        ("CommitSuperstep", {**put, "values": "{}", "status": "THREAD_STATUS_ERROR"}),
        ("CommitSuperstep", {**put, "writes": [{"checkpoint_id": victim.state, "writes": [mine.write()]}]}),
    )
    copying: dict[str, Any] = {"owner_id": mine.owner, "thread_id": mine.thread}
    for thread in (victim.thread, bare):
        for method, fields in writing:
            await refused("NOT_FOUND", api.call(method, **fields, thread_id=thread))
        await refused("NOT_FOUND", api.call("CopyThreadCheckpoints", **copying, new_thread_id=thread))
    assert await everything(api, victim) == before
    for place, (method, fields) in enumerate(writing):
        if fields.get("expected_parent_id") != victim.state:
            await api.call(method, **fields, thread_id=f"new-{mine.owner}-{place}")
    await api.call("CopyThreadCheckpoints", **copying, new_thread_id=f"new-{mine.owner}")


async def shared_checkpoints(api: Api) -> None:
    """Who may read a thread by its id reads none of its checkpoints, copies, prunes and deletes none."""
    victim, mine = await populate(api), await populate(api)
    shared: dict[str, Any] = {"visibility": "THREAD_VISIBILITY_READ_BY_ID"}
    await api.call("UpdateThread", owner_id=victim.owner, thread_id=victim.thread, **shared)
    before = await everything(api, victim)
    thread: dict[str, Any] = {"owner_id": mine.owner, "thread_id": victim.thread}
    await refused("NOT_FOUND", api.call("GetCheckpoint", **thread))
    await refused("NOT_FOUND", api.call("GetDeltaChannelHistory", **thread, channels=["c"]))
    assert await api.stream("ListCheckpoints", **thread) == []
    listed = await api.stream("ListCheckpoints", owner_id=mine.owner)
    assert {part.checkpoint.thread_id for part in listed} == {mine.thread, f"{mine.thread}2"}
    assert (await api.call("CopyThreadCheckpoints", **thread, new_thread_id=f"copy-{mine.owner}")).copied == 0
    assert (await api.call("DeleteThreadCheckpoints", **thread)).deleted == 0
    assert (await api.call("DeleteRunCheckpoints", owner_id=mine.owner, run_ids=[victim.run])).deleted == 0
    for strategy in ("PRUNE_STRATEGY_DELETE", "PRUNE_STRATEGY_KEEP_LATEST"):
        pruned = await api.call("PruneCheckpoints", owner_id=mine.owner, thread_ids=[victim.thread], strategy=strategy)
        assert pruned.deleted == 0
    await api.call("CopyThread", **thread, new_thread_id=f"thread-{mine.owner}-3")
    assert await api.stream("ListCheckpoints", owner_id=mine.owner, thread_id=f"thread-{mine.owner}-3") == []
    assert await everything(api, victim) == before


async def system_assistants(api: Api) -> None:
    """Assistants of the owner "system": everybody reads them and makes runs of them; nobody else changes them."""
    mine, id = await populate(api), f"system-{uuid.uuid4().hex}"
    system: dict[str, Any] = {"owner_id": "system", "assistant_id": id}
    await api.call("CreateAssistant", **system, graph_id="agent")
    await api.call("UpdateAssistant", **system, name="second")
    try:
        own: dict[str, Any] = {"owner_id": mine.owner, "assistant_id": id}
        assert (await api.call("GetAssistant", **own)).assistant.version == 2
        assert len((await api.call("ListAssistantVersions", **own)).versions) == 2
        assert (await api.call("CountAssistants", owner_id=mine.owner, assistant_ids=[id])).count == 1
        await api.call("CreateRun", **own, thread_id=mine.thread, multitask_strategy="MULTITASK_STRATEGY_ENQUEUE")
        await api.call("CreateCron", **own, schedule="0 0 1 1 *")
        for method, more in (
            ("UpdateAssistant", {"name": "x"}),
            ("DeleteAssistant", {}),
            ("SetLatestAssistantVersion", {"version": 1}),
        ):
            await refused("NOT_FOUND", api.call(method, **own, **more))
        assert (await api.call("GetAssistant", **own)).assistant.name == "second"
    finally:
        await api.call("DeleteAssistant", **system)


SCENARIOS: tuple[Scenario, ...] = (
    taken_ids,
    record_only,
    rows_that_wait_for_an_id,
    threads_that_name_an_assistant,
    metadata_gives_no_row_away,
    page_tokens,
    shared_threads,
    written_threads,
    shared_checkpoints,
    system_assistants,
)
