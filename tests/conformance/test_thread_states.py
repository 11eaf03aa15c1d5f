"""The states of threads: added, read, listed."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conformance.expect import exists, invalid, not_found
from tests.conformance.rows import THREADS, assert_same
from tests.service import Api

WHOLE: dict[str, Any] = {
    "values": '{"messages": [1, "é"]}',
    "next": ["node", "a,b", "{}", ""],
    "tasks": '[{"id": "t"}]',
    "metadata": '{"step": 1}',
    "interrupts": '[{"value": 1}]',
}


@pytest.fixture
async def thread_id(api: Api, owner: str) -> str:
    return THREADS.id_of(await THREADS.create(api, owner, f"{owner}-t", metadata='{"m": 1}'))


async def add(api: Api, owner: str, thread_id: str, checkpoint_id: str = "", **fields: Any) -> Any:
    response = await api.call(
        "AddThreadState", owner_id=owner, thread_id=thread_id, checkpoint_id=checkpoint_id, **fields
    )
    return response.state


async def newest(api: Api, owner: str, thread_id: str) -> Any:
    return (await api.call("GetThreadState", owner_id=owner, thread_id=thread_id)).state


async def listed(api: Api, owner: str, thread_id: str, **fields: Any) -> list[str]:
    response = await api.call("ListThreadStates", owner_id=owner, thread_id=thread_id, **fields)
    return [state.checkpoint_id for state in response.states]


async def test_thread_without_a_state_gives_its_values(api: Api, owner: str, thread_id: str) -> None:
    row = await THREADS.get(api, owner, thread_id)
    state = await newest(api, owner, thread_id)
    assert (state.thread_id, state.checkpoint_id, state.sequence, state.parent_checkpoint) == (thread_id, "", 0, "")
    assert (state.values, list(state.next), state.tasks, state.interrupts) == ("{}", [], "[]", "{}")
    assert (state.metadata, state.created_at) == (row.metadata, row.created_at)
    row = await THREADS.call(api, "Update", owner, thread_id=thread_id, values="[1]", interrupts='{"i": 1}')
    state = await newest(api, owner, thread_id)
    assert (state.values, state.interrupts, state.created_at) == ("[1]", '{"i": 1}', row.state_updated_at)
    assert await listed(api, owner, thread_id) == []


async def test_defaults(api: Api, owner: str, thread_id: str) -> None:
    state = await add(api, owner, thread_id)
    assert len(state.checkpoint_id) == 32
    assert (state.values, list(state.next), state.tasks, state.metadata) == ("{}", [], "[]", "{}")
    assert (state.interrupts, state.parent_checkpoint) == ("[]", "")
    assert state.sequence > 0


async def test_every_field_is_kept_and_the_thread_takes_the_values(api: Api, owner: str, thread_id: str) -> None:
    before = await THREADS.get(api, owner, thread_id)
    state = await add(api, owner, thread_id, "c1", **WHOLE)
    for name, value in WHOLE.items():
        kept = getattr(state, name)
        assert (list(kept) if name == "next" else kept) == value
    assert await newest(api, owner, thread_id) == state
    after = await THREADS.get(api, owner, thread_id)
    assert after.values == WHOLE["values"]
    assert after.state_updated_at == after.updated_at == state.created_at
    for name in ("metadata", "config", "status", "interrupts", "error", "created_at"):
        assert getattr(after, name) == getattr(before, name)


async def test_order_is_that_of_adding(api: Api, owner: str, thread_id: str) -> None:
    names = ["b", "z", "a", "A", "é", "0"]
    added = [await add(api, owner, thread_id, name) for name in names]
    assert [state.sequence for state in added] == sorted(state.sequence for state in added)
    assert await listed(api, owner, thread_id) == names[::-1]
    assert (await newest(api, owner, thread_id)) == added[-1]


async def test_parent_is_the_newest_state_unless_given(api: Api, owner: str, thread_id: str) -> None:
    assert (await add(api, owner, thread_id, "c0")).parent_checkpoint == ""
    second = await add(api, owner, thread_id, "c1")
    assert_same(second.parent_checkpoint, {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": "c0"})
    fork = {"thread_id": thread_id, "checkpoint_ns": "x", "checkpoint_id": "c0", "more": [1]}
    assert_same((await add(api, owner, thread_id, "c2", parent_checkpoint=json.dumps(fork))).parent_checkpoint, fork)
    assert (await add(api, owner, thread_id, "c3", parent_checkpoint=" null ")).parent_checkpoint == ""
    third = await add(api, owner, thread_id, "c4")
    assert_same(third.parent_checkpoint, {"thread_id": thread_id, "checkpoint_ns": "", "checkpoint_id": "c3"})
    for bad in ("[]", "1", '"c3"', "true"):
        with invalid("parent_checkpoint"):
            await add(api, owner, thread_id, parent_checkpoint=bad)


async def test_state_sent_again(api: Api, owner: str, thread_id: str) -> None:
    state = await add(api, owner, thread_id, "c1", **WHOLE)
    await add(api, owner, thread_id, "c2", values='{"now": 1}')
    again = {**WHOLE, "values": '{"messages":[1,"\\u00e9"]}', "metadata": '{"step": 1.0}'}
    assert await add(api, owner, thread_id, "c1", **again) == state
    # It stays the first and does not bring its values back.
    assert await listed(api, owner, thread_id) == ["c2", "c1"]
    assert (await THREADS.get(api, owner, thread_id)).values == '{"now": 1}'


@pytest.mark.parametrize(
    "other_content",
    [
        {"values": "{}"},
        {"next": ["node"]},
        {"tasks": "[]"},
        {"metadata": '{"step": 2}'},
        {"interrupts": "[]"},
        {"parent_checkpoint": '{"checkpoint_id": "x"}'},
    ],
    ids=lambda content: next(iter(content)),
)
async def test_other_content_under_the_same_id(
    api: Api, owner: str, thread_id: str, other_content: dict[str, Any]
) -> None:
    await add(api, owner, thread_id, "c1", **WHOLE)
    before = await THREADS.get(api, owner, thread_id)
    with exists("thread state", "c1"):
        await add(api, owner, thread_id, "c1", **{**WHOLE, **other_content})
    assert await listed(api, owner, thread_id) == ["c1"]
    assert await THREADS.get(api, owner, thread_id) == before


async def test_ids_are_of_one_thread(api: Api, owner: str, thread_id: str) -> None:
    second = THREADS.id_of(await THREADS.create(api, owner))
    await add(api, owner, thread_id, "c1", values="[1]")
    await add(api, owner, second, "c1", values="[2]")
    assert (await newest(api, owner, thread_id)).values == "[1]"
    assert (await newest(api, owner, second)).values == "[2]"


async def test_concurrent_adds_of_one_id_make_one_state(api: Api, owner: str, thread_id: str) -> None:
    rows = await asyncio.gather(*(add(api, owner, thread_id, "c1", values="[1]") for _ in range(8)))
    assert all(row == rows[0] for row in rows)
    assert await listed(api, owner, thread_id) == ["c1"]


async def test_concurrent_adds_lose_nothing(api: Api, owner: str, thread_id: str) -> None:
    await asyncio.gather(*(add(api, owner, thread_id, f"c{number}", values=f"[{number}]") for number in range(16)))
    found = await listed(api, owner, thread_id, page_size=100)
    assert sorted(found) == sorted(f"c{number}" for number in range(16))


async def test_before(api: Api, owner: str, thread_id: str) -> None:
    for number in range(5):
        await add(api, owner, thread_id, f"c{number}", metadata=f'{{"even": {number % 2}}}')
    assert await listed(api, owner, thread_id, before="c3") == ["c2", "c1", "c0"]
    assert await listed(api, owner, thread_id, before="c3", page_size=1) == ["c2"]
    assert await listed(api, owner, thread_id, before="c3", offset=1) == ["c1", "c0"]
    assert await listed(api, owner, thread_id, before="c3", metadata='{"even": 0}') == ["c2", "c0"]
    assert await listed(api, owner, thread_id, before="c0") == []
    response = await api.call("ListThreadStates", owner_id=owner, thread_id=thread_id, before="c4", page_size=2)
    token = response.next_page_token
    assert await listed(api, owner, thread_id, before="c4", page_token=token) == ["c1", "c0"]
    second = THREADS.id_of(await THREADS.create(api, owner))
    await add(api, owner, second, "elsewhere")
    for unknown in ("c9", "C3", "elsewhere", "c"):
        with not_found("thread state", unknown):
            await listed(api, owner, thread_id, before=unknown)
    with not_found("thread", "absent"):
        await listed(api, owner, "absent", before="c1")


@pytest.mark.parametrize(
    ("metadata", "found"),
    [('{"a": 1.0}', ["c2", "c0"]), ('{"tags": ["x"]}', ["c1"]), ('{"absent": null}', []), ("{}", ["c2", "c1", "c0"])],
)
async def test_list_by_metadata(api: Api, owner: str, thread_id: str, metadata: str, found: list[str]) -> None:
    for number, text in enumerate(('{"a": 1}', '{"a": "1", "tags": ["x", "y"]}', '{"a": 1, "b": 2}')):
        await add(api, owner, thread_id, f"c{number}", metadata=text)
    assert await listed(api, owner, thread_id, metadata=metadata) == found


async def test_absent_thread(api: Api, owner: str) -> None:
    for method in ("GetThreadState", "ListThreadStates", "AddThreadState"):
        with not_found("thread", "absent"):
            await api.call(method, owner_id=owner, thread_id="absent")
        with invalid("thread_id"):
            await api.call(method, owner_id=owner)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("checkpoint_id", "x" * 256, "checkpoint_id"),
        ("tasks", "{}", "tasks"),
        ("metadata", "[]", "metadata"),
        ("values", "{", "values"),
        ("interrupts", "nul", "interrupts"),
        ("next", ["a", "x" * 1025], "next[1]"),
        ("next", ["a\0"], "next[0]"),
        ("next", ["a"] * 1001, "next"),
    ],
)
async def test_bad_fields(api: Api, owner: str, thread_id: str, field: str, value: Any, named: str) -> None:
    with invalid(named):
        await api.call("AddThreadState", owner_id=owner, thread_id=thread_id, **{field: value})
    assert await listed(api, owner, thread_id) == []
