"""Many callers at once on one row: nothing is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Any

import grpc
import pytest

from tests.service import Api, CallFailed, GrpcApi, ServerProcess

CALLERS = 32
WAYS = ("memory", "postgres", "unprepared")


@pytest.fixture(params=WAYS)
async def api(request: pytest.FixtureRequest, servers: dict[str, ServerProcess]) -> AsyncIterator[Api]:
    """Each backend over gRPC, Postgres also without prepared statements."""
    async with grpc.aio.insecure_channel(servers[request.param].target) as channel:
        yield GrpcApi(channel, "memory" if request.param == "memory" else "postgres")


async def outcomes(calls: Sequence[Awaitable[Any]]) -> tuple[list[Any], list[CallFailed]]:
    """The answers and the failures of calls that run at once."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    failures = [answer for answer in found if isinstance(answer, CallFailed)]
    answers = [answer for answer in found if not isinstance(answer, BaseException)]
    assert len(answers) + len(failures) == len(found), found
    return answers, failures


def reasons(failures: list[CallFailed]) -> set[str]:
    """Why calls failed."""
    return {failure.reason for failure in failures}


async def make(api: Api, owner: str) -> dict[str, Any]:
    """An assistant, a thread, a run and a cron of an owner, by the name of the field of their id."""
    ids: dict[str, Any] = {f"{kind}_id": f"{kind}-{owner}" for kind in ("assistant", "thread", "run", "cron")}
    await api.call("CreateAssistant", owner_id=owner, assistant_id=ids["assistant_id"], graph_id="agent")
    await api.call("CreateThread", owner_id=owner, thread_id=ids["thread_id"])
    parents: dict[str, Any] = {"thread_id": ids["thread_id"], "assistant_id": ids["assistant_id"]}
    await api.call("CreateRun", owner_id=owner, run_id=ids["run_id"], record_only=True, **parents)
    await api.call("CreateCron", owner_id=owner, cron_id=ids["cron_id"], schedule="0 0 1 1 *", **parents)
    return ids


@pytest.mark.parametrize("kind", ["assistant", "thread", "run", "cron"])
async def test_no_metadata_key_is_lost(api: Api, owner: str, kind: str) -> None:
    ids = await make(api, owner)
    id: dict[str, Any] = {f"{kind}_id": ids[f"{kind}_id"]}
    update, get = f"Update{kind.title()}", f"Get{kind.title()}"
    calls = [api.call(update, owner_id=owner, metadata=json.dumps({f"key-{n}": n}), **id) for n in range(CALLERS)]
    _, failures = await outcomes(calls)
    assert not failures
    row = getattr(await api.call(get, owner_id=owner, **id), kind)
    assert json.loads(row.metadata) == {"owner": owner} | {f"key-{n}": n for n in range(CALLERS)}


