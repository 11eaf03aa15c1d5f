"""Read masks."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.expect import invalid
from tests.conformance.rows import KINDS, THREADS
from tests.service import METHODS, Api

# Every method with a read mask, and the field of its response that holds rows.
MASKED = {
    name: next(field.name for field in method.output_type.fields if field.message_type is not None)
    for name, method in METHODS.items()
    if "fields" in method.input_type.fields_by_name
}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(map(str.capitalize, rest))


async def make(api: Api, method: str, owner: str) -> dict[str, Any]:
    """A row that the method reads, and the request that reads it."""
    for kind in KINDS:
        if method == kind.method("Search"):
            await kind.create(api, owner, metadata='{"a": 1}', **{kind.content: kind.values[0]})
            return {"owner_id": owner}
    thread = await THREADS.create(api, owner, values='{"a": 1}', config='{"a": 1}')
    await api.call("AddThreadState", owner_id=owner, thread_id=thread.thread_id, values='{"b": 1}', next=["n"])
    return {"owner_id": owner, "thread_id": thread.thread_id}


def first(response: Any, field: str) -> Any:
    found = getattr(response, field)
    return found if field == "thread" else found[0]


@pytest.mark.parametrize("method", sorted(MASKED))
async def test_only_the_named_fields_and_the_id(api: Api, method: str, owner: str) -> None:
    request = await make(api, method, owner)
    whole = first(await api.call(method, **request), MASKED[method])
    ids = {"thread_id", "checkpoint_id"} if method == "ListThreadStates" else {whole.DESCRIPTOR.fields[0].name}
    for name in whole.DESCRIPTOR.fields_by_name:
        part = first(await api.call(method, **request, fields=camel(name)), MASKED[method])
        wanted = type(whole)()
        wanted.CopyFrom(whole)
        for other in whole.DESCRIPTOR.fields_by_name:
            if other != name and other not in ids:
                wanted.ClearField(other)
        assert part == wanted, name
    for bad in ("nothing", "metadata.a", "ownerId", "*"):
        with invalid("fields"):
            await api.call(method, **request, fields=bad)


@pytest.mark.parametrize("method", sorted(name for name in MASKED if name.startswith("Search")))
async def test_mask_changes_neither_order_nor_pages(api: Api, method: str, owner: str) -> None:
    kind = next(kind for kind in KINDS if kind.method("Search") == method)
    ids = [kind.id_of(await kind.create(api, owner, metadata=f'{{"a": {number % 2}}}')) for number in range(5)]
    found: list[Any] = []
    token = ""
    for _ in range(3):
        page = await api.call(
            method, owner_id=owner, fields="metadata", page_size=2, page_token=token, sort_by=2, sort_order=1
        )
        found += getattr(page, f"{kind.name}s")
        token = page.next_page_token
    assert token == ""
    assert [kind.id_of(row) for row in found] == ids
    assert not any(row.HasField("updated_at") for row in found)
    assert all(row.metadata for row in found)
    wanted = [kind.id_of(row) for row in found[1::2]]
    assert await kind.search(api, owner, fields="metadata", metadata='{"a": 1}', sort_by=2, sort_order=1) == wanted
