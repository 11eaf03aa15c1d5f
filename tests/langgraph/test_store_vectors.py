"""Search by meaning: what the store embeds, when, and what it finds; through real servers, on both backends."""

from __future__ import annotations

import asyncio
import math
import threading
from array import array
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from langgraph.store.base import GetOp, Op, PutOp, SearchItem, SearchOp

from agentstorage.langgraph import AsyncGrpcStore, GrpcStore
from tests.langgraph.stores import DIMS, embed, index, keys, vector
from tests.service import ServerProcess


class Recorder(Embeddings):
    """Notes what is embedded, in which thread, and whether as a document or as a query."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[str]]] = []
        self.threads: set[threading.Thread] = set()

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append(("documents", list(texts)))
        self.threads.add(threading.current_thread())
        return embed(texts)

    def embed_query(self, text: str) -> list[float]:
        self.calls.append(("query", [text]))
        self.threads.add(threading.current_thread())
        return vector(text)


def stored(server: ServerProcess, owner: str, **more: Any) -> AbstractAsyncContextManager[AsyncGrpcStore]:
    return AsyncGrpcStore(server.target, owner_id=owner, index=index(**more))


async def test_the_nearest_first(server: ServerProcess, owner: str) -> None:
    async with stored(server, owner, fields=["text"]) as store:
        texts = {"tea": "likes green tea", "coffee": "likes black coffee", "bike": "rides a bike", "none": ""}
        for key, text in texts.items():
            await store.aput(("m",), key, {"text": text, "length": len(text)})
        await store.aput(("m",), "other", {"note": "green tea"})
        await store.aput(("mm",), "elsewhere", {"text": "green tea"})
        found = await store.asearch(("m",), query="green tea")
        # What has no text is not found by one; a vector of zeros is as far as what has no word in common.
        assert [item.key for item in found] == ["tea", "bike", "coffee", "none"]
        assert type(found[0]) is SearchItem
        assert found[0].score == pytest.approx(2 / math.sqrt(2 * 3), abs=1e-6)
        assert [item.score for item in found[1:]] == [0.0, 0.0, 0.0]
        assert found[0].value == {"text": "likes green tea", "length": 15}
        assert await keys(store, "m", query="coffee", filter={"length": {"$gt": 15}}) == ["coffee"]
        assert await keys(store, "m", query="tea", limit=1, offset=1) == ["bike"]
        assert await keys(store, query="green tea", limit=2) == ["elsewhere", "tea"]
        # Without a query the newest comes first, and nothing has a score.
        plain = await store.asearch(("m",), limit=2)
        assert [(item.key, item.score) for item in plain] == [("other", None), ("none", None)]


async def test_what_of_a_value_is_embedded(server: ServerProcess, owner: str) -> None:
    value = {"title": "one", "parts": [{"text": "two"}, {"text": "three"}], "deep": {"er": "four"}, "more": "five"}
    fields: list[tuple[Any, set[str]]] = [
        (None, {"one", "two", "three"}),
        (False, set()),
        (["deep.er"], {"four"}),
        (["parts[-1].text", "title"], {"three", "one"}),
        (["{title,more}"], {"one", "five"}),
        (["absent", "parts[9].text"], set()),
        ([], set()),
        (["$"], {"one", "two", "three", "four", "five"}),
    ]
    async with stored(server, owner, fields=["title", "parts[*].text"]) as store:
        for paths, words in fields:
            # Each put leaves nothing of the one before.
            await store.aput(("a",), "k", value, index=paths)
            for word in ("one", "two", "three", "four", "five"):
                found = await store.asearch(("a",), query=word)
                assert bool(found) == bool(words), (paths, word)
                if found:
                    assert found[0].score is not None
                    assert (found[0].score > 0) == (word in words), (paths, word)
                    if paths != ["$"] and word in words:
                        assert found[0].score == 1.0


async def test_the_whole_value_by_default(server: ServerProcess, owner: str) -> None:
    recorder = Recorder()
    async with stored(server, owner, embed=recorder) as store:
        await store.aput(("a",), "k", {"b": 1, "a": "é"})
        await store.aput(("a",), "k", {"b": 2}, index=["$"])
    assert recorder.calls == [("documents", ['{"a": "é", "b": 1}']), ("documents", ['{"b": 2}'])]


async def test_one_call_for_all_texts_of_a_batch(server: ServerProcess, owner: str) -> None:
    recorder = Recorder()
    async with stored(server, owner, embed=recorder, fields=["text", "more"]) as store:
        ops: list[Op] = [
            PutOp(("a",), "1", {"text": "one", "more": "two"}),
            SearchOp(("a",), query="one"),
            PutOp(("a",), "2", {"text": "two"}),
            PutOp(("a",), "2", {"text": "three"}, index=False),
            SearchOp(("a",), query="one"),
            SearchOp(("a",), query="two"),
            SearchOp(("a",), query=""),
            PutOp(("a",), "1", None),
            GetOp(("a",), "2"),
        ]
        results: list[Any] = await store.abatch(ops)
        assert recorder.calls[0] == ("documents", ["one", "two"])
        assert sorted(recorder.calls[1:]) == [("query", ["one"]), ("query", ["two"])]
        found = [[(item.key, item.score) for item in results[number]] for number in (1, 4, 5, 6)]
        # In order: the second put of "2" has no vector.
        assert found == [[("1", 1.0)], [("1", 1.0)], [("1", 1.0)], [("2", None), ("1", None)]]
        recorder.calls.clear()
        await store.abatch([GetOp(("a",), "2"), SearchOp(()), PutOp(("a",), "2", {"text": "x"}, index=False)])
        assert recorder.calls == []


async def test_functions_that_wait_run_beside_the_event_loop(server: ServerProcess, owner: str) -> None:
    recorder = Recorder()
    for function in (recorder, recorder.embed_documents):
        async with stored(server, owner, embed=function) as store:
            await store.aput(("a",), "k", {"text": "one"})
            assert await keys(store, query="one") == ["k"]
    assert len(recorder.calls) == 4
    assert threading.current_thread() not in recorder.threads


async def test_functions_that_are_coroutines(server: ServerProcess, owner: str) -> None:
    loops = []

    async def aembed(texts: Sequence[str]) -> list[list[float]]:
        loops.append(asyncio.get_running_loop())
        await asyncio.sleep(0)
        return embed(texts)

    class Callable:
        async def __call__(self, texts: Sequence[str]) -> list[list[float]]:
            return await aembed(texts)

    for function in (aembed, Callable()):
        async with stored(server, owner, embed=function) as store:
            await store.aput(("a",), "k", {"text": "one"})
            assert await keys(store, query="one", limit=1) == ["k"]
        assert loops == [asyncio.get_running_loop()] * 2
        loops.clear()

        def waiting(function: Any = function) -> list[Any]:
            with GrpcStore(server.target, owner_id=owner, index=index(embed=function)) as store:
                store.put(("a",), "l", {"text": "two"})
                return [item.key for item in store.search(("a",), query="two", limit=1)]

        assert await asyncio.to_thread(waiting) == ["l"]
        assert len(loops) == 2
        loops.clear()


async def test_who_waits_embeds_by_itself(server: ServerProcess, owner: str) -> None:
    """An Embeddings that may not be used in two event loops is used in none."""
    recorder = Recorder()

    def waiting() -> threading.Thread:
        with GrpcStore(server.target, owner_id=owner, index=index(embed=recorder)) as store:
            store.put(("a",), "k", {"text": "one"})
            assert [item.key for item in store.search(("a",), query="one")] == ["k"]
        return threading.current_thread()

    waiter = await asyncio.to_thread(waiting)
    assert recorder.threads == {waiter}


@pytest.mark.parametrize(
    ("distance", "scores"),
    [
        ("cosine", {"same": 1.0, "twice": 1.0, "apart": 0.0}),
        ("l2", {"same": 0.0, "twice": -1.0, "apart": -math.sqrt(2)}),
        ("inner_product", {"twice": 2.0, "same": 1.0, "apart": 0.0}),
    ],
)
async def test_distances(server: ServerProcess, owner: str, distance: str, scores: dict[str, float]) -> None:
    async with stored(server, owner, distance_type=distance, fields=["text"]) as store:
        for key, text in (("same", "word"), ("twice", "word word"), ("apart", "another")):
            await store.aput(("a",), key, {"text": text})
        found = await store.asearch(("a",), query="word")
        assert {item.key: item.score for item in found} == pytest.approx(scores, abs=1e-6)
        assert [item.key for item in found] == list(scores)


async def test_page_fifty(server: ServerProcess, owner: str) -> None:
    def turned(texts: Sequence[str]) -> list[list[float]]:
        return [[math.cos(float(text) / 200), math.sin(float(text) / 200)] for text in texts]

    async with AsyncGrpcStore(
        server.target, owner_id=owner, index={"dims": 2, "embed": turned, "fields": ["n"]}
    ) as store:
        # Not in the order of their vectors, two of them in an item.
        numbers = [(number * 199) % 505 for number in range(505)]
        await store.abatch([PutOp(("a",), f"{n}", {"n": [n, 600]}, index=["n[*]"]) for n in numbers])
        page = await store.asearch(("a",), query="0", limit=10, offset=490)
        assert [item.key for item in page] == [str(n) for n in range(490, 500)]
        assert len(await store.asearch(("a",), query="0", limit=10, offset=500)) == 5
        assert [item.key for item in await store.asearch((), query="0", limit=1200)] == [str(n) for n in range(505)]


async def test_nothing_crosses_between_owners(server: ServerProcess, owner: str, other: str) -> None:
    async with stored(server, owner) as mine, stored(server, other) as theirs:
        await mine.aput(("a",), "mine", {"text": "far away"})
        await theirs.aput(("a",), "theirs", {"text": "near"})
        await theirs.aput(("a",), "mine", {"text": "near"})
        assert [(item.key, item.value) for item in await mine.asearch((), query="near")] == [
            ("mine", {"text": "far away"})
        ]
        assert set(await keys(theirs, query="far away")) == {"theirs", "mine"}
        await theirs.adelete(("a",), "mine")
        assert await keys(mine, query="near") == ["mine"]


async def test_items_whose_time_is_over_are_not_found(server: ServerProcess, owner: str) -> None:
    async with stored(server, owner) as store:
        await store.aput(("a",), "ended", {"text": "near"}, ttl=0.0001)
        await store.aput(("a",), "stays", {"text": "far"})
        await asyncio.sleep(0.02)
        assert await keys(store, query="near") == ["stays"]


async def test_embeddings_that_are_not_the_indexs(server: ServerProcess, owner: str) -> None:
    for function, message in (
        (lambda texts: embed(texts)[:-1], "0 vectors for 1 texts"),
        (lambda texts: [[1.0] * 3 for _ in texts], f"3 numbers, and its dims are {DIMS}"),
        (lambda texts: [[float("nan")] * DIMS for _ in texts], "vectors"),
    ):
        async with stored(server, owner, embed=function) as store:
            with pytest.raises(ValueError, match=message):
                await store.aput(("a",), "k", {"text": "one"})
            assert await keys(store) == []
    with pytest.raises(ValueError, match="distance_type"):
        stored(server, owner, distance_type="hamming")
    with pytest.raises(ValueError, match="embed"):
        AsyncGrpcStore(server.target, owner_id=owner, index={"dims": 3})


async def test_vectors_of_any_kind_of_number(server: ServerProcess, owner: str) -> None:
    def arrays(texts: Sequence[str]) -> list[Any]:
        return [array("f", vector(text)) if number % 2 else tuple(vector(text)) for number, text in enumerate(texts)]

    async with stored(server, owner, embed=arrays, fields=["a", "b"]) as store:
        await store.aput(("a",), "k", {"a": "one", "b": "two"})
        for word in ("one", "two"):
            assert [item.score for item in await store.asearch((), query=word)] == [1.0]


async def test_without_an_index_a_query_is_not_heeded(server: ServerProcess, owner: str) -> None:
    async with AsyncGrpcStore(server.target, owner_id=owner) as store:
        await store.aput(("a",), "1", {"text": "one"}, index=["text"])
        await store.aput(("a",), "2", {"text": "two"})
        assert [(item.key, item.score) for item in await store.asearch(("a",), query="one")] == [
            ("2", None),
            ("1", None),
        ]
    async with stored(server, owner) as indexed:
        assert await keys(indexed, query="one") == []
