"""Who sees and touches what: own rows, another owner's, nobody's, the system owner's, and shared threads."""

from __future__ import annotations

from typing import Any

import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from tests.conformance.expect import exists, fails, invalid, not_found
from tests.conformance.rows import ASSISTANTS, CRONS, KINDS, RUNS, THREADS, Kind, every_kind, metadata_of, scoped
from tests.service import METHODS, Api, CallFailed, DirectApi

OWNED = sorted(name for name, method in METHODS.items() if "owner_id" in method.input_type.fields_by_name)
UNARY = sorted(name for name in OWNED if not METHODS[name].server_streaming)


async def calling(api: Api, method: str, **fields: Any) -> Any:
    if METHODS[method].server_streaming:
        return await api.stream(method, **fields)
    return await api.call(method, **fields)


def test_only_the_server_methods_have_no_owner() -> None:
    assert METHODS.keys() - set(OWNED) == {"GetServerInfo", "Truncate"}


@pytest.mark.parametrize("bad", ["", "*", "%", "a\n", "x" * 256, "é" * 128])
async def test_owner_that_is_none(api: Api, bad: str) -> None:
    for method in OWNED:
        with invalid("owner_id"):
            await calling(api, method, owner_id=bad)


async def test_owners_of_odd_names_are_owners(api: Api, owner: str) -> None:
    names = [f"{owner}{end}" for end in ("", "%", "_", "*", "A", "a", "é", "e\u0301", " ", "'")]
    ids = [THREADS.id_of(await THREADS.create(api, name)) for name in names]
    for name, id in zip(names, ids, strict=True):
        assert await THREADS.search(api, name) == [id]


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_unscoped_calls_need_the_right(stores: dict[str, Store], backend: str) -> None:
    api = DirectApi(build_pipeline(Settings(anonymous_rights="admin"), stores[backend]), backend)
    for method in OWNED:
        with fails("INVALID_ARGUMENT", "OWNER_REQUIRED", "owner_id"):
            await calling(api, method)


async def test_owner_service_always_names_an_owner(api: Api) -> None:
    for method in ("GetOwnerUsage", "EraseOwner", "ExportOwner"):
        with fails("INVALID_ARGUMENT", "OWNER_REQUIRED", "owner_id"):
            await calling(api, method)


async def failure(api: Api, method: str, **fields: Any) -> tuple[Any, ...]:
    """How a call fails, with the ids taken out."""
    with pytest.raises(CallFailed) as caught:
        await api.call(method, **fields)
    failed = caught.value
    return failed.code, failed.message, failed.reason, failed.fields, {**failed.metadata, "id": ""}


@every_kind
async def test_foreign_is_absent(api: Api, kind: Kind, owner: str, other: str) -> None:
    row = await kind.create(api, owner, metadata='{"a": 1}')
    id = kind.id_of(row)
    for verb in ("Get", "Update", "Delete"):
        fields: dict[str, Any] = {"metadata": '{"a": 2}'} if verb == "Update" else {}
        foreign = await failure(api, kind.method(verb), owner_id=other, **{kind.id: id}, **fields)
        absent = await failure(api, kind.method(verb), owner_id=other, **{kind.id: f"{id}x"}, **fields)
        assert foreign == absent
    await kind.call(api, "Delete", other, **{kind.id: id}, allow_missing=True)
    for filters in ({}, {f"{kind.id}s": [id]}, {"metadata": f'{{"owner": "{owner}"}}'}):
        assert await kind.search(api, other, **filters) == []
        assert await kind.count(api, other, **filters) == 0
        assert await kind.search(api, owner, **filters) == [id]
    assert await kind.get(api, owner, id) == row


@pytest.mark.parametrize("verb", ["SetLatestAssistantVersion", "ListAssistantVersions"])
async def test_versions_of_a_foreign_assistant(api: Api, owner: str, other: str, verb: str) -> None:
    id = ASSISTANTS.id_of(await ASSISTANTS.create(api, owner))
    more: dict[str, Any] = {"version": 1} if verb.startswith("Set") else {}
    with not_found("assistant", id):
        await api.call(verb, owner_id=other, assistant_id=id, **more)


