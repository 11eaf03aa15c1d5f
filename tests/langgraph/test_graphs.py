"""Graphs do the same on the service as in LangGraph's memory."""

from __future__ import annotations

import asyncio
import functools
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

from agentstorage.langgraph import AsyncGrpcSaver, GrpcSaver
from tests.langgraph.checkpoints import config
from tests.langgraph.ciphers import Mask
from tests.langgraph.graphs import SCENARIOS, Frequent, delta_graph, sends, subgraphs, time_travel, told
from tests.service import ServerProcess


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_same_as_in_memory(saver: AsyncGrpcSaver, thread: str, name: str) -> None:
    where: RunnableConfig = {"configurable": {"thread_id": thread}}
    expected = await SCENARIOS[name](InMemorySaver(), where)
    assert await SCENARIOS[name](saver, where) == expected


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_same_with_values_that_nobody_can_read(
    server: ServerProcess, owner: str, thread: str, name: str
) -> None:
    where: RunnableConfig = {"configurable": {"thread_id": thread}}
    expected = await SCENARIOS[name](InMemorySaver(), where)
    async with AsyncGrpcSaver(server.target, owner_id=owner, serde=EncryptedSerializer(Mask())) as saver:
        assert await SCENARIOS[name](saver, where) == expected


@pytest.mark.parametrize("name", SCENARIOS)
async def test_the_same_with_the_owner_in_the_config(server: ServerProcess, owner: str, thread: str, name: str) -> None:
    where: RunnableConfig = {"configurable": {"thread_id": thread, "owner_id": owner}}
    # To look into subgraphs LangGraph makes configs of its own, with the thread alone.
    scenario = functools.partial(subgraphs, look=False) if name == "subgraphs" else SCENARIOS[name]
    expected = await scenario(InMemorySaver(), where)
    async with AsyncGrpcSaver(server.target) as saver:
        assert await scenario(saver, where) == expected


@pytest.mark.parametrize("durability", ["sync", "async", "exit"])
@pytest.mark.parametrize("name", ["sends", "deltas"])
async def test_the_same_however_durable(saver: AsyncGrpcSaver, thread: str, name: str, durability: Any) -> None:
    async def run(own: Any) -> Any:
        if name == "sends":
            return await sends(own, {"configurable": {"thread_id": thread}})
        graph = delta_graph(own)
        for turn in range(5):
            given = {"log": [f"in{turn}"], "rare": ["r"], "turn": turn}
            await graph.ainvoke(given, config(thread), durability=durability)
        return [told(item) async for item in graph.aget_state_history(config(thread))]

    assert await run(saver) == await run(InMemorySaver())


async def test_the_same_without_an_event_loop(waiting_saver: GrpcSaver, thread: str) -> None:
    def run(own: Any) -> Any:
        graph = delta_graph(own)
        seen = [graph.invoke({"log": [f"in{turn}"], "rare": ["r"], "turn": turn}, config(thread)) for turn in range(5)]
        return seen, [told(item) for item in graph.get_state_history(config(thread))]

    expected = run(InMemorySaver())
    assert await asyncio.to_thread(run, waiting_saver) == expected


async def test_another_process_goes_on(server: ServerProcess, owner: str, thread: str) -> None:
    where: RunnableConfig = {"configurable": {"thread_id": thread}}
    async with AsyncGrpcSaver(server.target, owner_id=owner) as first:
        await time_travel(first, where)
        begun = await delta_graph(first).ainvoke({"log": ["x"], "turn": 1}, config(f"{thread}-delta"))
    async with AsyncGrpcSaver(server.target, owner_id=owner) as second:
        found = await delta_graph(second).aget_state(config(f"{thread}-delta"))
        assert {"log": begun["log"], "turn": 1}.items() <= found.values.items()


async def test_delta_channels_outlive_pruning_and_copying(saver: AsyncGrpcSaver, thread: str) -> None:
    graph = delta_graph(saver, Frequent)
    for turn in range(7):
        await graph.ainvoke({"log": [f"in{turn}"], "rare": ["r"], "turn": turn}, config(thread))
    before = await graph.aget_state(config(thread))
    await saver.acopy_thread(thread, f"{thread}-copy")
    many = len([item async for item in saver.alist(config(thread))])
    await saver.aprune([thread])
    assert len([item async for item in saver.alist(config(thread))]) < many
    for own in thread, f"{thread}-copy":
        assert (await graph.aget_state(config(own))).values == before.values
        result = await graph.ainvoke({"log": ["more"], "turn": 8}, config(own))
        assert result["log"][: len(before.values["log"])] == before.values["log"]
        assert result["rare"] == before.values["rare"]
    assert len([item async for item in saver.alist(config(f"{thread}-copy"))]) == many + 4
