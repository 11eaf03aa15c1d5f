"""The stores from threads, from event loops, from runs of graphs, and at the end of a process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypedDict

import pytest
from langgraph.graph import START, StateGraph
from langgraph.runtime import Runtime

from agentstorage import Connection
from agentstorage.langgraph import AsyncGrpcStore, GrpcStore
from tests.langgraph.stores import index, keys
from tests.service import ServerProcess


class State(TypedDict):
    text: str


def remember(state: State, runtime: Runtime[None]) -> State:
    assert runtime.store is not None
    runtime.store.put(("memories",), "last", {"text": state["text"]})
    return {"text": "".join(item.value["text"] for item in runtime.store.search(("memories",)))}


async def aremember(state: State, runtime: Runtime[None]) -> State:
    assert runtime.store is not None
    await runtime.store.aput(("memories",), "last", {"text": state["text"]})
    return {"text": "".join(item.value["text"] for item in await runtime.store.asearch(("memories",)))}


def graph(store: Any, node: Any) -> Any:
    return StateGraph(State).add_node("remember", node).add_edge(START, "remember").compile(store=store)


def test_every_method_from_many_threads(server: ServerProcess, owner: str) -> None:
    with GrpcStore(server.target, owner_id=owner, index=index(fields=["text"])) as store:

        def work(number: int) -> None:
            space = ("t", str(number))
            for turn in range(5):
                store.put(space, "k", {"text": f"number {number}", "turn": turn})
                item = store.get(space, "k")
                assert item is not None
                assert item.value["turn"] == turn
            [found] = store.search(space, query=f"number {number}")
            assert found.score == 1.0
            store.delete(space, "k")
            assert store.get(space, "k") is None

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(work, range(48)))
        assert store.list_namespaces() == []
        store.put(("t",), "k", {})
        assert store.list_namespaces(prefix=("t",)) == [("t",)]


async def test_both_forms_of_both_stores(server: ServerProcess, owner: str) -> None:
    with GrpcStore(server.target, owner_id=owner) as store:
        await store.aput(("a",), "1", {})
        # Blocks, as it says it does.
        assert [item.key for item in store.search(())] == ["1"]
    async with AsyncGrpcStore(server.target, owner_id=owner) as store_of_loop:
        for call in (
            lambda: store_of_loop.get(("a",), "1"),
            lambda: store_of_loop.put(("a",), "2", {}),
            lambda: store_of_loop.search(()),
            lambda: store_of_loop.delete(("a",), "1"),
            lambda: store_of_loop.list_namespaces(),
        ):
            with pytest.raises(asyncio.InvalidStateError, match="await"):
                call()
        assert await asyncio.to_thread(store_of_loop.list_namespaces) == [("a",)]
        assert await keys(store_of_loop) == ["1"]


async def test_one_store_in_several_event_loops(server: ServerProcess, owner: str) -> None:
    async with AsyncGrpcStore(server.target, owner_id=owner) as store:

        def elsewhere(key: str) -> None:
            async def work() -> None:
                await store.aput(("a",), key, {})
                assert key in await keys(store, limit=100)

            asyncio.run(work())

        await asyncio.gather(
            *(asyncio.to_thread(elsewhere, str(number)) for number in range(3)), store.aput(("b",), "k", {})
        )
        assert sorted(await keys(store)) == ["0", "1", "2", "k"]


async def test_in_a_graph(server: ServerProcess, owner: str) -> None:
    async with AsyncGrpcStore(server.target, owner_id=owner) as store:
        for node in (remember, aremember):
            assert await graph(store, node).ainvoke({"text": node.__name__}) == {"text": node.__name__}
    with GrpcStore(server.target, owner_id=owner) as waiting:
        result = await asyncio.to_thread(graph(waiting, remember).invoke, {"text": "waits"})
        assert result == {"text": "waits"}


async def test_the_owner_is_the_runs_where_the_store_has_none(server: ServerProcess, owner: str, other: str) -> None:
    async with AsyncGrpcStore(server.target) as store:
        for node in (remember, aremember):
            runs = [
                graph(store, node).ainvoke({"text": name}, {"configurable": {"owner_id": name}})
                for name in (owner, other)
            ]
            assert await asyncio.gather(*runs) == [{"text": owner}, {"text": other}]
        with pytest.raises(ValueError, match="no owner_id"):
            await graph(store, aremember).ainvoke({"text": "x"})
        with pytest.raises(ValueError, match="no owner_id"):
            await store.asearch(())
    # A store that has one keeps to it.
    async with AsyncGrpcStore(server.target, owner_id=owner) as store:
        config: Any = {"configurable": {"owner_id": other}}
        assert await graph(store, aremember).ainvoke({"text": "mine"}, config) == {"text": "mine"}
    async with Connection(server.target, owner_id=other) as connection:
        assert [item.value for item in await AsyncGrpcStore(connection).asearch(())] == [{"text": other}]
        assert [item.value for item in await AsyncGrpcStore(connection, owner_id=owner).asearch(())] == [
            {"text": "mine"}
        ]
    with pytest.raises(ValueError, match="owner_id"):
        AsyncGrpcStore(server.target, owner_id="")


def run(script: str) -> str:
    """The output of a script; it must end by itself, soon and without a word to its errors."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        env=dict(os.environ),
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_store_that_nobody_closes_keeps_no_process(server: ServerProcess, owner: str) -> None:
    script = f"""
        from agentstorage.langgraph import GrpcStore
        store = GrpcStore({server.target!r}, owner_id={owner!r})
        store.put(("a",), "k", {{"n": 1}})
        print(store.get(("a",), "k").value)
    """
    assert run(script) == "{'n': 1}\n"


def test_a_process_that_is_forked_has_a_loop_of_its_own() -> None:
    script = """
        import os, threading, warnings
        from agentstorage.langgraph import loop

        async def where():
            return threading.get_native_id()

        # Later Pythons say that a fork beside threads may end badly, which is what this is about.
        warnings.simplefilter("ignore", DeprecationWarning)
        here = loop.run(where())
        assert here == loop.run(where())
        child = os.fork()
        if child == 0:
            os._exit(0 if loop.run(where()) != here else 1)
        print(os.waitpid(child, 0)[1])
    """
    assert run(script) == "0\n"


def test_a_wait_for_oneself_is_refused() -> None:
    script = """
        from agentstorage.langgraph import loop

        async def inner():
            return 1

        async def outer():
            return loop.run(inner())

        try:
            loop.run(outer())
        except RuntimeError as error:
            print(error)
    """
    assert "never end" in run(script)
