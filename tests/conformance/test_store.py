"""StoreService: items, their versions and times to live, batches."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conformance.expect import fails, invalid, not_found
from tests.conformance.rows import assert_same, scoped
from tests.service import Api

BRIEF = 0.0005  # minutes: 30 ms


async def put(api: Api, owner: str | None, namespace: list[str], key: str, value: str = "1", **fields: Any) -> Any:
    request = {**scoped(owner), "namespace": namespace, "key": key, "value": value, **fields}
    return (await api.call("PutItem", **request)).item


async def get(api: Api, owner: str | None, namespace: list[str], key: str, **fields: Any) -> Any:
    return (await api.call("GetItem", **scoped(owner), namespace=namespace, key=key, **fields)).item


async def keys(api: Api, owner: str | None, **fields: Any) -> list[str]:
    fields = {"sort_by": "ITEM_SORT_KEY", **fields}
    return [item.key for item in (await api.call("SearchItems", **scoped(owner), **fields)).items]


async def gone(api: Api, owner: str, namespace: list[str], key: str) -> None:
    """Waits until a brief item is over; a listing does not begin its time anew."""
    for _ in range(2000):
        if not await keys(api, owner, namespace_prefix=namespace, key_prefix=key):
            return
        await asyncio.sleep(0.005)
    raise AssertionError("the item stays")


@pytest.mark.parametrize(
    "value",
    ['{"a": 1}', "[]", '"text"', "1", "1.0", "9007199254740993", "true", "false", "null", '""', '{"a": {"b": [null]}}'],
)
async def test_put_and_get_any_json(api: Api, owner: str, value: str) -> None:
    item = await put(api, owner, ["a", "b"], "k", value)
    assert (list(item.namespace), item.key, item.value, item.metadata) == (["a", "b"], "k", value, "{}")
    assert (item.version, item.ttl_minutes, item.HasField("expires_at")) == (1, 0, False)
    assert item.created_at == item.updated_at
    assert await get(api, owner, ["a", "b"], "k") == item


async def test_put_again_keeps_created_at_and_metadata(api: Api, owner: str) -> None:
    first = await put(api, owner, ["a"], "k", metadata='{"m": 1}')
    second = await put(api, owner, ["a"], "k", "2")
    assert (second.version, second.value, second.metadata) == (2, "2", '{"m": 1}')
    assert second.created_at == first.created_at
    assert second.updated_at.ToMicroseconds() > first.updated_at.ToMicroseconds()
    third = await put(api, owner, ["a"], "k", "2", metadata='{"n": 1}')
    assert (third.version, third.metadata) == (3, '{"n": 1}')
    assert (await put(api, owner, ["a"], "k", "2", metadata="{}")).metadata == "{}"
    assert await keys(api, owner) == ["k"]


async def test_metadata_of_items_is_the_users_alone(api: Api, owner: str, other: str) -> None:
    item = await put(api, owner, ["a"], "k", metadata=json.dumps({"owner": other}))
    assert_same(item.metadata, {"owner": other})
    assert await keys(api, other) == []


async def test_expected_version(api: Api, owner: str) -> None:
    with fails("ABORTED", "VERSION_MISMATCH", current="0"):
        await put(api, owner, ["a"], "k", expected_version=1)
    assert (await put(api, owner, ["a"], "k", expected_version=0)).version == 1
    for wrong in (0, 2):
        with fails("ABORTED", "VERSION_MISMATCH", current="1"):
            await put(api, owner, ["a"], "k", "2", expected_version=wrong)
    item = await put(api, owner, ["a"], "k", "3", expected_version=1)
    assert (item.version, item.value) == (2, "3")
    with invalid("expected_version"):
        await put(api, owner, ["a"], "k", expected_version=-1)
    assert await get(api, owner, ["a"], "k") == item


@pytest.mark.parametrize("expected", [0, 1])
async def test_of_sixteen_puts_one_has_the_version(api: Api, owner: str, expected: int) -> None:
    if expected:
        await put(api, owner, ["a"], "k")
    puts = (put(api, owner, ["a"], "k", str(number), expected_version=expected) for number in range(16))
    results = await asyncio.gather(*puts, return_exceptions=True)
    done = [result for result in results if not isinstance(result, BaseException)]
    assert len(done) == 1
    assert await get(api, owner, ["a"], "k") == done[0]
    assert done[0].version == expected + 1


async def test_concurrent_puts_count_every_version(api: Api, owner: str) -> None:
    items = await asyncio.gather(*(put(api, owner, ["a"], "k", str(number)) for number in range(16)))
    assert sorted(item.version for item in items) == list(range(1, 17))


async def test_identity_is_owner_namespace_and_key(api: Api, owner: str, other: str) -> None:
    places = [
        (["a"], "k"), (["a"], "K"), (["A"], "k"), (["a", "b"], "k"), (["a"], "b.k"), (["é"], "k"), (["e\u0301"], "k"),
        (["a"], "é"), (["a"], "e\u0301"), (["a"], " "), (["a"], "'; --"), (["a%"], "k"), (["a_"], "k"), (["a/"], "k"),
    ]  # fmt: skip
    for number, (namespace, key) in enumerate(places):
        await put(api, owner, namespace, key, str(number))
        await put(api, other, namespace, key, "null")
    await put(api, other, ["only"], "k")
    for number, (namespace, key) in enumerate(places):
        item = await get(api, owner, namespace, key)
        assert (item.value, item.version) == (str(number), 1)
    assert len(await keys(api, owner, limit=100)) == len(places)
    for call in (get(api, owner, ["only"], "k"), api.call("DeleteItem", owner_id=owner, namespace=["only"], key="k")):
        with not_found("item", "k"):
            await call


async def test_delete(api: Api, owner: str, other: str) -> None:
    for name in (owner, other):
        await put(api, name, ["a"], "k")
    assert (await api.call("DeleteItem", owner_id=owner, namespace=["a"], key="k")).deleted
    with not_found("item", "k"):
        await get(api, owner, ["a"], "k")
    with not_found("item", "k"):
        await api.call("DeleteItem", owner_id=owner, namespace=["a"], key="k")
    again = await api.call("DeleteItem", owner_id=owner, namespace=["a"], key="k", allow_missing=True)
    assert not again.deleted
    assert (await get(api, other, ["a"], "k")).version == 1
    # A new item of the place is a new one.
    assert (await put(api, owner, ["a"], "k", expected_version=0)).version == 1


async def test_unscoped_calls_act_on_the_item_of_nobody_and_search_all(api: Api, owner: str, other: str) -> None:
    namespace = [owner]
    for name in (owner, other, None):
        await put(api, name, namespace, f"k-{name}")
        await put(api, name, namespace, "same", json.dumps(name))
    assert (await get(api, None, namespace, "same")).value == "null"
    assert len(await keys(api, None, namespace_prefix=namespace)) == 6
    assert await keys(api, owner, namespace_prefix=namespace) == [f"k-{owner}", "same"]
    with not_found("item", f"k-{owner}"):
        await get(api, None, namespace, f"k-{owner}")
    await api.call("DeleteItem", namespace=namespace, key="same")
    assert (await get(api, owner, namespace, "same")).value == json.dumps(owner)
    assert (await api.call("DeleteNamespace", namespace=namespace)).deleted == 1
    assert await keys(api, owner, namespace_prefix=namespace) == [f"k-{owner}", "same"]
    assert await keys(api, other, namespace_prefix=namespace) == [f"k-{other}", "same"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"namespace": []}, "namespace"),
        ({"namespace": [""]}, "namespace[0]"),
        ({"namespace": ["a", "b.c"]}, "namespace[1]"),
        ({"namespace": ["a\n"]}, "namespace[0]"),
        ({"namespace": ["x" * 256]}, "namespace[0]"),
        ({"namespace": ["a"] * 33}, "namespace"),
        ({"key": ""}, "key"),
        ({"key": "a\0"}, "key"),
        ({"key": "x" * 1025}, "key"),
        ({"namespace": ["x" * 255] * 8}, "namespace"),
        ({"value": ""}, "value"),
        ({"value": "{"}, "value"),
        ({"metadata": "[]"}, "metadata"),
        ({"ttl_minutes": 0}, "ttl_minutes"),
        ({"ttl_minutes": -1}, "ttl_minutes"),
        ({"ttl_minutes": 52596001}, "ttl_minutes"),
        ({"ttl_minutes": "NaN"}, "ttl_minutes"),
        ({"ttl_minutes": "Infinity"}, "ttl_minutes"),
        ({"ttl_minutes": 1e-9}, "ttl_minutes"),
    ],
)
async def test_bad_fields(api: Api, owner: str, fields: dict[str, Any], named: str) -> None:
    whole = {"namespace": ["a"], "key": "k", "value": "1", **fields}
    with invalid(named):
        await api.call("PutItem", owner_id=owner, **whole)
    with invalid(f"operations[1].put.{named}"):
        await api.call(
            "Batch",
            owner_id=owner,
            operations=[{"put": {"namespace": ["a"], "key": "k", "value": "1"}}, {"put": whole}],
        )
    assert await keys(api, owner) == []
    if {"namespace", "key"} & fields.keys():
        place = {name: whole[name] for name in ("namespace", "key")}
        for method in ("GetItem", "DeleteItem"):
            with invalid(named):
                await api.call(method, owner_id=owner, **place)


async def test_largest_place(api: Api, owner: str) -> None:
    namespace, key = ["x" * 255] * 3 + ["y" * 207], "é" * 512
    assert sum(len(label) + 1 for label in namespace) + len(key.encode()) == 2000
    await put(api, owner, namespace, key)
    assert (await get(api, owner, namespace, key)).version == 1
    await put(api, owner, ["a"] * 32, "k")
    assert await keys(api, owner, namespace_prefix=["a"] * 32) == ["k"]


class TestTimeToLive:
    """Items that end."""

    async def test_end_is_counted_from_the_put(self, api: Api, owner: str) -> None:
        item = await put(api, owner, ["a"], "k", ttl_minutes=1.5)
        assert item.ttl_minutes == 1.5
        assert item.expires_at.ToMicroseconds() == item.updated_at.ToMicroseconds() + 90_000_000
        assert await get(api, owner, ["a"], "k") == item
        # A put without a time makes it stay.
        assert not (await put(api, owner, ["a"], "k")).HasField("expires_at")

    async def test_item_whose_time_is_over_is_absent(self, api: Api, owner: str) -> None:
        first = await put(api, owner, ["a"], "k", metadata='{"m": 1}', ttl_minutes=BRIEF)
        await gone(api, owner, ["a"], "k")
        for method in ("GetItem", "DeleteItem"):
            with not_found("item", "k"):
                await api.call(method, owner_id=owner, namespace=["a"], key="k")
            await put(api, owner, ["a"], "k", ttl_minutes=BRIEF)
            await gone(api, owner, ["a"], "k")
        with not_found("item", "k"):
            await get(api, owner, ["a"], "k", refresh_ttl=True)
        assert await keys(api, owner, refresh_ttl=True) == []
        assert not (await api.call("ListNamespaces", owner_id=owner)).namespaces
        with fails("ABORTED", "VERSION_MISMATCH", current="0"):
            await put(api, owner, ["a"], "k", expected_version=first.version)
        second = await put(api, owner, ["a"], "k", expected_version=0)
        assert second.metadata == "{}"
        assert second.created_at == second.updated_at
        assert second.created_at.ToMicroseconds() > first.created_at.ToMicroseconds()

    async def test_delete_namespace_does_not_count_what_is_over(self, api: Api, owner: str) -> None:
        await put(api, owner, ["a"], "k", ttl_minutes=BRIEF)
        await gone(api, owner, ["a"], "k")
        await put(api, owner, ["a"], "l")
        assert (await api.call("DeleteNamespace", owner_id=owner, namespace=["a"])).deleted == 1

    async def test_reads_begin_the_time_anew_only_when_asked(self, api: Api, owner: str) -> None:
        item = await put(api, owner, ["a"], "k", ttl_minutes=5)
        stays = await put(api, owner, ["a"], "stays")
        assert await get(api, owner, ["a"], "k") == item
        assert (await api.call("SearchItems", owner_id=owner)).items[1] == item
        refreshed = await get(api, owner, ["a"], "k", refresh_ttl=True)
        assert refreshed.expires_at.ToMicroseconds() > item.expires_at.ToMicroseconds()
        for name in ("value", "version", "created_at", "updated_at", "ttl_minutes"):
            assert getattr(refreshed, name) == getattr(item, name)
        assert await get(api, owner, ["a"], "k") == refreshed
        assert await get(api, owner, ["a"], "stays", refresh_ttl=True) == stays
        found = (await api.call("SearchItems", owner_id=owner, refresh_ttl=True, sort_by=2)).items
        assert found[0].expires_at.ToMicroseconds() > refreshed.expires_at.ToMicroseconds()
        assert found[1] == stays
        assert await get(api, owner, ["a"], "k") == found[0]

    async def test_search_begins_anew_only_what_it_lists(self, api: Api, owner: str) -> None:
        items = [await put(api, owner, ["a"], key, ttl_minutes=5) for key in "abc"]
        await keys(api, owner, refresh_ttl=True, limit=1, offset=1)
        ends = [(await get(api, owner, ["a"], key)).expires_at.ToMicroseconds() for key in "abc"]
        assert [end > item.expires_at.ToMicroseconds() for end, item in zip(ends, items, strict=True)] == [
            False,
            True,
            False,
        ]


class TestBatch:
    """Operations in order in one transaction."""

    async def test_results_have_the_place_of_their_operation(self, api: Api, owner: str) -> None:
        await put(api, owner, ["old"], "o")
        operations: list[dict[str, Any]] = [
            {"get": {"namespace": ["a"], "key": "k"}},
            {"put": {"namespace": ["a"], "key": "k", "value": "1", "ttl_minutes": 5}},
            {"get": {"namespace": ["a"], "key": "k"}},
            {"put": {"namespace": ["a"], "key": "k", "value": "2", "expected_version": 1}},
            {"search": {"namespace_prefix": ["a"], "filters": []}},
            {"list_namespaces": {}},
            {"delete": {"namespace": ["old"], "key": "o"}},
            {"delete": {"namespace": ["old"], "key": "o"}},
            {"list_namespaces": {"limit": 1}},
            {"put": {"namespace": ["a"], "key": "k", "value": "3"}},
        ]
        results = (await api.call("Batch", owner_id=owner, operations=operations)).results
        kinds = ["get", "put", "get", "put", "search", "list_namespaces", "delete", "delete", "list_namespaces", "put"]
        assert [result.WhichOneof("result") for result in results] == kinds
        assert not results[0].get.HasField("item")
        assert results[2].get.item == results[1].put.item
        assert (results[3].put.item.version, results[3].put.item.value) == (2, "2")
        assert list(results[4].search.items) == [results[3].put.item]
        assert [list(space.labels) for space in results[5].list_namespaces.namespaces] == [["a"], ["old"]]
        assert [results[6].delete.deleted, results[7].delete.deleted] == [True, False]
        assert [list(space.labels) for space in results[8].list_namespaces.namespaces] == [["a"]]
        assert await get(api, owner, ["a"], "k") == results[9].put.item

    @pytest.mark.parametrize("place", [0, 1, 2])
    async def test_one_bad_operation_fails_all(self, api: Api, owner: str, place: int) -> None:
        kept = await put(api, owner, ["a"], "kept", ttl_minutes=5)
        operations: list[dict[str, Any]] = [
            {"put": {"namespace": ["a"], "key": "kept", "value": "2"}},
            {"delete": {"namespace": ["a"], "key": "kept"}},
        ]
        bad = {"put": {"namespace": ["b"], "key": "k", "value": "1", "expected_version": 7}}
        operations.insert(place, bad)
        with fails("ABORTED", "VERSION_MISMATCH", current="0", index=str(place)):
            await api.call("Batch", owner_id=owner, operations=operations)
        assert (await api.call("SearchItems", owner_id=owner)).items[:] == [kept]
        with fails("ABORTED", "VERSION_MISMATCH", current="0"):
            await put(api, owner, ["b"], "k", expected_version=7)

    async def test_what_a_batch_may_hold(self, api: Api, owner: str) -> None:
        with invalid("operations"):
            await api.call("Batch", owner_id=owner)
        with invalid("operations[1]"):
            await api.call("Batch", owner_id=owner, operations=[{"list_namespaces": {}}, {}])
        one = {"get": {"namespace": ["a"], "key": "k"}}
        with invalid("operations"):
            await api.call("Batch", owner_id=owner, operations=[one] * 1001)
        assert len((await api.call("Batch", owner_id=owner, operations=[one] * 1000)).results) == 1000
        with invalid("operations[0].search.limit"):
            await api.call("Batch", owner_id=owner, operations=[{"search": {"limit": -1}}])

    async def test_concurrent_batches_keep_their_order(self, api: Api, owner: str) -> None:
        def swap(first: str, second: str) -> list[dict[str, Any]]:
            return [{"put": {"namespace": ["a"], "key": key, "value": f'"{first}"'}} for key in (first, second)]

        await asyncio.gather(*(api.call("Batch", owner_id=owner, operations=swap("x", f"y{n}")) for n in range(8)))
        assert (await get(api, owner, ["a"], "x")).version == 8
        assert len(await keys(api, owner)) == 9
