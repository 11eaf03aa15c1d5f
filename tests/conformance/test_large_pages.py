"""Pages of large rows: what is larger than a message is refused before much more than a message is read."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store import Store
from storage_service.store.memory import rows as memory_rows
from tests.conformance.expect import fails
from tests.conformance.rows import ASSISTANTS, THREADS
from tests.service import Api, CallFailed, DirectApi

KIB = 1024
MESSAGE = 1024 * KIB
ROW, ROWS = 100 * KIB, 40
LARGE = json.dumps({"x": "x" * ROW})


@pytest.fixture(params=["memory", "postgres"])
def small(request: pytest.FixtureRequest, stores: dict[str, Store]) -> Api:
    """The API with small messages."""
    settings = Settings(anonymous_rights="unscoped", limits=Limits(message_bytes=MESSAGE))
    return DirectApi(build_pipeline(settings, stores[request.param]), request.param)


async def fill(api: Api, listing: str, owner: str) -> dict[str, Any]:
    """Rows for a listing, and the fields that name them."""
    fields: dict[str, Any] = {"owner_id": owner}
    if listing == "ListThreadStates":
        fields["thread_id"] = THREADS.id_of(await THREADS.create(api, owner))
    if listing == "ListAssistantVersions":
        fields["assistant_id"] = ASSISTANTS.id_of(await ASSISTANTS.create(api, owner, config=LARGE))
    recorded = {"assistant_id": "a", "thread_id": "t", "record_only": True}
    creates: dict[str, tuple[str, dict[str, Any]]] = {
        "SearchAssistants": ("CreateAssistant", {"graph_id": "g", "context": LARGE}),
        "ListAssistantVersions": ("UpdateAssistant", {"config": LARGE}),
        "SearchThreads": ("CreateThread", {"values": LARGE}),
        "ListThreadStates": ("AddThreadState", {"values": LARGE}),
        "SearchRuns": ("CreateRun", {"kwargs": LARGE, **recorded}),
        "SearchCrons": ("CreateCron", {"payload": LARGE, "schedule": "@daily", **recorded}),
        "SearchItems": ("PutItem", {"namespace": ["a"], "value": LARGE, "ttl_minutes": 60}),
    }
    method, content = creates[listing]
    for number in range(ROWS):
        key: dict[str, Any] = {"key": f"k{number}"} if method == "PutItem" else {}
        await api.call(method, **fields, **content, **key)
    return fields


def refused() -> Any:
    return fails("RESOURCE_EXHAUSTED", "LIMIT_REACHED")


@pytest.mark.parametrize(
    "listing",
    [
        "SearchAssistants",
        "ListAssistantVersions",
        "SearchThreads",
        "ListThreadStates",
        "SearchRuns",
        "SearchCrons",
        "SearchItems",
    ],
)
async def test_no_more_is_read_than_a_message_takes(
    small: Api, listing: str, owner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = await fill(small, listing, owner)
    copied = []
    copy = memory_rows.copy

    def copy_and_count(row: Any, *more: Any) -> Any:
        copied.append(row.ByteSize())
        return copy(row, *more)

    monkeypatch.setattr(memory_rows, "copy", copy_and_count)
    size = "limit" if listing == "SearchItems" else "page_size"
    all_rows: dict[str, Any] = {size: 1000}
    few_rows: dict[str, Any] = {size: 9}
    for more in [all_rows, {**all_rows, "refresh_ttl": True}][: 2 if listing == "SearchItems" else 1]:
        before = [message.SerializeToString() for message in await small.stream("ExportOwner", owner_id=owner)]
        copied.clear()
        tracemalloc.start()
        with refused():
            await small.call(listing, **fields, **more)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # A message, the allowance for what rows are ordered by, and a few rows: not all of the 4 MB that there are.
        assert sum(copied) <= MESSAGE * 2 + 2 * ROW
        assert peak <= MESSAGE * 2 + 10 * ROW
        after = [message.SerializeToString() for message in await small.stream("ExportOwner", owner_id=owner)]
        assert after == before
        # What fits is answered, by the same connections.
        for _ in range(12):
            page = await small.call(listing, **fields, **few_rows)
            assert len(getattr(page, page.DESCRIPTOR.fields[0].name)) == 9


async def test_both_refusals_say_the_same(small: Api, owner: str) -> None:
    """What is a little too large is found out when it is written, what is much too large when it is read."""
    fields = await fill(small, "SearchThreads", owner)
    said = []
    for size in (11, 19, 20, 21, 22, 24, 39, 40):
        with pytest.raises(CallFailed) as caught:
            await small.call("SearchThreads", page_size=size, **fields)
        said.append((caught.value.code, caught.value.message, caught.value.details))
    assert len(set(said)) == 1


async def test_the_row_that_only_tells_of_a_next_page_does_not_count(
    small: Api, stores: dict[str, Store], owner: str
) -> None:
    large = DirectApi(build_pipeline(Settings(), stores[small.backend]), small.backend)
    await THREADS.create(small, owner, values='{"last": true}')
    for _ in range(2):
        await THREADS.create(large, owner, values=json.dumps({"x": "x" * 3 * MESSAGE}))
    await THREADS.create(small, owner, values='{"first": true}')
    page = await small.call("SearchThreads", owner_id=owner, page_size=1)
    assert [thread.values for thread in page.threads] == ['{"first": true}']
    assert page.next_page_token
    with refused():
        await small.call("SearchThreads", owner_id=owner, page_size=1, page_token=page.next_page_token)
    # Without the values every page fits.
    listed = await small.call("SearchThreads", owner_id=owner, fields="threadId,status")
    assert len(listed.threads) == 4


async def test_an_owner_of_large_rows_is_exported(stores: dict[str, Store], owner: str) -> None:
    for name, store in stores.items():
        settings = Settings(limits=Limits(message_bytes=2 * MESSAGE))
        api = DirectApi(build_pipeline(settings, store), name)
        await fill(api, "SearchThreads", owner)
        messages = await api.stream("ExportOwner", owner_id=owner)
        assert sum(len(message.threads) for message in messages) == ROWS


@pytest.mark.parametrize("api", ["memory-direct", "postgres-direct"], indirect=True)
async def test_the_limit_of_a_server(api: Api, owner: str) -> None:
    large = json.dumps({"x": "x" * (13 * MESSAGE)})
    for _ in range(6):
        await THREADS.create(api, owner, values=large)
    with refused():
        await api.call("SearchThreads", owner_id=owner)
    assert len((await api.call("SearchThreads", owner_id=owner, page_size=4)).threads) == 4
