"""ServerService: what the server says of itself, and Truncate."""

from __future__ import annotations

import pytest

from storage_service import __version__
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Store
from tests.conformance.expect import fails, invalid
from tests.conformance.rows import ASSISTANTS, CRONS, RUNS, THREADS, Kind
from tests.service import Api, DirectApi

MEMORY = ["memory-direct", "memory-grpc"]
POSTGRES = ["postgres-direct", "postgres-grpc", "unprepared-grpc"]


async def test_info(api: Api) -> None:
    info = await api.call("GetServerInfo")
    assert (info.version, info.backend) == (__version__, api.backend)
    limits = {field.name: value for field, value in info.limits.ListFields()}
    assert limits == {
        "message_bytes": 64 * 1024 * 1024,
        "blob_bytes": 64 * 1024 * 1024,
        "json_bytes": 16 * 1024 * 1024,
        "json_depth": 100,
        "namespace_labels": 32,
        "id_bytes": 255,
        "page_size": 1000,
        "batch_operations": 1000,
        "call_seconds": 30.0,
        "calls_in_flight": 4000,
        "exchange_calls": 1000,
    }
    assert "truncate" in info.capabilities


@pytest.mark.parametrize("api", MEMORY, indirect=True)
async def test_info_of_memory(api: Api) -> None:
    info = await api.call("GetServerInfo")
    assert info.schema_revision == 0
    assert not info.HasField("pool")


@pytest.mark.parametrize("api", POSTGRES, indirect=True)
async def test_info_of_postgres(api: Api, owner: str) -> None:
    await THREADS.count(api, owner)
    info = await api.call("GetServerInfo")
    assert info.schema_revision > 0
    assert info.HasField("pool")
    assert 1 <= info.pool.size <= info.pool.max_size == 10
    assert 0 <= info.pool.available <= info.pool.size


@pytest.mark.parametrize("backend", ["memory", "postgres"])
@pytest.mark.parametrize("rights", ["", "unscoped"])
async def test_truncate_needs_the_right(stores: dict[str, Store], backend: str, rights: str, owner: str) -> None:
    settings = Settings(anonymous_rights=rights, allow_truncate=True)
    api = DirectApi(build_pipeline(settings, stores[backend]), backend)
    row = await THREADS.create(api, owner)
    with fails("PERMISSION_DENIED", "PERMISSION_DENIED"):
        await api.call("Truncate", resources=["RESOURCE_THREADS"])
    # The right is asked for before the request is looked at.
    with fails("PERMISSION_DENIED", "PERMISSION_DENIED"):
        await api.call("Truncate")
    assert await THREADS.get(api, owner, row.thread_id) == row


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_truncate_needs_the_setting(stores: dict[str, Store], backend: str, owner: str) -> None:
    api = DirectApi(build_pipeline(Settings(anonymous_rights="admin"), stores[backend]), backend)
    row = await THREADS.create(api, owner)
    with fails("FAILED_PRECONDITION", "DISABLED"):
        await api.call("Truncate", resources=["RESOURCE_THREADS"])
    assert await THREADS.get(api, owner, row.thread_id) == row
    assert "truncate" not in (await api.call("GetServerInfo")).capabilities


async def test_truncate_of_nothing(api: Api) -> None:
    with invalid("resources"):
        await api.call("Truncate")
    with invalid("resources[0]"):
        await api.call("Truncate", resources=["RESOURCE_UNSPECIFIED"])
    with invalid("resources[0]"):
        await api.call("Truncate", resources=[6])
    with invalid("resources"):
        await api.call("Truncate", resources=[1] * 11)


KINDS: dict[str, Kind] = {"ASSISTANTS": ASSISTANTS, "THREADS": THREADS, "RUNS": RUNS, "CRONS": CRONS}


@pytest.mark.parametrize("resource", [*KINDS, "ITEMS"])
async def test_truncate_empties_the_named_resources_of_all(api: Api, owner: str, other: str, resource: str) -> None:
    for name in (owner, other):
        for kind in KINDS.values():
            await kind.create(api, name)
        await api.call("PutItem", owner_id=name, namespace=["a"], key="k", value="1")
    thread_id = (await THREADS.search(api, owner))[0]
    await api.call("AddThreadState", owner_id=owner, thread_id=thread_id)
    assistant_id = (await ASSISTANTS.search(api, owner))[0]
    await api.call("UpdateAssistant", owner_id=owner, assistant_id=assistant_id, name="new")
    await api.call("Truncate", resources=[f"RESOURCE_{resource}", f"RESOURCE_{resource}"])
    for name in (owner, other):
        usage = (await api.call("GetOwnerUsage", owner_id=name)).usage
        assert {entry.resource: entry.rows > 0 for entry in usage} == {
            number: word != resource
            for number, word in enumerate(("ASSISTANTS", "THREADS", "RUNS", "ITEMS", "CRONS"), 1)
        }
    await api.call("Truncate", resources=[1, 2, 3, 4, 5])
    assert await THREADS.count(api, None) == await ASSISTANTS.count(api, None) == 0
    # The same ids begin anew.
    await THREADS.create(api, owner, thread_id)
    listed = await api.call("ListThreadStates", owner_id=owner, thread_id=thread_id)
    assert not listed.states
    await ASSISTANTS.create(api, owner, assistant_id)
    versions = await api.call("ListAssistantVersions", owner_id=owner, assistant_id=assistant_id)
    assert [row.version for row in versions.versions] == [1]