@pytest.mark.parametrize("kind", [RUNS, CRONS], ids=lambda kind: kind.name)
@pytest.mark.parametrize("record_only", [False, True])
@pytest.mark.parametrize("foreign", ["thread", "assistant"])
async def test_foreign_references(
    api: Api, owner: str, other: str, kind: Kind, record_only: bool, foreign: str
) -> None:
    thread_id = THREADS.id_of(await THREADS.create(api, owner if foreign != "thread" else other))
    assistant_id = ASSISTANTS.id_of(await ASSISTANTS.create(api, owner if foreign != "assistant" else other))
    with not_found(foreign, thread_id if foreign == "thread" else assistant_id):
        await kind.create(api, owner, thread_id=thread_id, assistant_id=assistant_id, record_only=record_only)
    for name in (owner, other):
        assert await kind.count(api, name) == 0


@every_kind
async def test_unscoped_calls_see_all_and_make_rows_of_nobody(api: Api, kind: Kind, owner: str, other: str) -> None:
    mark = f'{{"mark": "{owner}"}}'
    ids = [kind.id_of(await kind.create(api, name, metadata=mark)) for name in (owner, other, None)]
    assert await kind.search(api, None, metadata=mark) == ids[::-1]
    assert await kind.count(api, None, metadata=mark) == 3
    for name, id in zip((owner, other), ids[:2], strict=True):
        assert await kind.search(api, name) == [id]
    for name in (owner, other):
        with not_found(kind.name, ids[2]):
            await kind.get(api, name, ids[2])
        with not_found(kind.name, ids[2]):
            await kind.call(api, "Delete", name, **{kind.id: ids[2]})
        with exists(kind.name, ids[2]):
            await kind.create(api, name, ids[2], metadata=mark)
    for id in ids:
        assert kind.id_of(await kind.get(api, None, id)) == id
        changed = await kind.call(api, "Update", None, **{kind.id: id}, metadata='{"more": 1}')
        assert metadata_of(changed)["more"] == 1
    assert metadata_of(await kind.get(api, owner, ids[0]))["owner"] == owner
    for id in ids:
        await kind.call(api, "Delete", None, **{kind.id: id})
    assert await kind.count(api, None, metadata=mark) == 0


@pytest.mark.parametrize("record_only", [False, True])
async def test_run_without_owner_takes_that_of_its_thread(api: Api, owner: str, record_only: bool) -> None:
    thread_id = THREADS.id_of(await THREADS.create(api, owner))
    assistant_id = ASSISTANTS.id_of(await ASSISTANTS.create(api, owner))
    run = await RUNS.create(api, None, thread_id=thread_id, assistant_id=assistant_id, record_only=record_only)
    assert metadata_of(run) == {"owner": owner}
    assert await RUNS.get(api, owner, run.run_id) == run
    assert await RUNS.search(api, owner) == [run.run_id]
    assert (await api.call("GetActiveRun", owner_id=owner, thread_id=thread_id)).run == run


