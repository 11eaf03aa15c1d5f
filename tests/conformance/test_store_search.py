"""Searching items and listing namespaces."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.expect import invalid
from tests.conformance.rows import scoped
from tests.service import Api

EQ, NE, GT, GTE, LT, LTE = "EQ", "NE", "GT", "GTE", "LT", "LTE"


async def fill(api: Api, owner: str, items: dict[str, str], namespace: tuple[str, ...] = ("a",)) -> None:
    operations = [{"put": {"namespace": list(namespace), "key": key, "value": value}} for key, value in items.items()]
    await api.call("Batch", owner_id=owner, operations=operations)


async def keys(api: Api, owner: str | None, **fields: Any) -> list[str]:
    fields = {"sort_by": "ITEM_SORT_KEY", "limit": 100, **fields}
    return [item.key for item in (await api.call("SearchItems", **scoped(owner), **fields)).items]


def condition(operator: str, operand: str, key: str = "f") -> dict[str, str]:
    return {"key": key, "operator": f"FILTER_OPERATOR_{operator}", "operand": operand}


# Each item is named for the value of its field "f".
FIELDS = {
    "nine": "9",
    "ten": "10",
    "ten.0": "10.0",
    "minus": "-1.5",
    "big": "9007199254740993",
    "'9'": '"9"',
    "'10'": '"10"',
    "'a'": '"a"',
    "'B'": '"B"',
    "'é'": '"é"',
    "true": "true",
    "false": "false",
    "null": "null",
    "list": "[1, 2]",
    "object": '{"x": 1, "y": [2]}',
}
NO_FIELD = {"absent": '{"g": 1}', "no object": "[9]", "a number": "9", "a text": '"f"', "a null": "null"}
EVERY = set(FIELDS) | set(NO_FIELD)
NUMBERS = {"nine", "ten", "ten.0", "minus", "big"}
TEXTS = {"'9'", "'10'", "'a'", "'B'", "'é'"}
COMPARED: list[tuple[str, str, set[str]]] = [
    (EQ, "9", {"nine"}),
    (EQ, "9.00", {"nine"}),
    (EQ, "10", {"ten", "ten.0"}),
    (EQ, "1e1", {"ten", "ten.0"}),
    (EQ, '"10"', {"'10'"}),
    (EQ, "9007199254740993", {"big"}),
    (EQ, "9007199254740992", set()),
    (EQ, "true", {"true"}),
    (EQ, "1", set()),
    (EQ, "null", {"null"}),
    (EQ, "[1,2.0]", {"list"}),
    (EQ, "[1]", set()),
    (EQ, '{"y": [2], "x": 1.0}', {"object"}),
    (EQ, '{"x": 1}', set()),
    (EQ, "[2, 1]", set()),
    (NE, "9", EVERY - {"nine"}),
    (NE, "10.0", EVERY - {"ten", "ten.0"}),
    (NE, "null", EVERY - {"null"}),
    (NE, '"a"', EVERY - {"'a'"}),
    (NE, "[]", EVERY),
    (GT, "9", {"ten", "ten.0", "big"}),
    (GTE, "9", {"nine", "ten", "ten.0", "big"}),
    (GTE, "9.0", {"nine", "ten", "ten.0", "big"}),
    (LT, "10", {"nine", "minus"}),
    (LTE, "10.00", {"nine", "ten", "ten.0", "minus"}),
    (GT, "9007199254740992", {"big"}),
    (LT, "-1e0", {"minus"}),
    (GT, "-1e100", NUMBERS),
    (GT, '"10"', TEXTS - {"'10'"}),
    (LT, '"9"', {"'10'"}),
    (GT, '"9"', {"'a'", "'B'", "'é'"}),
    (LT, '"a"', {"'9'", "'10'", "'B'"}),
    (GTE, '"a"', {"'a'", "'é'"}),
    (LTE, '"B"', {"'9'", "'10'", "'B'"}),
    (GT, '""', TEXTS),
    (GT, '"z"', {"'é'"}),
]


async def test_typed_filters(api: Api, owner: str) -> None:
    await fill(api, owner, {key: f'{{"f": {value}}}' for key, value in FIELDS.items()} | NO_FIELD)
    for operator, operand, found in COMPARED:
        assert set(await keys(api, owner, filters=[condition(operator, operand)])) == found, (operator, operand)


@pytest.mark.parametrize("operator", [GT, GTE, LT, LTE])
@pytest.mark.parametrize("operand", ["true", "false", "null", "[1]", "{}"])
async def test_kinds_without_an_order_never_match(api: Api, owner: str, operator: str, operand: str) -> None:
    await fill(api, owner, {key: f'{{"f": {value}}}' for key, value in FIELDS.items()} | NO_FIELD)
    assert await keys(api, owner, filters=[condition(operator, operand)]) == []


async def test_filters_must_all_hold(api: Api, owner: str, other: str) -> None:
    await fill(api, owner, {f"{number}": f'{{"f": {number}, "g": "{number % 2}"}}' for number in range(6)})
    await fill(api, other, {"foreign": '{"f": 3, "g": "1"}'})
    assert await keys(api, owner, filters=[condition(GT, "1"), condition(LTE, "4")]) == ["2", "3", "4"]
    filters = [condition(GT, "1"), condition(LTE, "4"), condition(EQ, '"1"', "g")]
    assert await keys(api, owner, filters=filters) == ["3"]
    # Without an operator it is EQ.
    assert await keys(api, owner, filters=[{"key": "f", "operand": "3"}]) == ["3"]
    assert await keys(api, owner, filters=[condition(EQ, "3"), condition(EQ, "4")]) == []


@pytest.mark.parametrize("field", ["", "a.b", "f'", "$f", "é", "{f}", "%", "f,g", "0"])
async def test_names_of_fields_are_literal(api: Api, owner: str, field: str) -> None:
    await fill(api, owner, {"hit": f'{{"{field}": 5}}', "miss": '{"f": 5, "a": {"b": 5}, "g": 5}', "array": "[5]"})
    for operator in (EQ, GTE):
        assert await keys(api, owner, filters=[condition(operator, "5", field)]) == ["hit"]


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"filters": [{"key": "f"}]}, "filters[0].operand"),
        ({"filters": [{"key": "f", "operand": "{"}]}, "filters[0].operand"),
        ({"filters": [{"key": "f", "operand": "1", "operator": 9}]}, "filters[0].operator"),
        ({"filters": [{"key": "x" * 1025, "operand": "1"}]}, "filters[0].key"),
        ({"filters": [{"key": "f", "operand": "1"}] * 101}, "filters"),
        ({"namespace_prefix": ["a", ""]}, "namespace_prefix[1]"),
        ({"namespace_prefix": ["a.b"]}, "namespace_prefix[0]"),
        ({"namespace_prefix": ["a"] * 33}, "namespace_prefix"),
        ({"key_prefix": "x" * 1025}, "key_prefix"),
        ({"key_prefix": "\0"}, "key_prefix"),
        ({"limit": -1}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 10001}, "offset"),
        ({"sort_by": 3}, "sort_by"),
        ({"sort_order": 3}, "sort_order"),
    ],
)
async def test_bad_searches(api: Api, owner: str, fields: dict[str, Any], named: str) -> None:
    with invalid(named):
        await api.call("SearchItems", owner_id=owner, **fields)


SPACES = [
    ("a",),
    ("a", "b"),
    ("a", "b", "c"),
    ("ab",),
    ("a b",),
    ("a%",),
    ("a_",),
    ("a-",),
    ("a/",),
    ("A",),
    ("x", "a"),
]


async def spaces(api: Api, owner: str) -> None:
    for labels in SPACES:
        await fill(api, owner, {"/".join(labels): "1"}, labels)


@pytest.mark.parametrize(
    ("prefix", "below", "exact"),
    [
        ([], {"/".join(labels) for labels in SPACES}, {"/".join(labels) for labels in SPACES}),
        (["a"], {"a", "a/b", "a/b/c"}, {"a"}),
        (["a", "b"], {"a/b", "a/b/c"}, {"a/b"}),
        (["a%"], {"a%"}, {"a%"}),
        (["a_"], {"a_"}, {"a_"}),
        (["A"], {"A"}, {"A"}),
        (["x"], {"x/a"}, set()),
        (["*"], set(), set()),
        (["b"], set(), set()),
        (["a", "b", "c", "d"], set(), set()),
    ],
)
async def test_prefix_is_of_whole_labels(
    api: Api, owner: str, prefix: list[str], below: set[str], exact: set[str]
) -> None:
    await spaces(api, owner)
    # Two items share a name: ("a/",) and ("a", "") would, which is why the keys are compared with their namespaces.
    found = (await api.call("SearchItems", owner_id=owner, namespace_prefix=prefix, limit=100)).items
    assert {"/".join(item.namespace) for item in found} == below
    assert len(found) == len(below)
    if prefix:
        found = (
            await api.call("SearchItems", owner_id=owner, namespace_prefix=prefix, limit=100, exact_namespace=True)
        ).items
        assert {"/".join(item.namespace) for item in found} == exact


async def test_delete_namespace_is_of_whole_labels(api: Api, owner: str, other: str) -> None:
    for name in (owner, other):
        await spaces(api, name)
    delete: dict[str, Any] = {"namespace": ["a"]}
    assert (await api.call("DeleteNamespace", owner_id=owner, **delete)).deleted == 3
    assert (await api.call("DeleteNamespace", owner_id=owner, **delete)).deleted == 0
    left = {"/".join(labels) for labels in SPACES} - {"a", "a/b", "a/b/c"}
    assert set(await keys(api, owner)) == left
    assert len(await keys(api, other)) == len(SPACES)
    for bad, named in (([], "namespace"), ([""], "namespace[0]"), (["*", "a.b"], "namespace[1]")):
        with invalid(named):
            await api.call("DeleteNamespace", owner_id=owner, namespace=bad)


async def test_key_prefix_is_literal(api: Api, owner: str) -> None:
    await fill(api, owner, dict.fromkeys(["k1", "k%", "k_", "K1", "k\\", "ké", "xk"], "1"))
    for prefix, found in (
        ("k", ["k%", "k1", "k\\", "k_", "ké"]),
        ("k%", ["k%"]),
        ("k_", ["k_"]),
        ("k\\", ["k\\"]),
        ("K", ["K1"]),
        ("", ["K1", "k%", "k1", "k\\", "k_", "ké", "xk"]),
        ("z", []),
    ):
        assert await keys(api, owner, key_prefix=prefix) == found


async def test_orders(api: Api, owner: str) -> None:
    names = ["b", "a", "B", "é", "\uffff", "\U0001f600", "a b", "a-b"]
    for name in names:
        await fill(api, owner, {name: "1"})
    await fill(api, owner, {"a": "2"}, ("a", "x"))
    await fill(api, owner, {"b": "2"})
    ordered = ["a", "a b", "a-b", "B", "b", "é", "\uffff", "\U0001f600"]
    by_key = sorted([*names, "a"])
    assert await keys(api, owner) == by_key
    assert set(by_key) == set(ordered)
    assert await keys(api, owner, sort_order="SORT_ORDER_ASC") == by_key
    assert await keys(api, owner, sort_order="SORT_ORDER_DESC") == by_key[::-1]
    newest = ["b", "a", *names[:0:-1]]
    assert await keys(api, owner, sort_by=0) == newest
    assert await keys(api, owner, sort_by=1, sort_order="SORT_ORDER_DESC") == newest
    assert await keys(api, owner, sort_by=1, sort_order="SORT_ORDER_ASC") == newest[::-1]
    pages = [await keys(api, owner, limit=2, offset=offset) for offset in range(0, 10, 2)]
    assert [key for page in pages for key in page] == by_key
    assert await keys(api, owner, offset=10_000) == []


@pytest.mark.parametrize("sort_by", [1, 2])
@pytest.mark.parametrize("sort_order", [1, 2])
async def test_ties_keep_one_order_over_pages(api: Api, owner: str, sort_by: int, sort_order: int) -> None:
    """Items of one batch are of one moment, and the same key is in several namespaces."""
    places = [([label], key) for label in ("b", "a", "A", "a-") for key in ("k", "l")]
    puts = [{"put": {"namespace": labels, "key": key, "value": "1"}} for labels, key in places]
    await api.call("Batch", owner_id=owner, operations=puts)
    found = [
        (await api.call(
            "SearchItems", owner_id=owner, sort_by=sort_by, sort_order=sort_order, limit=1, offset=offset
        )).items[0]
        for offset in range(8)
    ]  # fmt: skip
    assert len({item.updated_at.ToMicroseconds() for item in found}) == 1

    def place(item: Any) -> tuple[str, ...]:
        labels = ".".join(item.namespace)
        return (labels, item.key) if sort_by == 1 else (item.key, labels)

    assert [place(item) for item in found] == sorted(map(place, found), reverse=sort_order == 2)
    assert len({place(item) for item in found}) == 8


async def test_limits(api: Api, owner: str) -> None:
    for start in (0, 600):
        await fill(api, owner, {f"{number:04}": "1" for number in range(start, start + 600)})
    for limit, rows in ((0, 10), (1, 1), (10, 10), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)):
        assert len(await keys(api, owner, limit=limit)) == rows
    assert await keys(api, owner, limit=1000, offset=1198) == ["1198", "1199"]


def match(kind: str, *path: str) -> dict[str, Any]:
    return {"match_type": f"NAMESPACE_MATCH_TYPE_{kind}", "path": path}


async def listed(api: Api, owner: str | None, **fields: Any) -> list[tuple[str, ...]]:
    response = await api.call("ListNamespaces", **scoped(owner), **fields)
    return [tuple(space.labels) for space in response.namespaces]


TREE = [("a",), ("a", "b", "c"), ("a", "b", "d"), ("a", "x", "c"), ("ab", "c"), ("b", "c"), ("c",), ("%", "c")]


@pytest.mark.parametrize(
    ("fields", "found"),
    [
        ({}, sorted(TREE)),
        ({"matches": [match("PREFIX", "a")]}, TREE[:4]),
        ({"matches": [{"path": ["a"]}]}, TREE[:4]),
        ({"matches": [match("SUFFIX", "c")]}, [TREE[7], TREE[1], TREE[3], *TREE[4:7]]),
        ({"matches": [match("PREFIX", "a"), match("SUFFIX", "c")]}, [TREE[1], TREE[3]]),
        ({"matches": [match("PREFIX", "a", "*", "c")]}, [TREE[1], TREE[3]]),
        ({"matches": [match("PREFIX", "*", "c")]}, [TREE[7], TREE[4], TREE[5]]),
        ({"matches": [match("SUFFIX", "b", "*")]}, [TREE[1], TREE[2], TREE[5]]),
        ({"matches": [match("SUFFIX", "*", "*", "*")]}, TREE[1:4]),
        ({"matches": [match("PREFIX", "%")]}, [TREE[7]]),
        ({"matches": [match("PREFIX", "A")]}, []),
        ({"matches": [match("PREFIX", "a", "b", "c", "d")]}, []),
        ({"max_depth": 1}, [("%",), ("a",), ("ab",), ("b",), ("c",)]),
        ({"max_depth": 2}, [("%", "c"), ("a",), ("a", "b"), ("a", "x"), ("ab", "c"), ("b", "c"), ("c",)]),
        ({"max_depth": 2, "matches": [match("SUFFIX", "c")], "limit": 2, "offset": 1}, [("a", "b"), ("a", "x")]),
        ({"limit": 3}, sorted(TREE)[:3]),
        ({"limit": 3, "offset": 6}, sorted(TREE)[6:]),
        ({"offset": 10000}, []),
    ],
)
async def test_list_namespaces(
    api: Api, owner: str, other: str, fields: dict[str, Any], found: list[tuple[str, ...]]
) -> None:
    for labels in TREE:
        await fill(api, owner, {"k": "1", "l": "1"}, labels)
    await fill(api, other, {"k": "1"}, ("foreign",))
    assert await listed(api, owner, **fields) == found


async def test_namespaces_by_code_point_of_their_labels(api: Api, owner: str) -> None:
    labels = [("a",), ("a", "z"), ("a-",), ("a b",), ("A",), ("é",), ("z",), ("\uffff",), ("\U0001f600",)]
    for space in labels:
        await fill(api, owner, {"k": "1"}, space)
    assert await listed(api, owner) == sorted(labels)
    pages = [await listed(api, owner, limit=2, offset=offset) for offset in range(0, 10, 2)]
    assert [space for page in pages for space in page] == sorted(labels)


async def test_limits_of_listing(api: Api, owner: str) -> None:
    puts = [{"put": {"namespace": [f"{number:03}"], "key": "k", "value": "1"}} for number in range(120)]
    await api.call("Batch", owner_id=owner, operations=puts)
    assert len(await listed(api, owner)) == 100
    assert len(await listed(api, owner, limit=1001)) == 120
    for fields, named in (
        ({"limit": -1}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 10001}, "offset"),
        ({"max_depth": -1}, "max_depth"),
        ({"max_depth": 33}, "max_depth"),
        ({"matches": [{"path": []}]}, "matches[0].path"),
        ({"matches": [{"path": ["a", "b."]}]}, "matches[0].path[1]"),
        ({"matches": [{"path": ["a"], "match_type": 3}]}, "matches[0].match_type"),
        ({"matches": [{"path": ["a"]}] * 101}, "matches"),
    ):
        with invalid(named):
            await listed(api, owner, **fields)
