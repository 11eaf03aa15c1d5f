"""The drop-in interface for the long-term store."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

import pytest

from agentstorage import GrpcStorage, Item, errors


async def test_put_and_get(storage: GrpcStorage, alice: str) -> None:
    item = await storage.store.put(["users", "u1"], "k", {"a": 1}, alice, {"m": 1})
    assert isinstance(item, Item)
    assert (item.namespace, item.key, item.value, item.metadata) == ("users.u1", "k", {"a": 1}, {"m": 1})
    assert await storage.store.get(["users", "u1"], "k", alice) == item
    assert await storage.store.get("users.u1", "k", alice) == item
    assert await storage.store.get(["users.u1"], "k", alice) == item
    assert await storage.store.get(item.namespace, "k", alice) == item


@pytest.mark.parametrize(
    "value", [None, True, 0, 2**80, -1.5, "123", "{}", "", [], [1, {"a": None}], {}, {"n": 10**30}]
)
async def test_any_json_value_comes_back_as_it_was(storage: GrpcStorage, alice: str, value: Any) -> None:
    await storage.store.put("ns", "k", value, alice)
    item = await storage.store.get("ns", "k", alice)
    assert item is not None
    assert item.value == value
    assert type(item.value) is type(value)


async def test_an_upsert_keeps_created_at_and_metadata(storage: GrpcStorage, alice: str) -> None:
    first = await storage.store.put("ns", "k", 1, alice, {"m": 1})
    second = await storage.store.put("ns", "k", 2, alice)
    assert (second.created_at, second.metadata, second.value) == (first.created_at, {"m": 1}, 2)
    assert second.updated_at > first.updated_at
    third = await storage.store.put("ns", "k", 3, alice, {})
    assert third.metadata == {}
    assert await storage.store.get("ns", "k", alice) == third


async def test_absent_and_foreign(storage: GrpcStorage, alice: str, bob: str) -> None:
    await storage.store.put("ns", "k", 1, alice)
    for namespace, key, owner in (
        ("ns", "k", bob), ("ns", "other", alice), ("other", "k", alice), ("ns.k", "k", alice),
        ("", "k", alice), ("a..b", "k", alice), ("ns", "", alice), ([], "k", alice), ("ns", "k" * 2000, alice),
    ):  # fmt: skip
        assert await storage.store.get(namespace, key, owner) is None
        assert await storage.store.delete(namespace, key, owner) is False
    await storage.store.put("ns", "k", 2, bob)
    assert await storage.store.delete("ns", "k", bob) is True
    item = await storage.store.get("ns", "k", alice)
    assert item is not None
    assert item.value == 1
    assert await storage.store.delete("ns", "k", alice) is True
    assert await storage.store.delete("ns", "k", alice) is False


async def test_search_is_of_one_namespace_and_by_key(storage: GrpcStorage, alice: str, bob: str) -> None:
    for key in ("b", "a", "a_1", "ab", "Z", "ä"):
        await storage.store.put(["n", "s"], key, key, alice)
    await storage.store.put(["n", "s", "below"], "a", 1, alice)
    await storage.store.put(["n"], "a", 1, alice)
    await storage.store.put(["n", "sx"], "a", 1, alice)
    await storage.store.put(["n", "s"], "a", 1, bob)

    async def keys(namespace: Any = "n.s", **cut: Any) -> list[str]:
        found = await storage.store.search(namespace, alice, **cut)
        assert {item.namespace for item in found} <= {"n.s"}
        return [item.key for item in found]

    everything = ["Z", "a", "a_1", "ab", "b", "ä"]
    assert await keys() == await keys(["n", "s"]) == everything
    assert await keys(prefix="a") == ["a", "a_1", "ab"]
    assert await keys(prefix="a_") == ["a_1"]
    assert await keys(prefix="%") == []
    assert await keys(prefix="") == everything
    assert await keys(limit=2, offset=1) == ["a", "a_1"]
    assert await keys(limit=0) == ["Z"]
    assert await keys(limit=100_000, offset=-5) == everything
    assert await keys("absent") == await keys("") == await keys([]) == await keys("a..b") == []


async def test_search_gives_ten_by_default(storage: GrpcStorage, alice: str) -> None:
    for number in range(12):
        await storage.store.put("ns", f"k{number:02}", number, alice)
    assert [item.value for item in await storage.store.search("ns", alice)] == list(range(10))


async def test_namespaces_come_joined_and_in_order(storage: GrpcStorage, alice: str, bob: str) -> None:
    for namespace in ("b", ["a", "b"], "a", "a.b.c"):
        await storage.store.put(namespace, "k", 1, alice)
        await storage.store.put(namespace, "k2", 1, alice)
    await storage.store.put("bobs", "k", 1, bob)
    names = await storage.store.list_namespaces(alice)
    assert names == ["a", "a.b", "a.b.c", "b"]
    for name in names:
        assert len(await storage.store.search(name, alice)) == 2
    assert await storage.store.list_namespaces(f"{alice}x") == []


async def test_namespaces_go_on_past_the_largest_page(
    storage: GrpcStorage, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstorage.storage.store.PAGE", 3)
    for number in range(7):
        await storage.store.put(f"n{number}", "k", 1, alice)
    assert await storage.store.list_namespaces(alice) == [f"n{number}" for number in range(7)]


async def test_search_goes_on_past_the_largest_page(storage: GrpcStorage, alice: str) -> None:
    for start in range(0, 1010, 101):
        await asyncio.gather(*(storage.store.put("ns", f"{n:04}", n, alice) for n in range(start, start + 101)))
    for limit, offset, expected in ((1005, 0, 1005), (5000, 0, 1010), (2000, 8, 1002), (1000, 0, 1000)):
        found = await storage.store.search("ns", alice, limit=limit, offset=offset)
        assert [item.value for item in found] == list(range(offset, offset + expected))


async def test_more_than_can_be_listed_is_said(
    storage: GrpcStorage, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentstorage.storage.store.PAGE", 2)
    monkeypatch.setattr("agentstorage.storage.store.LARGEST_OFFSET", 3)
    for number in range(5):
        await storage.store.put("ns", f"k{number}", number, alice)
    assert len(await storage.store.search("ns", alice, limit=4)) == 4
    with pytest.raises(errors.LimitReached, match=r"up to number 4.*prefix"):
        await storage.store.search("ns", alice, limit=100)
    assert len(await storage.store.search("ns", alice, prefix="k4", limit=100)) == 1
    with pytest.raises(errors.InvalidRequest, match="offset"):
        await storage.store.search("ns", alice, offset=10_001)


async def test_items_too_large_for_one_answer_are_read_in_smaller_pages(storage: GrpcStorage, alice: str) -> None:
    # 75 MB together; an answer has 64 MiB.
    text = "x" * 15_000_000
    for number in range(5):
        await storage.store.put("large", str(number), text, alice)
    found = await storage.store.search("large", alice, limit=100)
    assert [item.key for item in found] == ["0", "1", "2", "3", "4"]
    assert {len(item.value) for item in found} == {len(text)}


async def test_items_turn_into_dicts(storage: GrpcStorage, alice: str) -> None:
    item = await storage.store.put("a.b", "k", [1], alice)
    shown = item.to_dict()
    assert {name: shown[name] for name in ("namespace", "key", "value", "metadata")} == {
        "namespace": "a.b", "key": "k", "value": [1], "metadata": {},
    }  # fmt: skip
    assert shown["created_at"].endswith("+00:00")
    assert datetime.fromisoformat(shown["created_at"]) == item.created_at


async def test_wrong_arguments_are_refused_by_name(storage: GrpcStorage, alice: str) -> None:
    with pytest.raises(TypeError, match="namespace"):
        await storage.store.put(5, "k", 1, alice)  # type: ignore[arg-type]  # what is wrong on purpose
    with pytest.raises(TypeError, match="namespace"):
        await storage.store.put(["a", 1], "k", 1, alice)  # type: ignore[list-item]  # on purpose
    with pytest.raises(TypeError, match="key"):
        await storage.store.put("ns", None, 1, alice)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(TypeError, match="value"):
        await storage.store.put("ns", "k", object(), alice)
    with pytest.raises(TypeError, match="metadata"):
        await storage.store.put("ns", "k", 1, alice, [])  # type: ignore[arg-type]  # on purpose
    for namespace, key in (("", "k"), ("a..b", "k"), ("ns", "")):
        with pytest.raises(errors.InvalidRequest):
            await storage.store.put(namespace, key, 1, alice)
    assert await storage.store.list_namespaces(alice) == []
