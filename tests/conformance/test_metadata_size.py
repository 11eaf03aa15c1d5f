"""What is merged into metadata stays below the limit of a JSON field; what would not is refused whole, alike on both backends."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store import Store
from tests.conformance.expect import invalid
from tests.conformance.rows import ASSISTANTS, THREADS, Kind, every_kind, metadata_of
from tests.service import Api, CallFailed, DirectApi

LIMIT = 2000


@pytest.fixture(params=["memory", "postgres"])
def small(request: pytest.FixtureRequest, stores: dict[str, Store]) -> Api:
    """The API with small JSON fields."""
    settings = Settings(anonymous_rights="unscoped", limits=Limits(json_bytes=LIMIT))
    return DirectApi(build_pipeline(settings, stores[request.param]), request.param)


async def update(api: Api, kind: Kind, owner: str, row: Any, **fields: Any) -> Any:
    return await kind.call(api, "Update", owner, **{kind.id: kind.id_of(row)}, **fields)


def filling(row: Any, text: str = "x") -> str:
    """A patch that makes the metadata of a row, as they are stored, exactly as large as they may be."""
    room = LIMIT - len(row.metadata.encode()) - len(', "fill": ""')
    filled = text * (room // len(text.encode())) + "x" * (room % len(text.encode()))
    return json.dumps({"fill": filled}, ensure_ascii=False)


@every_kind
async def test_merging_ends_at_the_limit(small: Api, kind: Kind, owner: str) -> None:
    # What is stored counts: without blanks, with numbers written out, in bytes.
    row = await kind.create(small, owner, metadata='{"é":"ü","n":1E2,"deep":[1,[ ],{}]}')
    full = await update(small, kind, owner, row, metadata=filling(row, "é\U0001f600"))
    assert len(full.metadata.encode()) == LIMIT
    for patch in ('{"n": 1000}', '{"more": 1}', '{"": ""}', '{"n": 1E3}', '{"é": "üü"}'):
        with invalid("metadata"):
            await update(small, kind, owner, row, metadata=patch)
    assert await kind.get(small, owner, kind.id_of(row)) == full
    # In its place fits what is not larger, and what other keys make room for.
    assert metadata_of(await update(small, kind, owner, row, metadata='{"n": 999}'))["n"] == 999
    changed = await update(small, kind, owner, row, metadata='{"more": 1}', remove_metadata_keys=["fill"])
    assert metadata_of(changed) == {"é": "ü", "n": 999, "deep": [1, [], {}], "more": 1, "owner": owner}


@every_kind
async def test_a_refused_merge_changes_nothing_else(small: Api, kind: Kind, owner: str) -> None:
    row = await kind.create(small, owner, **{kind.content: kind.values[0]})
    full = await update(small, kind, owner, row, metadata=filling(row))
    exported = await small.stream("ExportOwner", owner_id=owner)
    with invalid("metadata"):
        await update(small, kind, owner, row, metadata='{"more": 1}', **{kind.content: kind.values[1]})
    assert await kind.get(small, owner, kind.id_of(row)) == full
    assert await small.stream("ExportOwner", owner_id=owner) == exported
    changed = await update(small, kind, owner, row, **{kind.content: kind.values[1]})
    assert (getattr(changed, kind.content), changed.metadata) == (kind.values[1], full.metadata)


async def test_a_refused_merge_makes_no_version(small: Api, owner: str) -> None:
    row = await ASSISTANTS.create(small, owner)
    await update(small, ASSISTANTS, owner, row, metadata=filling(row))
    with invalid("metadata"):
        await update(small, ASSISTANTS, owner, row, metadata='{"more": 1}', name="new")
    listed = await small.call("ListAssistantVersions", owner_id=owner, assistant_id=row.assistant_id)
    assert [version.version for version in listed.versions] == [2, 1]
    assert (await update(small, ASSISTANTS, owner, row, name="new")).version == 3
    # What was kept is made current whatever its size.
    fields = {"owner_id": owner, "assistant_id": row.assistant_id, "version": 2}
    assert len((await small.call("SetLatestAssistantVersion", **fields)).assistant.metadata.encode()) == LIMIT


@every_kind
async def test_metadata_above_the_limit_can_be_mended(
    small: Api, stores: dict[str, Store], kind: Kind, owner: str
) -> None:
    large = DirectApi(build_pipeline(Settings(), stores[small.backend]), small.backend)
    row = await kind.create(large, owner, metadata=json.dumps({"a": "x" * LIMIT, "b": "x" * LIMIT, "c": 1}))
    with invalid("metadata"):
        await update(small, kind, owner, row, metadata='{"c": 2}')
    assert metadata_of(await update(small, kind, owner, row, remove_metadata_keys=["c"])).keys() == {"a", "b", "owner"}
    assert metadata_of(await update(small, kind, owner, row, metadata='{"a": 1, "b": 2}')) == {
        "a": 1,
        "b": 2,
        "owner": owner,
    }


async def test_of_merges_at_once_those_that_fit_are_kept(small: Api, owner: str) -> None:
    row = await THREADS.create(small, owner)
    patches = [json.dumps({f"key-{number}": "x" * 300}) for number in range(12)]
    results = await asyncio.gather(
        *(update(small, THREADS, owner, row, metadata=patch) for patch in patches), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, CallFailed)]
    kept = await THREADS.get(small, owner, row.thread_id)
    assert len(metadata_of(kept)) - 1 == 12 - len(refused) == 6
    assert {failure.reason for failure in refused} == {"INVALID_REQUEST"}


@pytest.mark.parametrize("api", ["memory-direct", "postgres-direct"], indirect=True)
async def test_the_limit_of_a_server(api: Api, owner: str) -> None:
    half = 9 * 1024 * 1024
    row = await THREADS.create(api, owner, metadata=json.dumps({"a": "x" * half}))
    with invalid("metadata"):
        await update(api, THREADS, owner, row, metadata=json.dumps({"b": "x" * half}), status="THREAD_STATUS_ERROR")
    kept = (await api.call("GetThread", owner_id=owner, thread_id=row.thread_id, fields="status,updatedAt")).thread
    assert (kept.status, kept.updated_at) == (1, row.updated_at)
    replaced = await update(api, THREADS, owner, row, metadata=json.dumps({"a": "y" * half}))
    assert metadata_of(replaced) == {"a": "y" * half, "owner": owner}