async def test_system_assistants_are_read_by_all_and_changed_by_system(api: Api, owner: str) -> None:
    system = await ASSISTANTS.create(api, "system", metadata=f'{{"mark": "{owner}"}}', name="shared")
    id = system.assistant_id
    mark = {"metadata": f'{{"mark": "{owner}"}}'}
    try:
        assert await ASSISTANTS.get(api, owner, id) == system
        mine = await ASSISTANTS.create(api, owner, **mark)
        assert await ASSISTANTS.search(api, owner, **mark) == [mine.assistant_id, id]
        assert await ASSISTANTS.count(api, owner, **mark) == 2
        assert await ASSISTANTS.search(api, owner, assistant_ids=[id], name="SHARED") == [id]
        assert await ASSISTANTS.search(api, "system", **mark) == [id]
        versions = await api.call("ListAssistantVersions", owner_id=owner, assistant_id=id)
        assert list(versions.versions) == [system]
        thread_id = THREADS.id_of(await THREADS.create(api, owner))
        run = await RUNS.create(api, owner, thread_id=thread_id, assistant_id=id, record_only=False)
        assert metadata_of(run) == {"owner": owner}
        cron = await CRONS.create(api, owner, thread_id=thread_id, assistant_id=id, record_only=False)
        assert metadata_of(cron) == {"owner": owner}
        for method, more in (
            ("UpdateAssistant", {"name": "x"}),
            ("UpdateAssistant", {"name": "x", "expected_version": 9}),
            ("DeleteAssistant", {"delete_threads": True}),
            ("SetLatestAssistantVersion", {"version": 1}),
        ):
            with not_found("assistant", id):
                await api.call(method, owner_id=owner, assistant_id=id, **more)
        with exists("assistant", id):
            await ASSISTANTS.create(api, owner, id, if_exists="IF_EXISTS_DO_NOTHING")
        changed = await ASSISTANTS.call(api, "Update", "system", assistant_id=id, name="other")
        assert await ASSISTANTS.get(api, owner, id) == changed
    finally:
        await ASSISTANTS.call(api, "Delete", "system", assistant_id=id)
    with not_found("assistant", id):
        await ASSISTANTS.get(api, owner, id)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind is not ASSISTANTS], ids=lambda kind: kind.name)
async def test_only_assistants_of_system_are_shared(api: Api, kind: Kind, owner: str) -> None:
    id = f"{owner}-1"
    await kind.create(api, "system", id, metadata=f'{{"mark": "{owner}"}}')
    with not_found(kind.name, id):
        await kind.get(api, owner, id)
    assert await kind.search(api, owner, metadata=f'{{"mark": "{owner}"}}') == []
    await kind.call(api, "Delete", "system", **{kind.id: id})


