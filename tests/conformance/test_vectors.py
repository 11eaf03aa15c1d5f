"""Searching items by a vector. ``test_pgvector`` runs these again on databases without pgvector."""

from __future__ import annotations

import asyncio
import json
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from tests.conformance.expect import fails, invalid
from tests.conformance.rows import scoped
from tests.service import Api

COSINE, L2, INNER_PRODUCT = "COSINE", "L2", "INNER_PRODUCT"
Vector = Sequence[float]


def put(key: str, *vectors: Vector, namespace: Sequence[str] = ("a",), value: str = "{}", **fields: Any) -> Any:
    """A put of an item with these vectors, as an operation of a batch."""
    named = [{"field": f"f{number}", "values": list(values)} for number, values in enumerate(vectors)]
    return {"put": {"namespace": list(namespace), "key": key, "value": value, "vectors": named, **fields}}


async def fill(api: Api, owner: str | None, *operations: Any) -> None:
    for start in range(0, len(operations), 1000):
        await api.call("Batch", **scoped(owner), operations=operations[start : start + 1000])


async def search(api: Api, owner: str | None, vector: Vector, distance: str = COSINE, **fields: Any) -> list[Any]:
    response = await api.call(
        "SearchItems", **scoped(owner), vector=list(vector), distance=f"VECTOR_DISTANCE_{distance}", **fields
    )
    return list(response.items)


async def keys(api: Api, owner: str | None, vector: Vector, **fields: Any) -> list[str]:
    return [item.key for item in await search(api, owner, vector, **fields)]


def score(distance: str, left: Vector, right: Vector) -> float:
    """What the score of two vectors is, straight from its definition."""
    if distance == L2:
        return -math.dist(left, right)
    product = math.fsum(a * b for a, b in zip(left, right, strict=True))
    return product if distance == INNER_PRODUCT else product / (math.hypot(*left) * math.hypot(*right))


@pytest.mark.parametrize("distance", [COSINE, L2, INNER_PRODUCT])
async def test_scores(api: Api, owner: str, distance: str) -> None:
    drawn = random.Random(7)
    vectors = {f"{number:02}": [drawn.gauss(0, 1) for _ in range(300)] for number in range(40)}
    await fill(api, owner, *(put(key, vector) for key, vector in vectors.items()))
    query = [drawn.gauss(0, 1) for _ in range(300)]
    found = await search(api, owner, query, distance, limit=100)
    expected = {key: score(distance, vector, query) for key, vector in vectors.items()}
    assert [item.key for item in found] == sorted(expected, key=lambda key: -expected[key])
    for item in found:
        # The numbers are of single precision on their way.
        assert item.score == pytest.approx(expected[item.key], rel=1e-6, abs=1e-6)
    assert found[0].value == "{}"
    assert found[0].version == 1


async def test_what_scores_mean(api: Api, owner: str) -> None:
    await fill(api, owner, put("same", [3, 4]), put("far", [6, 8]), put("across", [-4, 3]), put("against", [-3, -4]))
    for distance, expected in (
        (COSINE, {"same": 1.0, "far": 1.0, "across": 0.0, "against": -1.0}),
        (L2, {"same": 0.0, "far": -5.0, "across": -math.sqrt(50), "against": -10.0}),
        (INNER_PRODUCT, {"same": 25.0, "far": 50.0, "across": 0.0, "against": -25.0}),
    ):
        found = await search(api, owner, [3, 4], distance)
        assert {item.key: item.score for item in found} == pytest.approx(expected, rel=1e-6)
        assert [item.score for item in found] == sorted((item.score for item in found), reverse=True)
        assert not any(str(item.score) == "-0.0" for item in found)
    assert await keys(api, owner, [3, 4], distance="UNSPECIFIED") == ["far", "same", "across", "against"]


async def test_a_search_without_a_vector_has_no_scores(api: Api, owner: str) -> None:
    await fill(api, owner, put("k", [1, 2]))
    settings: list[dict[str, Any]] = [{}, {"distance": "VECTOR_DISTANCE_L2"}]
    for fields in settings:
        [item] = (await api.call("SearchItems", owner_id=owner, **fields)).items
        assert not item.HasField("score")
    item = (await api.call("GetItem", owner_id=owner, namespace=["a"], key="k")).item
    assert not item.HasField("score")


async def test_each_item_once_by_its_closest_vector(api: Api, owner: str) -> None:
    await fill(api, owner, put("two", [0, 1], [5, 5]), put("one", [2, 1]), put("many", *[[-1, 0]] * 98, [1, 0], [0, 0]))
    found = await search(api, owner, [1, 0], limit=3)
    assert [item.key for item in found] == ["many", "one", "two"]
    assert found[1].score == pytest.approx(2 / math.sqrt(5), abs=1e-6)
    assert found[2].score == pytest.approx(1 / math.sqrt(2), abs=1e-6)