async def test_updates_of_different_fields_all_stay(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": ids["thread_id"]}
    changes: tuple[dict[str, Any], ...] = (
        {"config": '{"a": 1}'},
        {"values": '{"b": 2}'},
        {"interrupts": "[3]"},
        {"error": '"four"'},
        {"status": "THREAD_STATUS_ERROR"},
        {"visibility": "THREAD_VISIBILITY_READ_BY_ID"},
    )
    await asyncio.gather(*(api.call("UpdateThread", **thread, **change) for change in changes for _ in range(5)))
    row = (await api.call("GetThread", **thread)).thread
    assert (row.config, row.values, row.interrupts, row.error) == ('{"a": 1}', '{"b": 2}', "[3]", '"four"')
    assert (row.status, row.visibility) == (4, 2)


async def test_versions_of_an_assistant_have_no_gaps(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    assistant: dict[str, Any] = {"owner_id": owner, "assistant_id": ids["assistant_id"]}
    calls = [api.call("UpdateAssistant", description=f"by {n}", **assistant) for n in range(CALLERS)]
    answers, failures = await outcomes(calls)
    assert not failures
    assert sorted(answer.assistant.version for answer in answers) == list(range(2, CALLERS + 2))
    versions = (await api.call("ListAssistantVersions", page_size=1000, **assistant)).versions
    assert [row.version for row in versions] == list(range(CALLERS + 1, 0, -1))
    assert {row.version: row.description for row in versions} == {1: ""} | {
        answer.assistant.version: answer.assistant.description for answer in answers
    }


async def test_an_older_version_and_updates_at_once(api: Api, owner: str) -> None:
    """No number is given twice while others make an older version current."""
    ids = await make(api, owner)
    assistant: dict[str, Any] = {"owner_id": owner, "assistant_id": ids["assistant_id"]}
    updates = [api.call("UpdateAssistant", description=f"by {n}", **assistant) for n in range(CALLERS)]
    latest = [api.call("SetLatestAssistantVersion", version=1, **assistant) for _ in range(8)]
    (answers, failures), (_, others) = await asyncio.gather(outcomes(updates), outcomes(latest))
    assert not failures + others
    assert sorted(answer.assistant.version for answer in answers) == list(range(2, CALLERS + 2))
    versions = (await api.call("ListAssistantVersions", page_size=1000, **assistant)).versions
    assert [row.version for row in versions] == list(range(CALLERS + 1, 0, -1))


async def test_one_caller_wins_each_version_of_an_assistant(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    assistant: dict[str, Any] = {"owner_id": owner, "assistant_id": ids["assistant_id"]}
    for version in range(1, 4):
        calls = [
            api.call("UpdateAssistant", expected_version=version, metadata=json.dumps({"winner": n}), **assistant)
            for n in range(CALLERS)
        ]
        answers, failures = await outcomes(calls)
        assert [answer.assistant.version for answer in answers] == [version + 1]
        assert reasons(failures) == {"VERSION_MISMATCH"}
        row = (await api.call("GetAssistant", **assistant)).assistant
        assert row.metadata == answers[0].assistant.metadata


async def test_one_caller_wins_each_version_of_an_item(api: Api, owner: str) -> None:
    item: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k"}
    for version in range(4):
        calls = [api.call("PutItem", expected_version=version, value=str(n), **item) for n in range(CALLERS)]
        answers, failures = await outcomes(calls)
        assert [answer.item.version for answer in answers] == [version + 1]
        assert reasons(failures) == {"VERSION_MISMATCH"}
        assert (await api.call("GetItem", **item)).item.value == answers[0].item.value


async def test_puts_of_an_item_are_counted_one_by_one(api: Api, owner: str) -> None:
    item: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k"}
    answers, failures = await outcomes([api.call("PutItem", value=str(n), **item) for n in range(CALLERS)])
    assert not failures
    assert sorted(answer.item.version for answer in answers) == list(range(1, CALLERS + 1))
    assert len({answer.item.created_at.ToMicroseconds() for answer in answers}) == 1
    last = max(answers, key=lambda answer: answer.item.version)
    assert (await api.call("GetItem", **item)).item.value == last.item.value


async def test_status_changes_hands_once(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": ids["thread_id"]}
    claim: dict[str, Any] = {"status": "THREAD_STATUS_BUSY", "expected_status": ["THREAD_STATUS_IDLE"]}
    answers, failures = await outcomes([api.call("UpdateThread", **thread, **claim) for _ in range(CALLERS)])
    assert (len(answers), reasons(failures)) == (1, {"STATUS_MISMATCH"})
    run: dict[str, Any] = {"owner_id": owner, "run_id": ids["run_id"]}
    claim = {"status": "RUN_STATUS_RUNNING", "expected_status": ["RUN_STATUS_PENDING"]}
    answers, failures = await outcomes([api.call("UpdateRun", **run, **claim) for _ in range(CALLERS)])
    assert (len(answers), reasons(failures)) == (1, {"STATUS_MISMATCH"})
    ends = [api.call("UpdateRun", status=status, **run) for status in ("RUN_STATUS_SUCCESS", "RUN_STATUS_ERROR") * 16]
    answers, failures = await outcomes(ends)
    assert len({answer.run.status for answer in answers}) == 1
    assert reasons(failures) == {"RUN_ENDED"}


async def test_a_state_that_is_sent_many_times_is_kept_once(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    state: dict[str, Any] = {
        "owner_id": owner,
        "thread_id": ids["thread_id"],
        "checkpoint_id": "same",
        "values": '{"a": 1}',
    }
    answers, failures = await outcomes([api.call("AddThreadState", **state) for _ in range(CALLERS)])
    assert not failures
    assert len({answer.state.sequence for answer in answers}) == 1
    states = (await api.call("ListThreadStates", owner_id=owner, thread_id=ids["thread_id"], page_size=100)).states
    assert len(states) == 1


async def test_of_states_with_one_id_and_other_values_one_is_kept(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    state: dict[str, Any] = {"owner_id": owner, "thread_id": ids["thread_id"], "checkpoint_id": "same"}
    calls = [api.call("AddThreadState", values=json.dumps({"n": n}), **state) for n in range(CALLERS)]
    answers, failures = await outcomes(calls)
    assert (len(answers), reasons(failures)) == (1, {"ALREADY_EXISTS"})
    thread = (await api.call("GetThread", owner_id=owner, thread_id=ids["thread_id"])).thread
    newest = (await api.call("GetThreadState", owner_id=owner, thread_id=ids["thread_id"])).state
    assert thread.values == newest.values == answers[0].state.values


async def test_states_are_one_chain(api: Api, owner: str) -> None:
    """The parent that the server gives a state is the one added just before, and the thread has the newest's values."""
    ids = await make(api, owner)
    thread: dict[str, Any] = {"owner_id": owner, "thread_id": ids["thread_id"]}
    calls = [
        api.call("AddThreadState", checkpoint_id=f"s{n}", values=json.dumps({"n": n}), **thread) for n in range(CALLERS)
    ]
    _, failures = await outcomes(calls)
    assert not failures
    states = (await api.call("ListThreadStates", page_size=100, **thread)).states
    assert len(states) == CALLERS
    assert (await api.call("GetThread", **thread)).thread.values == states[0].values
    parents = [json.loads(state.parent_checkpoint or "{}").get("checkpoint_id") for state in states]
    assert parents == [state.checkpoint_id for state in states[1:]] + [None]


@pytest.mark.parametrize(
    ("method", "id", "field"),
    [
        ("CreateAssistant", "assistant_id", "graph_id"),
        ("CreateThread", "thread_id", "config"),
        ("CreateRun", "run_id", "kwargs"),
        ("CreateCron", "cron_id", "user_id"),
    ],
)
async def test_one_create_of_an_id_wins(api: Api, owner: str, other: str, method: str, id: str, field: str) -> None:
    ids = await make(api, owner)
    fields: dict[str, Any] = {"assistant_id": ids["assistant_id"], "thread_id": ids["thread_id"], "graph_id": "agent"}
    fields |= {"schedule": "0 0 1 1 *", "record_only": True, id: f"new-{owner}"}
    known = {
        "CreateAssistant": ("assistant_id",),
        "CreateThread": ("thread_id",),
        "CreateRun": ("run_id", "record_only"),
    }
    needed = known.get(method, ("cron_id", "schedule", "record_only"))
    if method in ("CreateRun", "CreateCron"):
        needed = (*needed, "assistant_id", "thread_id")
    sent: dict[str, Any] = {name: fields[name] for name in needed}
    contents: list[dict[str, Any]] = [
        {field: json.dumps({"n": n}) if field in ("config", "kwargs") else f"n{n}"} for n in range(CALLERS)
    ]
    calls = [api.call(method, owner_id=owner, **sent, **content) for content in contents]
    answers, failures = await outcomes(calls)
    assert (len(answers), reasons(failures)) == (1, {"ALREADY_EXISTS"})
    # A retry, from many, of one create is no failure.
    sent |= {id: f"again-{owner}", "request_id": "r"} | ({"graph_id": "agent"} if id == "assistant_id" else {})
    calls = [api.call(method, owner_id=owner, **sent) for _ in range(CALLERS)]
    answers, failures = await outcomes(calls)
    assert not failures
    assert len({answer.SerializeToString(deterministic=True) for answer in answers}) == 1


async def test_one_run_is_admitted(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    run: dict[str, Any] = {"owner_id": owner, "thread_id": ids["thread_id"], "assistant_id": ids["assistant_id"]}
    await api.call("DeleteRun", owner_id=owner, run_id=ids["run_id"])
    calls = [api.call("CreateRun", run_id=f"{owner}-{n}", **run) for n in range(CALLERS)]
    answers, failures = await outcomes(calls)
    assert (len(answers), reasons(failures)) == (1, {"THREAD_BUSY"})
    assert {failure.metadata["run_ids"] for failure in failures} == {answers[0].run.run_id}
    assert (await api.call("CountRuns", owner_id=owner)).count == 1


async def test_batches_in_opposite_orders_all_end(api: Api, owner: str) -> None:
    keys = [f"k{n}" for n in range(20)]

    async def write(number: int) -> None:
        order = keys if number % 2 else keys[::-1]
        puts = [{"put": {"namespace": ["a"], "key": key, "value": str(number)}} for key in order]
        for _ in range(20):
            try:
                await api.call("Batch", owner_id=owner, operations=puts)
            except CallFailed as failure:
                # Documented: it may collide more often than the server retries, and may then be sent again.
                assert (failure.code, failure.reason) == (grpc.StatusCode.ABORTED, "CONFLICT")  # noqa: PT017
            else:
                return
        raise AssertionError("a batch never got through")

    await asyncio.gather(*(write(number) for number in range(CALLERS)))
    items = (await api.call("SearchItems", owner_id=owner, limit=100)).items
    assert Counter(item.version for item in items) == {CALLERS: len(keys)}
    assert len({item.value for item in items}) == 1, "a batch was mixed with another"


async def test_a_thread_goes_while_states_come(api: Api, owner: str) -> None:
    for attempt in range(5):
        thread: dict[str, Any] = {"owner_id": owner, "thread_id": f"{owner}-{attempt}"}
        await api.call("CreateThread", **thread)
        calls = [api.call("AddThreadState", checkpoint_id=f"s{n}", **thread) for n in range(CALLERS)]
        calls.insert(CALLERS // 2, api.call("DeleteThread", **thread))
        answers, failures = await outcomes(calls)
        assert reasons(failures) <= {"NOT_FOUND"}
        assert len(answers) >= 1
    exported = await api.stream("ExportOwner", owner_id=owner)
    assert not any(part.threads or part.thread_states for part in exported)


async def test_of_many_deletes_one_finds_the_row(api: Api, owner: str) -> None:
    ids = await make(api, owner)
    for kind in ("cron", "run", "thread", "assistant"):
        id: dict[str, Any] = {f"{kind}_id": ids[f"{kind}_id"]}
        answers, failures = await outcomes(
            [api.call(f"Delete{kind.title()}", owner_id=owner, **id) for _ in range(CALLERS)]
        )
        assert (len(answers), reasons(failures)) == (1, {"NOT_FOUND"})
