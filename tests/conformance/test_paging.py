"""Pages: sizes, tokens and offsets of every listing that has them."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.conformance.expect import fails, invalid
from tests.conformance.rows import ASSISTANTS, KINDS, THREADS, Kind, every_kind
from tests.service import Api

Listing = Callable[..., Awaitable[tuple[list[str], str]]]
# The searches of the four kinds, and the two lists that hang on one row.
LISTINGS = (*(kind.name for kind in KINDS), "state", "version")

every_listing = pytest.mark.parametrize("listed", LISTINGS)


async def make(api: Api, listed: str, owner: str, rows: int) -> tuple[Listing, list[str]]:
    """A listing of so many rows, and their names as it lists them."""
    for kind in KINDS:
        if kind.name == listed:
            names = [kind.id_of(await kind.create(api, owner)) for _ in range(rows)]

            async def search(kind: Kind = kind, **fields: Any) -> tuple[list[str], str]:
                fields = {"owner_id": owner, **fields}
                response = await api.call(kind.method("Search"), **fields)
                return [kind.id_of(row) for row in getattr(response, f"{kind.name}s")], response.next_page_token

            return search, names[::-1]
    if listed == "state":
        thread_id = THREADS.id_of(await THREADS.create(api, owner))
        for number in range(rows):
            await api.call("AddThreadState", owner_id=owner, thread_id=thread_id, checkpoint_id=f"{number}")

        async def states(**fields: Any) -> tuple[list[str], str]:
            fields = {"owner_id": owner, "thread_id": thread_id, **fields}
            response = await api.call("ListThreadStates", **fields)
            return [row.checkpoint_id for row in response.states], response.next_page_token

        return states, [str(number) for number in reversed(range(rows))]
    assistant_id = ASSISTANTS.id_of(await ASSISTANTS.create(api, owner))
    for _ in range(rows - 1):
        await api.call("UpdateAssistant", owner_id=owner, assistant_id=assistant_id)

    async def versions(**fields: Any) -> tuple[list[str], str]:
        fields = {"owner_id": owner, "assistant_id": assistant_id, **fields}
        response = await api.call("ListAssistantVersions", **fields)
        return [str(row.version) for row in response.versions], response.next_page_token

    return versions, [str(number) for number in reversed(range(1, rows + 1))]


def bad_token() -> Any:
    return fails("INVALID_ARGUMENT", "INVALID_PAGE_TOKEN")


@every_listing
async def test_sizes(api: Api, listed: str, owner: str) -> None:
    listing, names = await make(api, listed, owner, 12)
    assert await listing(page_size=12) == (names, "")
    assert await listing(page_size=1000) == (names, "")
    assert await listing(page_size=2**31 - 1) == (names, "")
    page, token = await listing()
    assert page == names[:10]
    assert token
    assert await listing(page_token=token) == (names[10:], "")
    page, token = await listing(page_size=1)
    assert page == names[:1]
    assert token
    with invalid("page_size"):
        await listing(page_size=-1)


@every_listing
@pytest.mark.parametrize("size", [1, 3, 4])
async def test_pages_together_are_the_whole(api: Api, listed: str, owner: str, size: int) -> None:
    listing, names = await make(api, listed, owner, 8)
    found, token = await listing(page_size=size)
    while token:
        page, token = await listing(page_size=size, page_token=token)
        assert len(page) == size or not token
        found += page
    assert found == names


@every_listing
async def test_page_size_may_change_between_pages(api: Api, listed: str, owner: str) -> None:
    listing, names = await make(api, listed, owner, 8)
    first, token = await listing(page_size=2)
    second, token = await listing(page_size=5, page_token=token)
    assert first + second == names[:7]
    assert await listing(page_token=token) == (names[7:], "")


@every_listing
async def test_offsets(api: Api, listed: str, owner: str) -> None:
    listing, names = await make(api, listed, owner, 5)
    page, token = await listing(offset=2, page_size=2)
    assert page == names[2:4]
    assert await listing(page_token=token, page_size=2) == (names[4:], "")
    assert await listing(offset=4) == (names[4:], "")
    for offset in (5, 10_000):
        assert await listing(offset=offset) == ([], "")
    for offset in (-1, 10_001):
        with invalid("offset"):
            await listing(offset=offset)
    with invalid("offset"):
        await listing(offset=1, page_token=token)


@every_listing
async def test_token_serves_only_its_owner_and_filter(api: Api, listed: str, owner: str, other: str) -> None:
    listing, names = await make(api, listed, owner, 3)
    page, token = await listing(page_size=1)
    for more in ({"owner_id": other}, {"metadata": '{"a": 1}'}):
        with bad_token():
            await listing(page_size=1, page_token=token, **more)
    # A token is bound to the owner's presence too.
    with bad_token():
        await listing(page_size=1, page_token=token, owner_id=None)
    # It is no secret that is used up.
    assert page + (await listing(page_size=2, page_token=token))[0] == names
    assert page + (await listing(page_size=2, page_token=token))[0] == names


@every_kind
async def test_token_is_bound_to_order_and_method(api: Api, kind: Kind, owner: str) -> None:
    for _ in range(3):
        await kind.create(api, owner)
    response = await kind.call(api, "Search", owner, page_size=1)
    token = response.next_page_token
    for more in ({"sort_by": 2}, {"sort_order": "SORT_ORDER_ASC"}, {f"{kind.id}s": ["x"]}):
        with bad_token():
            await kind.call(api, "Search", owner, page_size=1, page_token=token, **more)
    for foreign in KINDS:
        if foreign is not kind:
            with bad_token():
                await foreign.call(api, "Search", owner, page_token=token)


@every_listing
async def test_token_that_is_none(api: Api, listed: str, owner: str) -> None:
    listing, _ = await make(api, listed, owner, 3)
    _, token = await listing(page_size=1)
    data = bytearray(base64.urlsafe_b64decode(token))
    data[-2] ^= 1
    forged = base64.urlsafe_b64encode(bytes(data)).decode()
    for bad in (token[:-4], token[4:], token[:-1], "AAAA", "x", "é", "*", " ", token + "AAAA", forged, "A" * 4096):
        with bad_token():
            await listing(page_token=bad)
    with invalid("page_token"):
        await listing(page_token="A" * 4097)
    with invalid("page_token"):
        await listing(page_token="\0")


@every_kind
async def test_rows_that_come_and_go_between_pages(api: Api, kind: Kind, owner: str) -> None:
    ids = [kind.id_of(await kind.create(api, owner)) for _ in range(6)][::-1]
    first = await kind.call(api, "Search", owner, page_size=3)
    token = first.next_page_token
    # A newer row, and one less on each page: the last row of the first page among them.
    await kind.create(api, owner)
    for id in (ids[2], ids[4]):
        await kind.call(api, "Delete", owner, **{kind.id: id})
    assert await kind.search(api, owner, page_token=token) == [ids[3], ids[5]]


@every_kind
async def test_last_page_that_is_full_has_no_token(api: Api, kind: Kind, owner: str) -> None:
    for _ in range(4):
        await kind.create(api, owner)
    first = await kind.call(api, "Search", owner, page_size=2)
    second = await kind.call(api, "Search", owner, page_size=2, page_token=first.next_page_token)
    assert second.next_page_token == ""
    assert (await kind.call(api, "Search", f"{owner}-nobody", page_size=2)).next_page_token == ""


async def test_no_page_holds_more_than_1000(api: Api, owner: str) -> None:
    for start in range(0, 1003, 59):
        await asyncio.gather(*(THREADS.create(api, owner) for _ in range(start, start + 59)))
    total = await THREADS.count(api, owner)
    assert total > 1001
    for size in (1000, 1001, 5000):
        response = await THREADS.call(api, "Search", owner, page_size=size)
        assert len(response.threads) == 1000
        assert (
            len(await THREADS.search(api, owner, page_size=size, page_token=response.next_page_token)) == total - 1000
        )
