"""AssistantService beyond what all kinds of rows do alike."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conformance.expect import fails, invalid, not_found
from tests.conformance.rows import ASSISTANTS, CRONS, RUNS, THREADS, metadata_of
from tests.service import Api

WHOLE = {
    "graph_id": "graph",
    "name": "Näme",
    "description": "what it is for",
    "config": '{"a": 1}',
    "context": '{"b": [1]}',
    "metadata": '{"c": null}',
}


async def update(api: Api, owner: str, id: str, **fields: Any) -> Any:
    return (await api.call("UpdateAssistant", owner_id=owner, assistant_id=id, **fields)).assistant


async def versions(api: Api, owner: str, id: str, **fields: Any) -> list[Any]:
    response = await api.call("ListAssistantVersions", owner_id=owner, assistant_id=id, page_size=100, **fields)
    return list(response.versions)


async def test_defaults(api: Api, owner: str) -> None:
    row = await ASSISTANTS.create(api, owner)
    assert (row.graph_id, row.name, row.description, row.config, row.context) == ("graph", "", "", "{}", "{}")
    assert row.version == 1


async def test_every_field_is_kept(api: Api, owner: str) -> None:
    row = await ASSISTANTS.create(api, owner, **WHOLE)
    for name, value in WHOLE.items():
        if name != "metadata":
            assert getattr(row, name) == value
    assert metadata_of(row) == {"c": None, "owner": owner}
    assert await ASSISTANTS.get(api, owner, row.assistant_id) == row


@pytest.mark.parametrize(
    ("field", "value"),
    [("graph_id", ""), ("graph_id", "x" * 1025), ("name", "x" * 1025), ("description", "x" * 65537), ("name", "a\0")],
)
async def test_bad_texts(api: Api, owner: str, field: str, value: str) -> None:
    with invalid(field):
        await ASSISTANTS.create(api, owner, **{field: value})
    row = await ASSISTANTS.create(api, owner)
    with invalid(field):
        await update(api, owner, row.assistant_id, **{field: value})
    assert await ASSISTANTS.get(api, owner, row.assistant_id) == row


@pytest.mark.parametrize("field", ["graph_id", "name", "description", "config", "context"])
async def test_update_changes_one_field_and_keeps_the_others(api: Api, owner: str, field: str) -> None:
    row = await ASSISTANTS.create(api, owner, **WHOLE)
    value = '{"new": 1}' if field in ("config", "context") else "new"
    changed = await update(api, owner, row.assistant_id, **{field: value})
    assert changed.version == 2
    assert changed.updated_at.ToMicroseconds() > row.updated_at.ToMicroseconds()
    for name in (*WHOLE, "created_at"):
        assert getattr(changed, name) == (value if name == field else getattr(row, name))
    if field in ("name", "description"):
        assert getattr(await update(api, owner, row.assistant_id, **{field: ""}), field) == ""


async def test_each_update_keeps_the_former_version_whole(api: Api, owner: str) -> None:
    row = await ASSISTANTS.create(api, owner, **WHOLE)
    id = row.assistant_id
    second = await update(api, owner, id, graph_id="g2", context="{}", metadata='{"d": 1}')
    third = await update(api, owner, id)
    assert [row.version, second.version, third.version] == [1, 2, 3]
    assert await versions(api, owner, id) == [third, second, row]
    assert await versions(api, owner, id, metadata='{"d": 1}') == [third, second]
    assert await versions(api, owner, id, metadata='{"d": 2}') == []
    assert await ASSISTANTS.get(api, owner, id) == third


async def test_set_latest_makes_the_whole_version_current(api: Api, owner: str) -> None:
    row = await ASSISTANTS.create(api, owner, **WHOLE)
    id = row.assistant_id
    second = await update(
        api, owner, id, graph_id="g2", name="", description="", config="{}", context="{}",
        metadata='{"d": 1}', remove_metadata_keys=["c"],
    )  # fmt: skip
    latest = await api.call("SetLatestAssistantVersion", owner_id=owner, assistant_id=id, version=1)
    for name in (*WHOLE, "version", "created_at"):
        if name != "metadata":
            assert getattr(latest.assistant, name) == getattr(row, name)
    assert metadata_of(latest.assistant) == metadata_of(row)
    assert latest.assistant.updated_at.ToMicroseconds() > second.updated_at.ToMicroseconds()
    assert await ASSISTANTS.get(api, owner, id) == latest.assistant
    # No version is added, and the next one is newer than all.
    found = await versions(api, owner, id)
    assert [kept.version for kept in found] == [2, 1]
    assert found[0] == second
    third = await update(api, owner, id, name="third")
    assert (third.version, third.graph_id, third.config) == (3, "graph", '{"a": 1}')
    assert [kept.version for kept in await versions(api, owner, id)] == [3, 2, 1]
    # Also after the newest is made current twice.
    for _ in range(2):
        again = await api.call("SetLatestAssistantVersion", owner_id=owner, assistant_id=id, version=2)
        assert (again.assistant.version, again.assistant.graph_id) == (2, "g2")
    assert metadata_of(again.assistant) == {"d": 1, "owner": owner}


async def test_set_latest_of_what_is_not_there(api: Api, owner: str) -> None:
    row = await ASSISTANTS.create(api, owner)
    with not_found("assistant version", row.assistant_id):
        await api.call("SetLatestAssistantVersion", owner_id=owner, assistant_id=row.assistant_id, version=2)
    with not_found("assistant", "absent"):
        await api.call("SetLatestAssistantVersion", owner_id=owner, assistant_id="absent", version=1)
    for version in (0, -1):
        with invalid("version"):
            await api.call("SetLatestAssistantVersion", owner_id=owner, assistant_id=row.assistant_id, version=version)
    assert await ASSISTANTS.get(api, owner, row.assistant_id) == row
    with not_found("assistant", "absent"):
        await versions(api, owner, "absent")


async def test_expected_version(api: Api, owner: str) -> None:
    row = await ASSISTANTS.create(api, owner)
    id = row.assistant_id
    changed = await update(api, owner, id, expected_version=1, name="a")
    assert changed.version == 2
    for wrong in (0, 1, 3):
        with fails("ABORTED", "VERSION_MISMATCH", current="2"):
            await update(api, owner, id, expected_version=wrong, name="b")
    assert await ASSISTANTS.get(api, owner, id) == changed
    with invalid("expected_version"):
        await update(api, owner, id, expected_version=-1)
    with not_found("assistant", "absent"):
        await update(api, owner, "absent", expected_version=1)


async def test_concurrent_updates_each_add_a_version(api: Api, owner: str) -> None:
    id = ASSISTANTS.id_of(await ASSISTANTS.create(api, owner))
    rows = await asyncio.gather(*(update(api, owner, id, name=f"n{number}") for number in range(8)))
    assert sorted(row.version for row in rows) == list(range(2, 10))
    kept = await versions(api, owner, id)
    assert [row.version for row in kept] == list(range(9, 0, -1))
    assert {row.version: row.name for row in kept if row.version > 1} == {row.version: row.name for row in rows}


async def test_versions_end_with_the_assistant(api: Api, owner: str) -> None:
    id = f"{owner}-1"
    await ASSISTANTS.create(api, owner, id)
    await update(api, owner, id, name="second")
    await ASSISTANTS.call(api, "Delete", owner, assistant_id=id)
    row = await ASSISTANTS.create(api, owner, id)
    assert await versions(api, owner, id) == [row]
    assert (await update(api, owner, id)).version == 2


NAMES = ("Alpha Beta", "alphabet", "100%", "100 percent", "a_b", "axb", "Ärger", "ärgerlich", "back\\slash", "ΣΑΣ", "")
FOUND = {
    "alpha": {0, 1}, "ALPHA": {0, 1}, "a b": {0}, "%": {2}, "0%": {2}, "_": {4}, "a_b": {4}, "ÄRGER": {6, 7}, "ärger": {6, 7},
    "\\": {8}, "\u03c3\u03b1": {9}, "beta": {0}, "bet": {0, 1}, "nothing": set(), "arger": set(), "a%": set(), ".*": set(),
}  # fmt: skip


async def test_search_by_part_of_the_name(api: Api, owner: str, other: str) -> None:
    ids = [ASSISTANTS.id_of(await ASSISTANTS.create(api, owner, name=name)) for name in NAMES]
    await ASSISTANTS.create(api, other, name=NAMES[0])
    for text, places in FOUND.items():
        expected = [ids[place] for place in sorted(places, reverse=True)]
        assert await ASSISTANTS.search(api, owner, name=text) == expected, text
        assert await ASSISTANTS.count(api, owner, name=text) == len(expected), text
    assert await ASSISTANTS.search(api, owner, name="alpha", page_size=1, offset=1) == [ids[0]]


async def test_search_by_ids_and_graph(api: Api, owner: str) -> None:
    ids = [ASSISTANTS.id_of(await ASSISTANTS.create(api, owner, graph_id=f"g{number % 2}")) for number in range(4)]
    for filters, places in (
        ({"graph_id": "g0"}, [2, 0]),
        ({"graph_id": "G0"}, []),
        ({"graph_id": "g"}, []),
        ({"assistant_ids": [ids[1], ids[3], "absent"]}, [3, 1]),
        ({"assistant_ids": ids, "graph_id": "g1"}, [3, 1]),
    ):
        assert await ASSISTANTS.search(api, owner, **filters) == [ids[place] for place in places]
        assert await ASSISTANTS.count(api, owner, **filters) == len(places)
    with invalid("assistant_ids"):
        await ASSISTANTS.search(api, owner, assistant_ids=["x"] * 1001)
    with invalid("assistant_ids[0]"):
        await ASSISTANTS.search(api, owner, assistant_ids=[""])


@pytest.mark.parametrize("delete_threads", [False, True])
async def test_delete_takes_what_hangs_on_it(api: Api, owner: str, other: str, delete_threads: bool) -> None:
    id = f"{owner}-a"
    named = json.dumps({"assistant_id": id})
    # Another owner named the id before there was such an assistant: its rows stay.
    foreign_thread = await THREADS.create(api, other, metadata=named)
    foreign_run = await RUNS.create(api, other, assistant_id=id)
    foreign_cron = await CRONS.create(api, other, assistant_id=id)
    await ASSISTANTS.create(api, owner, id)
    mine = await THREADS.create(api, owner, metadata=named)
    unnamed = await THREADS.create(api, owner, metadata='{"a": 1}')
    flying = await RUNS.create(api, owner, thread_id=unnamed.thread_id, assistant_id=id)
    ended = await RUNS.create(api, owner, thread_id=unnamed.thread_id, assistant_id=id, status="RUN_STATUS_SUCCESS")
    hanging = await RUNS.create(api, owner, thread_id=mine.thread_id, assistant_id=id, status="RUN_STATUS_RUNNING")
    unrelated = await RUNS.create(api, owner, thread_id=unnamed.thread_id)
    await CRONS.create(api, owner, assistant_id=id)
    kept_cron = await CRONS.create(api, owner)

    await ASSISTANTS.call(api, "Delete", owner, assistant_id=id, delete_threads=delete_threads)

    assert await CRONS.search(api, owner) == [kept_cron.cron_id]
    threads = [unnamed.thread_id] if delete_threads else [unnamed.thread_id, mine.thread_id]
    assert await THREADS.search(api, owner) == threads
    interrupted = await RUNS.get(api, owner, flying.run_id)
    assert interrupted.status == 6
    assert interrupted.HasField("finished_at")
    assert await RUNS.get(api, owner, ended.run_id) == ended
    assert await RUNS.get(api, owner, unrelated.run_id) == unrelated
    if delete_threads:
        with not_found("run", hanging.run_id):
            await RUNS.get(api, owner, hanging.run_id)
    else:
        assert (await RUNS.get(api, owner, hanging.run_id)).status == 6
    assert await THREADS.get(api, other, foreign_thread.thread_id) == foreign_thread
    assert await RUNS.get(api, other, foreign_run.run_id) == foreign_run
    assert await CRONS.get(api, other, foreign_cron.cron_id) == foreign_cron


@pytest.mark.parametrize("delete_threads", [False, True])
async def test_delete_frees_the_threads_of_its_runs_in_flight(api: Api, owner: str, delete_threads: bool) -> None:
    gone, kept = [ASSISTANTS.id_of(await ASSISTANTS.create(api, owner)) for _ in range(2)]
    threads = {name: f"{owner}-{name}" for name in ("freed", "shared", "ended", "interrupted", "goes")}
    for name, id in threads.items():
        named = f'{{"assistant_id": "{gone}"}}' if name == "goes" else ""
        await THREADS.create(api, owner, id, metadata=named)

    async def run(name: str, assistant: str) -> Any:
        fields: dict[str, Any] = {"assistant_id": assistant, "thread_id": threads[name], "multitask_strategy": 2}
        return await RUNS.create(api, owner, **fields, record_only=False)

    for name in ("freed", "freed", "shared", "interrupted", "goes"):
        await run(name, gone)
    left = await run("shared", kept)
    # A run that ended before leaves the thread to whoever ended it.
    ended = await run("ended", gone)
    await RUNS.call(api, "Update", owner, run_id=ended.run_id, status="RUN_STATUS_SUCCESS")
    await THREADS.call(api, "Update", owner, thread_id=threads["interrupted"], status="THREAD_STATUS_INTERRUPTED")
    before = {name: await THREADS.get(api, owner, id) for name, id in threads.items()}
    await ASSISTANTS.call(api, "Delete", owner, assistant_id=gone, delete_threads=delete_threads)
    if delete_threads:
        with not_found("thread", threads["goes"]):
            await THREADS.get(api, owner, threads.pop("goes"))
    after = {name: await THREADS.get(api, owner, id) for name, id in threads.items()}
    freed = {"freed", "goes"} & threads.keys()
    for name in freed:
        assert (before[name].status, after[name].status) == (2, 1)
        assert after[name].updated_at == after[name].state_updated_at
        assert after[name].updated_at.ToMicroseconds() > before[name].updated_at.ToMicroseconds()
    for name in threads.keys() - freed:
        assert after[name] == before[name]
    assert (await RUNS.get(api, owner, left.run_id)).status == 1


async def test_delete_frees_the_threads_of_every_owner_that_an_assistant_of_the_system_ran_on(
    api: Api, owner: str, other: str
) -> None:
    id = ASSISTANTS.id_of(await ASSISTANTS.create(api, "system", f"system-{owner}"))
    for who in (owner, other):
        await THREADS.create(api, who, f"{who}-t")
        await RUNS.create(api, who, assistant_id=id, thread_id=f"{who}-t", record_only=False)
    await ASSISTANTS.call(api, "Delete", "system", assistant_id=id)
    for who in (owner, other):
        assert (await THREADS.get(api, who, f"{who}-t")).status == 1
        assert [run.status for run in (await RUNS.call(api, "Search", who)).runs] == [6]


async def test_delete_frees_nothing_of_another_owner(api: Api, owner: str, other: str) -> None:
    # Both have runs of an assistant of this name; only one of them has the assistant.
    id = f"{owner}-a"
    for who in (owner, other):
        await RUNS.create(api, who, assistant_id=id, thread_id=f"{who}-t")
        await THREADS.create(api, who, f"{who}-t", status="THREAD_STATUS_BUSY")
    await ASSISTANTS.create(api, owner, id)
    with not_found("assistant", id):
        await ASSISTANTS.call(api, "Delete", other, assistant_id=id)
    assert (await THREADS.get(api, other, f"{other}-t")).status == 2
    await ASSISTANTS.call(api, "Delete", owner, assistant_id=id)
    assert [(await THREADS.get(api, who, f"{who}-t")).status for who in (owner, other)] == [1, 2]