class TestSharedThread:
    """A thread whose visibility is READ_BY_ID."""

    @pytest.fixture
    async def thread_id(self, api: Api, owner: str) -> str:
        thread = await THREADS.create(api, owner, f"{owner}-t", visibility="THREAD_VISIBILITY_READ_BY_ID")
        await api.call("AddThreadState", owner_id=owner, thread_id=thread.thread_id, checkpoint_id="c1", values="[1]")
        for run in ("r1", "r2"):
            await RUNS.create(api, owner, f"{owner}-{run}", thread_id=thread.thread_id, metadata='{"a": 1}')
        return str(thread.thread_id)

    async def reads(self, api: Api, thread_id: str, owner: str, reader: str) -> list[Any]:
        """What the reads by id answer."""
        named: dict[str, Any] = {"owner_id": reader, "thread_id": thread_id}
        return [
            await api.call("GetThread", **named),
            await api.call("GetThreadState", **named),
            await api.call("ListThreadStates", **named),
            await api.call("ListThreadStates", **named, before="c1"),
            await api.call("GetRun", owner_id=reader, run_id=f"{owner}-r1"),
            await api.call("GetRun", **named, run_id=f"{owner}-r1"),
            await api.call("GetActiveRun", **named),
            await api.call("SearchRuns", **named),
            await api.call("SearchRuns", **named, metadata='{"a": 1}', run_ids=[f"{owner}-r1"]),
            await api.call("CountRuns", **named),
        ]

    async def test_read_by_who_knows_the_id(self, api: Api, thread_id: str, owner: str, other: str) -> None:
        mine = await self.reads(api, thread_id, owner, owner)
        assert len(mine[7].runs) == mine[9].count == 2
        assert len(mine[8].runs) == 1
        assert await self.reads(api, thread_id, owner, other) == mine

    async def test_never_in_a_search(self, api: Api, thread_id: str, owner: str, other: str) -> None:
        for more in ({}, {"thread_ids": [thread_id]}):
            assert await THREADS.search(api, other, **more) == []
            assert await THREADS.count(api, other, **more) == 0
        filters: tuple[dict[str, Any], ...] = ({}, {"run_ids": [f"{owner}-r1"]}, {"assistant_id": "recorded-assistant"})
        for more in filters:
            assert await RUNS.search(api, other, **more) == []
            assert await RUNS.count(api, other, **more) == 0

    async def test_written_by_its_owner_alone(self, api: Api, thread_id: str, owner: str, other: str) -> None:
        before = await self.reads(api, thread_id, owner, owner)
        assistant_id = ASSISTANTS.id_of(await ASSISTANTS.create(api, other))
        named: dict[str, Any] = {"owner_id": other, "thread_id": thread_id}
        for method, more in (
            ("UpdateThread", {"metadata": '{"a": 1}'}),
            ("UpdateThread", {"status": 1, "expected_status": [3]}),
            ("DeleteThread", {}),
            ("SetThreadStatus", {}),
            ("AddThreadState", {}),
            ("AddThreadState", {"checkpoint_id": "c1", "values": "[1]"}),
            ("CreateRun", {"assistant_id": assistant_id}),
            ("CreateRun", {"assistant_id": assistant_id, "record_only": True}),
            ("CreateCron", {"assistant_id": assistant_id, "schedule": "@daily"}),
            ("CreateCron", {"assistant_id": assistant_id, "schedule": "@daily", "record_only": True}),
        ):
            with not_found("thread", thread_id):
                await api.call(method, **named, **more)
        for method in ("UpdateRun", "DeleteRun"):
            with not_found("run", f"{owner}-r1"):
                await api.call(method, owner_id=other, run_id=f"{owner}-r1")
        for strategy in (1, 2):
            pruned = await api.call("PruneThreads", owner_id=other, thread_ids=[thread_id], strategy=strategy)
            assert pruned.pruned == 0
        assert await self.reads(api, thread_id, owner, owner) == before

    async def test_copied_by_who_knows_the_id(self, api: Api, thread_id: str, owner: str, other: str) -> None:
        copy = (await api.call("CopyThread", owner_id=other, thread_id=thread_id)).thread
        assert metadata_of(copy) == {"owner": other}
        assert copy.visibility == 1
        assert await THREADS.search(api, other) == [copy.thread_id]
        with not_found("thread", copy.thread_id):
            await THREADS.get(api, owner, copy.thread_id)

    async def test_private_again(self, api: Api, thread_id: str, owner: str, other: str) -> None:
        await api.call("UpdateThread", owner_id=owner, thread_id=thread_id, visibility="THREAD_VISIBILITY_PRIVATE")
        named: dict[str, Any] = {"owner_id": other, "thread_id": thread_id}
        for method in ("GetThread", "GetThreadState", "ListThreadStates", "CopyThread"):
            with not_found("thread", thread_id):
                await api.call(method, **named)
        with not_found("run", f"{owner}-r1"):
            await api.call("GetRun", owner_id=other, run_id=f"{owner}-r1")
        assert (await api.call("CountRuns", **named)).count == 0
        assert not (await api.call("GetActiveRun", **named)).HasField("run")


async def test_run_of_another_owner_on_a_shared_thread_stays_its_own(api: Api, owner: str, other: str) -> None:
    """A row that names the shared thread, but is not the thread owner's, is not shared."""
    thread_id = f"{owner}-t"
    run = await RUNS.create(api, other, thread_id=thread_id)
    await THREADS.create(api, owner, thread_id, visibility="THREAD_VISIBILITY_READ_BY_ID")
    assert await RUNS.search(api, owner, thread_id=thread_id) == []
    assert await RUNS.search(api, other, thread_id=thread_id) == [run.run_id]
    assert await RUNS.search(api, f"{other}-x", thread_id=thread_id) == []
    with not_found("run", run.run_id):
        await RUNS.get(api, owner, run.run_id)
    await api.call("DeleteThread", **scoped(owner), thread_id=thread_id)
    assert await RUNS.get(api, other, run.run_id) == run
