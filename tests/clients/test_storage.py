"""The drop-in interface as a whole: everything that a runtime calls is there, on every backend, from any event loop."""

from __future__ import annotations

import asyncio
import inspect
import traceback
from typing import Any

import pytest

import agentstorage
from agentstorage import Connection, GrpcStorage, errors
from agentstorage.v1 import threads_pb2, threads_pb2_grpc

#: What the runtimes call, and the names of the parameters in their order.
INTERFACE = {
    "assistants": {
        "create": ["data", "owner_id"],
        "get": ["id", "owner_id"],
        "list": ["owner_id", "filters"],
        "update": ["id", "data", "owner_id"],
        "delete": ["id", "owner_id"],
        "count": ["owner_id", "filters"],
        "clear": [],
    },
    "threads": {
        "create": ["data", "owner_id"],
        "get": ["id", "owner_id"],
        "list": ["owner_id", "filters"],
        "update": ["id", "data", "owner_id"],
        "delete": ["id", "owner_id"],
        "count": ["owner_id", "filters"],
        "clear": [],
        "get_state": ["thread_id", "owner_id"],
        "add_state_snapshot": ["thread_id", "state", "owner_id"],
        "get_history": ["thread_id", "owner_id", "limit", "before"],
    },
    "runs": {
        "create": ["data", "owner_id"],
        "get": ["id", "owner_id"],
        "list": ["owner_id", "filters"],
        "update": ["id", "data", "owner_id"],
        "delete": ["id", "owner_id"],
        "count": ["owner_id", "filters"],
        "clear": [],
        "list_by_thread": ["thread_id", "owner_id", "limit", "offset", "status"],
        "get_by_thread": ["thread_id", "run_id", "owner_id"],
        "delete_by_thread": ["thread_id", "run_id", "owner_id"],
        "get_active_run": ["thread_id", "owner_id"],
        "update_status": ["run_id", "status", "owner_id"],
        "count_by_thread": ["thread_id", "owner_id"],
    },
    "store": {
        "put": ["namespace", "key", "value", "owner_id", "metadata"],
        "get": ["namespace", "key", "owner_id"],
        "delete": ["namespace", "key", "owner_id"],
        "search": ["namespace", "owner_id", "prefix", "limit", "offset"],
        "list_namespaces": ["owner_id"],
        "clear": [],
    },
    "crons": {
        "create": ["data", "owner_id"],
        "get": ["id", "owner_id"],
        "list": ["owner_id", "assistant_id", "filters"],
        "update": ["cron_id", "owner_id", "updates"],
        "delete": ["id", "owner_id"],
        "count": ["owner_id", "assistant_id", "filters"],
        "clear": [],
    },
}


@pytest.mark.parametrize("resource", INTERFACE)
def test_the_interface_is_complete(resource: str) -> None:
    found = getattr(GrpcStorage("localhost:1"), resource)
    for name, parameters in INTERFACE[resource].items():
        method = getattr(found, name)
        assert inspect.iscoroutinefunction(method)
        assert list(inspect.signature(method).parameters) == parameters
        assert method.__doc__


def test_public_names_are_exported_and_documented() -> None:
    for name in agentstorage.__all__:
        assert getattr(agentstorage, name).__doc__


async def test_clear_empties_one_resource(storage: GrpcStorage, alice: str) -> None:
    await storage.assistants.create({"graph_id": "g"}, alice)
    thread = await storage.threads.create({}, alice)
    await storage.runs.create({"thread_id": thread.thread_id, "assistant_id": "a"}, alice)
    await storage.store.put("ns", "k", 1, alice)
    await storage.crons.create({"assistant_id": "a", "schedule": "@daily"}, alice)

    async def counts() -> list[int]:
        return [
            await storage.assistants.count(alice),
            await storage.threads.count(alice),
            await storage.runs.count(alice),
            len(await storage.store.list_namespaces(alice)),
            await storage.crons.count(alice),
        ]

    assert await counts() == [1, 1, 1, 1, 1]
    await storage.store.clear()
    assert await counts() == [1, 1, 1, 0, 1]
    await storage.runs.clear()
    assert await counts() == [1, 1, 0, 0, 1]
    await storage.crons.clear()
    await storage.threads.clear()
    assert await counts() == [1, 0, 0, 0, 0]
    await storage.assistants.clear()
    assert await counts() == [0, 0, 0, 0, 0]
    await storage.clear_all()