async def test_ties_by_namespace_and_key(api: Api, owner: str) -> None:
    places = [(("b",), "a"), (("a", "b"), "a"), (("a",), "é"), (("a",), "b"), (("a",), "B"), (("a-",), "z")]
    # Parallel vectors: which of them is closest is a matter of rounding only.
    puts = [put(key, [0.1 * n, 0.2 * n, 0.7 * n], namespace=labels) for n, (labels, key) in enumerate(places, 1)]
    await fill(api, owner, *puts)
    found = [(await search(api, owner, [0.3, 0.6, 2.1], limit=1, offset=offset))[0] for offset in range(len(places))]
    assert [item.score for item in found] == [1.0] * len(places)
    expected = sorted(places, key=lambda place: (".".join(place[0]), place[1]))
    assert [(tuple(item.namespace), item.key) for item in found] == expected


async def test_vectors_of_another_size_are_left_out(api: Api, owner: str) -> None:
    await fill(api, owner, put("two", [1, 0]), put("three", [1, 0, 0]), put("both", [1, 0, 0], [0, 1]), put("none"))
    assert await keys(api, owner, [1, 0]) == ["two", "both"]
    assert await keys(api, owner, [1, 0, 0]) == ["both", "three"]
    assert await keys(api, owner, [1]) == []
    assert await keys(api, owner, [1, 0], distance="L2") == ["two", "both"]


async def test_a_vector_of_zeros(api: Api, owner: str) -> None:
    await fill(api, owner, put("zero", [0, 0]), put("with", [1, 1]), put("against", [-1, -1]))
    found = await search(api, owner, [1, 1])
    assert [(item.key, item.score) for item in found] == [("with", 1.0), ("zero", 0.0), ("against", -1.0)]
    assert await keys(api, owner, [1, 1], limit=1) == ["with"]
    assert await keys(api, owner, [1, 1], limit=1, offset=2) == ["against"]
    assert [item.score for item in await search(api, owner, [0, 0])] == [0.0, 0.0, 0.0]
    assert await keys(api, owner, [0, 0], distance="L2") == ["zero", "against", "with"]


async def test_page_fifty(api: Api, owner: str) -> None:
    drawn = random.Random(50)
    angles = {f"{number:03}": drawn.uniform(0, math.pi) for number in range(505)}
    await fill(
        api,
        owner,
        # The second vector is always farther than the first.
        *(put(key, [math.cos(angle), math.sin(angle)], [-1, -1e-3]) for key, angle in angles.items()),
    )
    expected = sorted(angles, key=lambda key: angles[key])
    page = await search(api, owner, [1, 0], limit=10, offset=490)
    assert [item.key for item in page] == expected[490:500]
    for item in page:
        assert item.score == pytest.approx(math.cos(angles[item.key]), abs=2e-6)
    assert await keys(api, owner, [1, 0], limit=10, offset=500) == expected[500:]
    assert await keys(api, owner, [1, 0], limit=10, offset=510) == []
    assert await keys(api, owner, [1, 0], limit=1000) == expected
    filters = [{"key": "f", "operator": "FILTER_OPERATOR_NE", "operand": "1"}]
    assert await keys(api, owner, [1, 0], limit=5, offset=250, filters=filters) == expected[250:255]


async def test_only_what_the_other_conditions_let_through(api: Api, owner: str) -> None:
    values = ['{"n": 9}', '{"n": 10}', '{"n": "10"}', "{}"]
    spaces = [("a",), ("a", "b"), ("ab",)]
    puts = [
        put(f"{'.'.join(labels)}-{number}", [number, 1], namespace=labels, value=value)
        for labels in spaces
        for number, value in enumerate(values)
    ]
    await fill(api, owner, *puts)
    near: Vector = [1, 0]
    above = {"key": "n", "operator": "FILTER_OPERATOR_GT", "operand": "9"}
    assert await keys(api, owner, near, filters=[above]) == ["a-1", "a.b-1", "ab-1"]
    assert await keys(api, owner, near, filters=[above], namespace_prefix=["a"]) == ["a-1", "a.b-1"]
    assert await keys(api, owner, near, filters=[above], namespace_prefix=["a"], exact_namespace=True) == ["a-1"]
    assert await keys(api, owner, near, key_prefix="ab", limit=2) == ["ab-3", "ab-2"]


