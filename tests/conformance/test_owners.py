"""OwnerService: usage, erasure and export of all that one owner has."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.conformance.expect import not_found
from tests.conformance.rows import ASSISTANTS, CRONS, KINDS, RUNS, THREADS, scoped
from tests.service import Api

RESOURCES = {1: "assistants", 2: "threads", 3: "runs", 4: "items", 5: "crons"}


async def fill(api: Api, owner: str | None) -> None:
    """Two of each kind, one of them with what hangs on it."""
    for number in range(2):
        assistant = await ASSISTANTS.create(api, owner, name=f"n{number}")
        thread = await THREADS.create(api, owner, values=f"[{number}]", visibility=1 + number)
        await RUNS.create(api, owner, thread_id=thread.thread_id)
        await CRONS.create(api, owner, thread_id=thread.thread_id)
        for key in "kl":
            await api.call("PutItem", **scoped(owner), namespace=[f"a{number}"], key=key, value="1")
    await api.call("UpdateAssistant", **scoped(owner), assistant_id=assistant.assistant_id, name="new")
    for number in range(3):
        await api.call("AddThreadState", **scoped(owner), thread_id=thread.thread_id, checkpoint_id=f"c{number}")


async def usage(api: Api, owner: str) -> dict[str, tuple[int, int]]:
    response = await api.call("GetOwnerUsage", owner_id=owner)
    assert [entry.resource for entry in response.usage] == [1, 2, 3, 4, 5]
    return {RESOURCES[entry.resource]: (entry.rows, entry.bytes) for entry in response.usage}


async def export(api: Api, owner: str) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {}
    for message in await api.stream("ExportOwner", owner_id=owner):
        for field, found in message.ListFields():
            rows.setdefault(field.name, []).extend(found)
    return rows


async def test_usage(api: Api, owner: str, other: str) -> None:
    assert await usage(api, owner) == dict.fromkeys(RESOURCES.values(), (0, 0))
    await fill(api, other)
    await fill(api, owner)
    found = await usage(api, owner)
    rows = {name: count for name, (count, _) in found.items()}
    assert rows == {"assistants": 3, "threads": 5, "runs": 2, "items": 4, "crons": 2}
    assert all(20 < size < 10_000 for _, size in found.values())
    before = found["threads"][1]
    # Repetition would be compressed on one backend.
    long = "".join(str(number) for number in range(2000))
    await THREADS.create(api, owner, values=f'"{long}"')
    assert (await usage(api, owner))["threads"][1] > before + 1000


async def test_usage_and_export_mean_the_same_rows(api: Api, owner: str) -> None:
    await fill(api, owner)
    at: dict[str, Any] = {"owner_id": owner, "namespace": ["a0"], "key": "ended", "value": "1"}
    await api.call("PutItem", **at, ttl_minutes=0.0001)
    await asyncio.sleep(0.02)
    rows = await export(api, owner)
    assert sum(map(len, rows.values())) == sum(count for count, _ in (await usage(api, owner)).values())
    # An item whose time is over is absent, but erased all the same.
    await api.call("EraseOwner", owner_id=owner)
    assert (await api.call("PutItem", **at)).item.version == 1


async def test_export_is_complete_and_the_owners_alone(api: Api, owner: str, other: str) -> None:
    assert await export(api, owner) == {}
    await fill(api, other)
    await fill(api, owner)
    await fill(api, None)
    rows = await export(api, owner)
    for kind in KINDS:
        found = rows[f"{kind.name}s"]
        assert sorted(map(kind.id_of, found)) == sorted(await kind.search(api, owner))
        for row in found:
            assert await kind.get(api, owner, kind.id_of(row)) == row
    assert [(row.version, row.name) for row in rows["assistant_versions"]] == [(1, "n1")]
    states = rows["thread_states"]
    assert [state.checkpoint_id for state in states] == ["c0", "c1", "c2"]
    listed = await api.call("ListThreadStates", owner_id=owner, thread_id=states[0].thread_id)
    assert list(listed.states) == states[::-1]
    items = (await api.call("SearchItems", owner_id=owner, limit=100)).items
    assert sorted(rows["items"], key=str) == sorted(items, key=str)
    assert len(items) == 4
    for name in (owner, other):
        for kind in KINDS:
            assert await kind.count(api, name) == 2
    for id in await THREADS.search(api, None, metadata="{}", page_size=2):
        await THREADS.call(api, "Delete", None, thread_id=id, allow_missing=True)
    await api.call("DeleteNamespace", namespace=["a0"])
    await api.call("DeleteNamespace", namespace=["a1"])


async def test_export_of_many_rows_has_each_once(api: Api, owner: str) -> None:
    await asyncio.gather(*(THREADS.create(api, owner) for _ in range(130)))
    large = "x" * 400_000
    for number in range(4):
        await api.call("PutItem", owner_id=owner, namespace=["a"], key=f"{number}", value=f'"{large}"')
    puts = [{"put": {"namespace": ["b", str(n % 3)], "key": f"{n}", "value": "1"}} for n in range(230)]
    await api.call("Batch", owner_id=owner, operations=puts)
    rows = await export(api, owner)
    ids = [thread.thread_id for thread in rows["threads"]]
    assert len(ids) == len(set(ids)) == 130
    places = {(tuple(item.namespace), item.key) for item in rows["items"]}
    assert len(rows["items"]) == len(places) == 234
    for message in await api.stream("ExportOwner", owner_id=owner):
        assert message.ByteSize() < 2_000_000
        assert len(message.ListFields()) == 1


async def test_erase(api: Api, owner: str, other: str) -> None:
    await fill(api, other)
    before = await export(api, other)
    await fill(api, owner)
    runs = await RUNS.search(api, owner)
    response = await api.call("EraseOwner", owner_id=owner)
    assert response.done
    # Runs and crons that go with their thread are not counted again.
    assert 8 <= response.deleted <= 12
    assert await export(api, owner) == {}
    assert await usage(api, owner) == dict.fromkeys(RESOURCES.values(), (0, 0))
    for run in runs:
        with not_found("run", run):
            await RUNS.get(api, None, run)
    assert await export(api, other) == before
    again = await api.call("EraseOwner", owner_id=owner)
    assert (again.done, again.deleted) == (True, 0)


async def test_erase_of_more_than_a_batch(api: Api, owner: str) -> None:
    puts = [{"put": {"namespace": ["a"], "key": f"{number}", "value": "1"}} for number in range(450)]
    await api.call("Batch", owner_id=owner, operations=puts)
    response = await api.call("EraseOwner", owner_id=owner)
    assert (response.done, response.deleted) == (True, 450)
    assert (await usage(api, owner))["items"] == (0, 0)
