"""The store's operations through real servers, on both backends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from langgraph.store.base import (
    GetOp,
    InvalidNamespaceError,
    Item,
    ListNamespacesOp,
    MatchCondition,
    Op,
    PutOp,
    SearchItem,
    SearchOp,
)

from agentstorage import Connection
from agentstorage.errors import InvalidRequest
from agentstorage.langgraph import AsyncGrpcStore
from agentstorage.v1 import store_pb2, store_pb2_grpc
from tests.langgraph.stores import keys
from tests.service import ServerProcess


@pytest.fixture
async def store(server: ServerProcess, owner: str) -> AsyncIterator[AsyncGrpcStore]:
    async with AsyncGrpcStore(server.target, owner_id=owner) as made:
        yield made


async def test_put_get_replace_and_delete(store: AsyncGrpcStore) -> None:
    assert await store.aget(("a", "b"), "k") is None
    value = {"text": "é\U0001f600", "n": 2**70, "list": [1.5, None, True], "nested": {"": {}}}
    await store.aput(("a", "b"), "k", value)
    item = await store.aget(("a", "b"), "k")
    assert type(item) is Item
    assert (item.namespace, item.key, item.value) == (("a", "b"), "k", value)
    assert abs(datetime.now(UTC) - item.created_at) < timedelta(minutes=1)
    assert item.created_at == item.updated_at
    await store.aput(("a", "b"), "k", {"other": 1})
    again = await store.aget(("a", "b"), "k")
    assert again is not None
    assert again.value == {"other": 1}
    assert again.created_at == item.created_at
    assert again.updated_at > item.updated_at
    assert await store.aget(("a",), "k") is None
    await store.adelete(("a", "b"), "k")
    await store.adelete(("a", "b"), "k")
    assert await store.aget(("a", "b"), "k") is None
    await store.aput(("a",), "k", {})
    await store.abatch([PutOp(("a",), "k", None)])
    assert await store.aget(("a",), "k") is None


async def test_a_large_value(store: AsyncGrpcStore) -> None:
    value = {"texts": ["x" * 1000] * 3000}
    await store.aput(("a",), "k", value)
    item = await store.aget(("a",), "k")
    assert item is not None
    assert item.value == value
    assert [item.value for item in await store.asearch(("a",))] == [value]


async def test_search_gives_the_newest_first(store: AsyncGrpcStore) -> None:
    for key in ("1", "2", "3"):
        await store.aput(("a",), key, {})
    await store.aput(("a",), "1", {"again": True})
    [first, *_] = found = await store.asearch(("a",))
    assert [item.key for item in found] == ["1", "3", "2"]
    assert type(first) is SearchItem
    assert (first.value, first.score) == ({"again": True}, None)
    assert await keys(store, limit=1, offset=1) == ["3"]
    assert await keys(store, "a", limit=0) == []
    assert await keys(store, "a", offset=3) == []


async def test_a_prefix_is_of_whole_labels(store: AsyncGrpcStore) -> None:
    for labels in (("a",), ("a", "b"), ("ab",), ("b", "a"), ("a%",)):
        await store.aput(labels, "/".join(labels), {})
    assert set(await keys(store, "a")) == {"a", "a/b"}
    assert set(await keys(store, "a", "b")) == {"a/b"}
    assert set(await keys(store)) == {"a", "a/b", "ab", "b/a", "a%"}
    assert await keys(store, "%") == []


async def test_filters(store: AsyncGrpcStore) -> None:
    values: dict[str, Any] = {"nine": 9, "ten": 10, "text": "10", "float": 9.5, "null": None, "object": {"x": 1}}
    for key, value in values.items():
        await store.aput(("a",), key, {"f": value, "g": "same"})
    await store.aput(("a",), "absent", {"g": "same"})
    for wanted, found in (
        (10, {"ten"}),
        (10.0, {"ten"}),
        ("10", {"text"}),
        ({"$eq": 9}, {"nine"}),
        ({"$gt": 9}, {"ten", "float"}),
        ({"$gte": 9, "$lt": 10}, {"nine", "float"}),
        ({"$lte": 9}, {"nine"}),
        ({"$gt": "0"}, {"text"}),
        ({"$ne": 10}, {"nine", "text", "float", "null", "object", "absent"}),
        (None, {"null"}),
        ({"x": 1}, {"object"}),
        ({}, set()),
    ):
        assert set(await keys(store, "a", filter={"f": wanted})) == found, wanted
    assert set(await keys(store, "a", filter={"f": {"$gt": 9}, "g": "same"})) == {"ten", "float"}
    assert await keys(store, "a", filter={"f": 9, "g": "other"}) == []
    with pytest.raises(ValueError, match="'\\$in'"):
        await store.asearch(("a",), filter={"f": {"$in": [1]}})
    with pytest.raises(ValueError, match="'x'"):
        await store.asearch(("a",), filter={"f": {"$gt": 1, "x": 1}})


async def test_list_namespaces(store: AsyncGrpcStore) -> None:
    tree = [("a",), ("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("ab", "c"), ("b", "c")]
    for labels in tree:
        await store.aput(labels, "k", {})
        await store.aput(labels, "l", {})
    assert await store.alist_namespaces() == tree
    assert await store.alist_namespaces(prefix=("a",)) == tree[:4]
    assert await store.alist_namespaces(suffix=("c",)) == [tree[1], tree[3], tree[4], tree[5]]
    assert await store.alist_namespaces(prefix=("a", "*", "c")) == [tree[1], tree[3]]
    assert await store.alist_namespaces(prefix=("a",), suffix=("b", "*")) == [tree[1], tree[2]]
    assert await store.alist_namespaces(max_depth=2) == [("a",), ("a", "b"), ("a", "x"), ("ab", "c"), ("b", "c")]
    assert await store.alist_namespaces(limit=2, offset=1) == tree[1:3]
    assert await store.alist_namespaces(limit=0) == []
    empty: Op = ListNamespacesOp((MatchCondition("prefix", ()), MatchCondition("suffix", ("d",))))
    assert await store.abatch([empty]) == [[tree[2]]]
    with pytest.raises(ValueError, match="max_depth"):
        await store.alist_namespaces(max_depth=0)
    with pytest.raises(ValueError, match="match_type"):
        await store.abatch([ListNamespacesOp((MatchCondition("infix", ("a",)),))])  # type: ignore[arg-type]  # on purpose


async def test_a_batch_runs_in_order(store: AsyncGrpcStore) -> None:
    results = await store.abatch(
        [
            GetOp(("a",), "k"),
            PutOp(("a",), "k", {"n": 1}),
            GetOp(("a",), "k"),
            SearchOp(("a",), limit=0),
            PutOp(("a",), "k", {"n": 2}),
            PutOp(("a", "b"), "l", {"n": 3}),
            SearchOp(("a",), filter={"n": {"$gte": 2}}),
            ListNamespacesOp(),
            PutOp(("a",), "k", None),
            GetOp(("a",), "k"),
            GetOp((), "k"),
        ]
    )
    assert isinstance(results[2], Item)
    assert results[2].value == {"n": 1}
    assert {item.key: item.value["n"] for item in results[6]} == {"k": 2, "l": 3}  # type: ignore[union-attr]  # a search's
    assert results[7] == [("a",), ("a", "b")]
    assert [results[number] for number in (0, 1, 3, 4, 5, 8, 9, 10)] == [None, None, [], None, None, None, None, None]
    assert await store.abatch([]) == []


async def test_a_batch_that_fails_leaves_nothing(store: AsyncGrpcStore) -> None:
    with pytest.raises(InvalidNamespaceError):
        await store.abatch([PutOp(("a",), "k", {}), PutOp(("a", "b.c"), "k", {})])
    with pytest.raises(InvalidRequest):
        await store.abatch([PutOp(("a",), "k", {}), PutOp(("a",), "", {})])
    with pytest.raises(TypeError):
        await store.abatch([PutOp(("a",), "k", {}), PutOp(("a",), "l", {"x": object()})])
    with pytest.raises(ValueError, match="str"):
        await store.abatch([PutOp(("a",), "k", {}), "no operation"])  # type: ignore[list-item]  # on purpose
    assert await keys(store) == []


async def test_more_than_one_call_can_do(store: AsyncGrpcStore) -> None:
    puts: list[Op] = [PutOp((f"{number % 1500:04}",), "k", {"n": number}) for number in range(2500)]
    results = await store.abatch([*puts, SearchOp((), limit=1800), ListNamespacesOp(limit=1200), GetOp(("0000",), "k")])
    assert results[:2500] == [None] * 2500
    found, spaces, item = results[2500:]
    assert sorted(entry.value["n"] for entry in found) == list(range(1000, 2500))  # type: ignore[union-attr]  # a search's
    assert spaces == [(f"{number:04}",) for number in range(1200)]
    assert isinstance(item, Item)
    assert item.value == {"n": 1500}
    ordered = await store.asearch((), filter={"n": {"$lt": 2400}}, limit=1100, offset=200)
    assert len(ordered) == 1100
    assert len({entry.namespace for entry in ordered}) == 1100


async def ends(store: AsyncGrpcStore, key: str) -> datetime | None:
    """When an item ends, asked without beginning its time anew."""
    stub = store.connection.stub(store_pb2_grpc.StoreServiceStub)
    request = store_pb2.GetItemRequest(owner_id=store._owner_id, namespace=["a"], key=key)
    item = (await stub.GetItem(request)).item
    return item.expires_at.ToDatetime(tzinfo=UTC) if item.HasField("expires_at") else None


async def test_time_to_live(server: ServerProcess, owner: str) -> None:
    ttl = {"default_ttl": 5.5, "refresh_on_read": True}
    async with AsyncGrpcStore(server.target, owner_id=owner, ttl=ttl) as store:  # type: ignore[arg-type]  # a TTLConfig
        await store.aput(("a",), "default", {})
        await store.aput(("a",), "none", {}, ttl=None)
        await store.aput(("a",), "own", {}, ttl=0.75)
        now = datetime.now(UTC)
        assert await ends(store, "none") is None
        for key, minutes in (("default", 5.5), ("own", 0.75)):
            end = await ends(store, key)
            assert end is not None
            assert abs(end - now - timedelta(minutes=minutes)) < timedelta(seconds=30)

        before = await ends(store, "own")
        await store.aget(("a",), "own", refresh_ttl=False)
        await store.asearch(("a",), refresh_ttl=False)
        assert await ends(store, "own") == before
        for read in (store.aget(("a",), "own"), store.asearch(("a",)), store.aget(("a",), "own", refresh_ttl=True)):
            await asyncio.sleep(0.002)
            await read
            after = await ends(store, "own")
            assert before is not None
            assert after is not None
            assert before < after
            before = after

        store.ttl_config = {"refresh_on_read": False}
        await store.aget(("a",), "own")
        await store.asearch(("a",))
        assert await ends(store, "own") == before
        # Without a default a put item stays.
        await store.aput(("a",), "own", {})
        assert await ends(store, "own") is None


async def test_an_item_whose_time_is_over_is_nowhere(store: AsyncGrpcStore) -> None:
    await store.aput(("a", "ended"), "k", {"f": 1}, ttl=0.0001)
    await store.aput(("a",), "stays", {"f": 1}, ttl=60)
    await asyncio.sleep(0.02)
    assert await store.aget(("a", "ended"), "k") is None
    assert await keys(store, "a") == ["stays"]
    assert await keys(store, filter={"f": 1}) == ["stays"]
    assert await store.alist_namespaces() == [("a",)]
    with pytest.raises(ValueError, match="ttl"):
        await store.aput(("a",), "k", {}, ttl=0)


@pytest.mark.parametrize(
    "namespace",
    [("a.b",), ("",), ("a", "\0"), ("a", "\n"), ("x" * 256,), ("a",) * 33, ("a", 1), ("\ud800",), ("x" * 255,) * 8],
    ids=lambda namespace: str(namespace).encode("unicode_escape").decode()[:20],
)
async def test_namespaces_that_cannot_be(store: AsyncGrpcStore, namespace: tuple[Any, ...]) -> None:
    with pytest.raises(InvalidNamespaceError):
        await store.aput(namespace, "k", {})
    for op in (PutOp(namespace, "k", {}), PutOp(namespace, "k", None), GetOp(namespace, "k")):
        for ops in ([op], [GetOp(("a",), "k"), op]):
            with pytest.raises(InvalidNamespaceError):
                await store.abatch(ops)
    if len(namespace) != 8:  # too long only with a key
        for looking in (SearchOp(namespace), ListNamespacesOp((MatchCondition("prefix", namespace),))):
            with pytest.raises(InvalidNamespaceError):
                await store.abatch([looking])


async def test_namespaces_that_langgraph_refuses(store: AsyncGrpcStore) -> None:
    for namespace in ((), ("langgraph",)):
        with pytest.raises(InvalidNamespaceError):
            await store.aput(namespace, "k", {})
    with pytest.raises(InvalidNamespaceError):
        await store.abatch([PutOp((), "k", {})])
    # Nothing is at the root, and that is no error.
    assert await store.aget((), "k") is None
    await store.adelete((), "k")


async def test_other_requests_that_are_refused(store: AsyncGrpcStore) -> None:
    for call in (
        store.aput(("a",), "x" * 1025, {}),
        store.asearch(("a",), limit=-1),
        store.asearch(("a",), offset=-1),
        store.asearch(("a",), offset=10_001),
        store.alist_namespaces(limit=-1),
    ):
        with pytest.raises(InvalidRequest) as refused:
            await call
        assert not isinstance(refused.value, InvalidNamespaceError)


async def test_on_an_open_connection(server: ServerProcess, owner: str) -> None:
    async with Connection(server.target, owner_id=owner) as connection:
        async with AsyncGrpcStore(connection) as store:
            await store.aput(("a",), "k", {"n": 1})
        # The connection is not the store's to close.
        async with AsyncGrpcStore(connection, owner_id=owner) as store:
            assert await keys(store) == ["k"]
        with pytest.raises(TypeError, match="token"):
            AsyncGrpcStore(connection, token="t")
    with pytest.raises(RuntimeError, match="closed"):
        await store.aget(("a",), "k")