async def test_a_put_replaces_the_vectors(api: Api, owner: str) -> None:
    at: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k", "value": "1"}
    expectations: list[dict[str, Any]] = [{}, {"expected_version": 0}]
    for fields in expectations:
        await api.call("PutItem", **at, **fields, vectors=[{"field": "$", "values": [1, 0]}, {"values": [0, 1]}])
        assert [item.score for item in await search(api, owner, [0, 1])] == [1.0]
        await api.call("DeleteItem", owner_id=owner, namespace=["a"], key="k")
        assert await keys(api, owner, [0, 1]) == []
        # Nor does what is put there next find them again.
        await api.call("PutItem", **at)
        assert await keys(api, owner, [0, 1]) == []
        await api.call("DeleteItem", owner_id=owner, namespace=["a"], key="k")
    await api.call("PutItem", **at, vectors=[{"values": [1, 0]}, {"values": [0, 1]}])
    await api.call("PutItem", **at, vectors=[{"values": [1, 0]}])
    assert [item.score for item in await search(api, owner, [0, 1])] == [0.0]
    await api.call("PutItem", **at, expected_version=2, vectors=[{"values": [-1, 0]}])
    assert [item.score for item in await search(api, owner, [1, 0])] == [-1.0]
    with fails("ABORTED", "VERSION_MISMATCH", current="3"):
        await api.call("PutItem", **at, expected_version=2, vectors=[{"values": [1, 0]}])
    assert [item.score for item in await search(api, owner, [1, 0])] == [-1.0]
    await api.call("PutItem", **at, expected_version=3)
    assert await keys(api, owner, [1, 0]) == []


async def test_a_batch_keeps_the_order_and_leaves_nothing_when_it_fails(api: Api, owner: str) -> None:
    look = {"search": {"vector": [1, 0]}}
    at: dict[str, Any] = {"namespace": ["a"], "key": "k"}
    operations = [look, put("k", [1, 0]), look, put("k", [0, 1]), look, {"delete": at}, look]
    response = await api.call("Batch", owner_id=owner, operations=operations)
    scores = [[item.score for item in result.search.items] for result in response.results[::2]]
    assert scores == [[], [1.0], [0.0], []]
    await fill(api, owner, put("k", [1, 0]))
    with fails("ABORTED", "VERSION_MISMATCH", current="2", index="1"):
        await fill(api, owner, put("k", [0, 1]), put("k", [0, 1], expected_version=1))
    assert [item.score for item in await search(api, owner, [1, 0])] == [1.0]


async def test_deleted_and_ended_items_are_not_found(api: Api, owner: str) -> None:
    await fill(
        api,
        owner,
        put("stays", [1, 1]),
        put("below", [1, 0], namespace=["a", "b"]),
        put("ended", [1, 0], namespace=["c"], ttl_minutes=0.0001),
        put("later", [1, 0.1], namespace=["c"], ttl_minutes=60),
    )
    await asyncio.sleep(0.02)
    assert await keys(api, owner, [1, 0]) == ["below", "later", "stays"]
    await api.call("DeleteNamespace", owner_id=owner, namespace=["a", "b"])
    assert await keys(api, owner, [1, 0]) == ["later", "stays"]
    await api.call("EraseOwner", owner_id=owner)
    assert await keys(api, owner, [1, 0]) == []


async def test_refresh_begins_the_time_to_live_of_the_found_anew(api: Api, owner: str) -> None:
    spaces = [put(key, [number, 1], ttl_minutes=60) for number, key in enumerate(["none", "far", "near"])]
    await fill(api, owner, *spaces, put("stays", [-1, 0]))

    async def ends() -> dict[str, int]:
        items = (await api.call("SearchItems", owner_id=owner)).items
        return {item.key: item.expires_at.ToMicroseconds() for item in items}

    before = await ends()
    await asyncio.sleep(0.005)
    found = await search(api, owner, [1, 0], limit=2)
    assert await ends() == before
    found = await search(api, owner, [1, 0], limit=2, refresh_ttl=True)
    assert [item.key for item in found] == ["near", "far"]
    after = await ends()
    assert {key for key in before if after[key] > before[key]} == {"near", "far"}
    assert [item.expires_at.ToMicroseconds() for item in found] == [after["near"], after["far"]]
    [last] = await search(api, owner, [1, 0], offset=3, refresh_ttl=True)
    assert (last.key, last.HasField("expires_at")) == ("stays", False)


async def test_nothing_crosses_between_owners(api: Api, owner: str, other: str) -> None:
    await fill(api, owner, put("mine", [0, 1], ttl_minutes=60))
    await fill(api, other, put("theirs", [1, 0]), put("mine", [1, 0], ttl_minutes=60))
    theirs = (await api.call("GetItem", owner_id=other, namespace=["a"], key="mine")).item
    await fill(api, None, put(f"nobodys-{owner}", [1, 0], namespace=[owner]))
    found = await search(api, owner, [1, 0], refresh_ttl=True)
    assert [(item.key, item.score) for item in found] == [("mine", 0.0)]
    assert await keys(api, other, [1, 0]) == ["mine", "theirs"]
    assert (await api.call("GetItem", owner_id=other, namespace=["a"], key="mine")).item == theirs
    assert await keys(api, None, [1, 0], key_prefix=f"nobodys-{owner}") == [f"nobodys-{owner}"]
    await api.call("EraseOwner", owner_id=other)
    assert await keys(api, owner, [1, 0]) == ["mine"]
    await api.call("DeleteNamespace", namespace=[owner])