async def test_generated_stubs_raise_the_same_classes(server: Any, alice: str) -> None:
    async with Connection(server.target) as connection:
        stub: Any = connection.stub(threads_pb2_grpc.ThreadServiceStub)
        with pytest.raises(errors.NotFound) as absent:
            await stub.GetThread(threads_pb2.GetThreadRequest(owner_id=alice, thread_id="absent"))
        assert absent.value.metadata == {"resource": "thread", "id": "absent"}
        assert absent.value.reason == "NOT_FOUND"
        with pytest.raises(errors.InvalidRequest) as invalid:
            await stub.GetThread(threads_pb2.GetThreadRequest(owner_id=alice))
        assert set(invalid.value.violations) == {"thread_id"}
        with pytest.raises(errors.InvalidPageToken):
            await stub.SearchThreads(threads_pb2.SearchThreadsRequest(owner_id=alice, page_token="forged"))


async def test_a_given_connection_stays_open(server: Any, alice: str) -> None:
    async with Connection(server.target) as connection:
        async with GrpcStorage(connection) as storage:
            await storage.threads.create({}, alice)
        assert await GrpcStorage(connection).threads.count(alice) == 1


async def test_one_storage_serves_several_event_loops(storage: GrpcStorage, alice: str) -> None:
    async def work(name: str) -> None:
        for number in range(5):
            thread = await storage.threads.create({"thread_id": f"{alice}-{name}-{number}"}, alice)
            await storage.threads.update(thread.thread_id, {"metadata": {"by": name}}, alice)
            await storage.store.put("loops", f"{name}-{number}", number, alice)

    await asyncio.gather(work("main"), *(asyncio.to_thread(asyncio.run, work(str(number))) for number in range(4)))
    assert await storage.threads.count(alice) == 25
    assert len(await storage.store.search("loops", alice, limit=100)) == 25


async def test_a_failure_with_a_reason_hides_the_error_of_grpc(storage: GrpcStorage, alice: str) -> None:
    await storage.threads.create({"thread_id": alice}, alice)
    with pytest.raises(errors.AlreadyExists) as caught:
        await storage.threads.create({"thread_id": alice}, alice)
    assert "AioRpcError" not in "".join(traceback.format_exception(caught.value))


async def test_a_key_that_is_misspelt_is_refused(storage: GrpcStorage, alice: str) -> None:
    with pytest.raises(ValueError, match="'metdata'; did you mean 'metadata'"):
        await storage.threads.create({"metdata": {}}, alice)
    thread = await storage.threads.create({}, alice)
    with pytest.raises(ValueError, match="'Status'; did you mean 'status'"):
        await storage.threads.update(thread.thread_id, {"Status": "busy"}, alice)
    with pytest.raises(ValueError, match="'assistantId'; did you mean 'assistant_id'"):
        await storage.runs.create({"thread_id": "t", "assistant_id": "a", "assistantId": "a"}, alice)
    with pytest.raises(ValueError, match="'time_zone'; did you mean 'timezone'"):
        await storage.crons.update("c", alice, {"time_zone": "UTC"})
    assert await storage.runs.count(alice) == 0


async def test_what_runtimes_hand_on_is_not_taken_for_misspelt(storage: GrpcStorage, alice: str) -> None:
    # The keys of LangGraph's API, which a route may pass as they came, and those of the results.
    others = [
        "input",
        "command",
        "stream_mode",
        "stream_subgraphs",
        "stream_resumable",
        "on_disconnect",
        "feedback_keys",
        "webhook",
        "interrupt_before",
        "interrupt_after",
        "if_not_exists",
        "on_completion",
        "after_seconds",
        "checkpoint",
        "checkpoint_id",
        "checkpoint_during",
        "durability",
        "supersteps",
        "ttl",
        "owner",
        "owner_id",
        "user",
        "version",
        "created_at",
        "updated_at",
        "next_run_date",
        "state",
        "next",
        "tasks",
        "parent_config",
    ]
    data = {"graph_id": "g", "assistant_id": f"a-{alice}", "schedule": "@daily", **dict.fromkeys(others, "other")}
    assert (await storage.assistants.create(data, alice)).graph_id == "g"
    thread = await storage.threads.create({"thread_id": f"t-{alice}", **data}, alice)
    assert (await storage.runs.create({"thread_id": thread.thread_id, **data}, alice)).status == "pending"
    assert (await storage.crons.create(data, alice)).schedule == "@daily"


async def test_many_calls_at_once(storage: GrpcStorage, alice: str) -> None:
    await asyncio.gather(*(storage.store.put("many", f"{number:03}", number, alice) for number in range(200)))
    items = await storage.store.search("many", alice, limit=1000)
    assert [item.value for item in items] == list(range(200))
