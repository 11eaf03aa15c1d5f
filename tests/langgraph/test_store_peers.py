"""The same steps on LangGraph's own stores and on ours, wherever LangGraph's own agree with each other."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from langgraph.store.base import BaseStore, Item, SearchItem
from langgraph.store.memory import InMemoryStore
from langgraph.store.postgres.aio import AsyncPostgresStore

from agentstorage.langgraph import AsyncGrpcStore
from tests.langgraph.stores import index
from tests.postgres_server import MakeDatabase
from tests.service import ServerProcess

FIELDS = ["text", "tags[*]"]
VALUES: dict[tuple[tuple[str, ...], str], dict[str, Any]] = {
    (("users", "1"), "tea"): {"text": "likes green tea", "tags": ["drink", "hot"], "n": 1, "kind": "taste"},
    (("users", "1"), "bike"): {"text": "rides a red bike", "tags": ["sport"], "n": 2, "kind": "habit"},
    (("users", "1", "old"), "coffee"): {"text": "liked black coffee", "n": 3, "kind": "taste"},
    (("users", "12"), "tea"): {"text": "hates tea", "n": 4.5, "kind": "taste", "deep": {"er": [1, {"x": None}]}},
    (("teams", "blue"), "motto"): {"text": "we win", "n": -5},
    (("teams", "blue"), "unindexed"): {"text": "tea", "n": 6},
}


@pytest.fixture
async def stores(server: ServerProcess, owner: str, make_database: MakeDatabase) -> AsyncIterator[list[BaseStore]]:
    """Ours and theirs, each with the same items."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(
            AsyncPostgresStore.from_conn_string(make_database(), index=index(fields=FIELDS))  # type: ignore[arg-type]  # is one
        )
        await postgres.setup()
        ours = await stack.enter_async_context(
            AsyncGrpcStore(server.target, owner_id=owner, index=index(fields=FIELDS))
        )
        made: list[BaseStore] = [ours, postgres, InMemoryStore(index=index(fields=FIELDS))]
        for store in made:
            await store.aput(("users", "1"), "tea", {"text": "of no consequence"})
            await store.aput(("users", "1"), "gone", {"text": "green tea"})
            for (namespace, key), value in VALUES.items():
                await store.aput(namespace, key, value, index=False if key == "unindexed" else None)
            await store.adelete(("users", "1"), "gone")
        yield made


def plain(item: Item) -> tuple[Any, ...]:
    return (item.namespace, item.key, item.value)


async def test_reading(stores: list[BaseStore]) -> None:
    for place in (*VALUES, (("users", "1"), "gone"), (("users",), "tea"), (("users", "1"), "Tea")):
        found = [await store.aget(*place) for store in stores]
        assert [item and plain(item) for item in found] == [VALUES.get(place) and (*place, VALUES[place])] * 3
        assert all(item is None or item.updated_at.tzinfo is not None for item in found)


@pytest.mark.parametrize(
    ("prefix", "how"),
    [
        ((), {}),
        (("users",), {}),
        (("users", "1"), {}),
        (("use",), {}),
        (("users", "1", "old", "er"), {}),
        ((), {"filter": {"kind": "taste"}}),
        ((), {"filter": {"kind": {"$eq": "taste"}, "n": 3}}),
        ((), {"filter": {"n": {"$ne": 3}}}),
        (("users",), {"filter": {"n": {"$gt": 1, "$lte": 3}}}),
        (("users",), {"filter": {"n": {"$gte": 3}}}),
        (("users",), {"filter": {"n": {"$lt": 3}}}),
        ((), {"filter": {"n": 1.0}}),
        ((), {"filter": {"n": "1"}}),
        ((), {"filter": {"tags": ["sport"]}}),
        ((), {"limit": 100}),
    ],
    ids=str,
)
async def test_searching(stores: list[BaseStore], prefix: tuple[str, ...], how: dict[str, Any]) -> None:
    # Where the order is not by score, each has its own; the in-memory store's is that of the first put.
    found = [
        sorted((await store.asearch(prefix, **how)), key=lambda item: (item.namespace, item.key)) for store in stores
    ]
    ours, *theirs = [[plain(item) for item in items] for items in found]
    assert theirs == [ours] * 2
    assert all(type(item) is SearchItem and item.score is None for items in found for item in items)


@pytest.mark.parametrize(
    ("prefix", "how"),
    [
        ((), {"query": "green tea"}),
        (("users",), {"query": "sport"}),
        (("users", "1"), {"query": "likes coffee black", "limit": 2}),
        ((), {"query": "black tea", "filter": {"kind": "taste"}}),
        ((), {"query": "tea red", "limit": 1, "offset": 1}),
    ],
    ids=str,
)
async def test_searching_by_meaning(stores: list[BaseStore], prefix: tuple[str, ...], how: dict[str, Any]) -> None:
    answers = []
    for store in stores:
        items = await store.asearch(prefix, **how)
        # The in-memory store fills a page up with what has no vector.
        scored = [(item.score, plain(item)[:2]) for item in items if item.score is not None]
        assert [score for score, _ in scored] == sorted((score for score, _ in scored), reverse=True)
        # Those of one score are in each store's own order.
        answers.append(sorted((-round(score, 5), place) for score, place in scored))
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"prefix": ("users",)},
        {"prefix": ("users", "*")},
        {"prefix": ("users", "*", "old")},
        {"suffix": ("blue",)},
        {"suffix": ("1", "*")},
        {"prefix": ("users",), "suffix": ("old",)},
        {"prefix": ("use",)},
        {"max_depth": 1},
        {"max_depth": 2, "prefix": ("users",)},
        {"limit": 2, "offset": 1},
        {"max_depth": 2, "limit": 1, "offset": 2},
    ],
    ids=str,
)
async def test_listing(stores: list[BaseStore], how: dict[str, Any]) -> None:
    ours, *theirs = [await store.alist_namespaces(**how) for store in stores]
    # Postgres orders by the language of the database.
    assert [sorted(spaces) for spaces in theirs] == [ours] * 2