async def test_usage_counts_vectors_and_the_export_leaves_them_out(api: Api, owner: str) -> None:
    async def size() -> int:
        usage = (await api.call("GetOwnerUsage", owner_id=owner)).usage
        return int(next(entry.bytes for entry in usage if entry.resource == 4))

    await fill(api, owner, put("k"))
    before = await size()
    drawn = random.Random(1)
    await fill(api, owner, put("k", *[[drawn.random() for _ in range(1000)] for _ in range(3)]))
    assert 11_900 <= await size() - before <= 13_000
    [message] = await api.stream("ExportOwner", owner_id=owner)
    assert message.ByteSize() < 200
    assert message.items[0].key == "k"


async def test_the_largest_vectors(api: Api, owner: str) -> None:
    drawn = random.Random(2)
    large = [drawn.uniform(-1e15, 1e15) for _ in range(16_000)]
    await fill(api, owner, put("k", large), put("negative", [-number for number in large]))
    found = await search(api, owner, large)
    assert [(item.key, item.score) for item in found] == [("k", 1.0), ("negative", -1.0)]
    for distance in (L2, INNER_PRODUCT):
        [near, far] = await search(api, owner, large, distance)
        expected = score(distance, [-number for number in large], large)
        assert math.isfinite(near.score)
        assert far.score == pytest.approx(expected, rel=1e-5)
    # As many as an item may have.
    await fill(api, owner, put("many", *[large[start : start + 1000] for start in range(0, 10_000, 100)]))
    assert await keys(api, owner, large[900:1900]) == ["many"]


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", 1.1e15, -1.1e15])
async def test_numbers_that_are_refused(api: Api, owner: str, number: Any) -> None:
    for values in ([number], [1, number, 2], [number, 1], [1, number]):
        at: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k", "value": "1"}
        with invalid("vectors[1].values"):
            await api.call("PutItem", **at, vectors=[{"values": [1]}, {"values": values}])
        with invalid("vector"):
            await api.call("SearchItems", owner_id=owner, vector=values)
        with invalid("operations[1].search.vector"):
            await fill(api, owner, put("k", [1]), {"search": {"vector": values}})
        with invalid("operations[0].put.vectors[0].values"):
            await fill(api, owner, put("k", values))
    assert await keys(api, owner, [1]) == []


async def test_other_vectors_that_are_refused(api: Api, owner: str) -> None:
    at: dict[str, Any] = {"owner_id": owner, "namespace": ["a"], "key": "k", "value": "1"}
    for vectors, named in (
        ([{"field": "$"}], "vectors[0].values"),
        ([{"values": [1.0] * 16_001}], "vectors[0].values"),
        ([{"values": [1.0]}] * 101, "vectors"),
        ([{"values": [1.0], "field": "x" * 1025}], "vectors[0].field"),
        ([{"values": [1.0], "field": "\0"}], "vectors[0].field"),
    ):
        with invalid(named):
            await api.call("PutItem", **at, vectors=vectors)
    for fields, named in (
        ({"vector": [1.0] * 16_001}, "vector"),
        ({"vector": [1.0], "distance": 9}, "distance"),
        ({"vector": [1.0], "sort_by": "ITEM_SORT_KEY"}, "sort_by"),
        ({"vector": [1.0], "sort_order": "SORT_ORDER_ASC"}, "sort_order"),
    ):
        with invalid(named):
            await api.call("SearchItems", owner_id=owner, **fields)
    with invalid("operations[0].search.sort_by"):
        await fill(api, owner, {"search": {"vector": [1.0], "sort_by": 2}})


async def test_many_at_once(api: Api, owner: str) -> None:
    """Puts so large that they are written down beside the event loop, next to searches."""
    drawn = random.Random(3)
    vectors = [[drawn.gauss(0, 1) for _ in range(64)] for _ in range(300)]
    puts = [put(f"{number:03}", vector) for number, vector in enumerate(vectors)]
    await asyncio.gather(
        *(fill(api, owner, *puts[start : start + 300]) for start in (0, 100, 200)),
        *(search(api, owner, vectors[0]) for _ in range(5)),
    )
    for number in (0, 150, 299):
        [item] = await search(api, owner, vectors[number], limit=1)
        assert (item.key, item.score) == (f"{number:03}", 1.0)
    stored = json.loads("[1e-45, 3.4028235e14, -1.1754944e-38, 0.1]")
    await fill(api, owner, put("small", stored, namespace=["b"]))
    assert [item.score for item in await search(api, owner, stored, L2)] == [0.0]
