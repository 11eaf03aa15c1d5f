"""Graphs, and what is done with them: each scenario tells all that its user sees, in words that no run changes."""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.channels import DeltaChannel
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.func import entrypoint, task
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Overwrite, Send, StateSnapshot, interrupt

Saver = BaseCheckpointSaver[Any]
#: Does something with graphs on a checkpointer and a thread, and tells what came of it.
Scenario = Callable[[Saver, RunnableConfig], Awaitable[Any]]


class State(TypedDict, total=False):
    log: Annotated[list[Any], operator.add]
    answer: str
    items: list[int]


def told(snapshot: StateSnapshot) -> dict[str, Any]:
    """A snapshot without ids and times."""
    return {
        "values": snapshot.values,
        "next": snapshot.next,
        "source": (snapshot.metadata or {}).get("source"),
        "step": (snapshot.metadata or {}).get("step"),
        "has parent": snapshot.parent_config is not None,
        "tasks": [
            (
                task.name,
                repr(task.error),
                [item.value for item in task.interrupts],
                task.result,
                told(task.state) if isinstance(task.state, StateSnapshot) else task.state is not None,
            )
            for task in snapshot.tasks
        ],
        "interrupts": [item.value for item in snapshot.interrupts],
    }


async def history(graph: Any, config: RunnableConfig, **options: Any) -> list[dict[str, Any]]:
    """All that a thread went through, and which checkpoint came from which."""
    found = [item async for item in graph.aget_state_history(config, **options)]
    ids = [item.config["configurable"]["checkpoint_id"] for item in found]
    parents = [item.parent_config and item.parent_config["configurable"]["checkpoint_id"] for item in found]
    assert ids == sorted(ids, reverse=True)
    return [
        {**told(item), "parent": ids.index(parent) if parent in ids else None}
        for item, parent in zip(found, parents, strict=True)
    ]


async def interrupts(saver: Saver, config: RunnableConfig) -> Any:
    """A node asks twice, beside another one that asks once; the answers come one after another."""

    def ask(state: State) -> State:
        return {"log": [interrupt("name?"), interrupt({"age": "?"})]}

    def other(state: State) -> State:
        return {"log": [f"other {interrupt('other?')}"]}

    builder = StateGraph(State)
    builder.add_node("ask", ask)
    builder.add_node("other", other)
    builder.add_node("end", lambda state: {"answer": "done"})
    builder.add_edge(START, "ask")
    builder.add_edge(START, "other")
    builder.add_edge(["ask", "other"], "end")
    builder.add_edge("end", END)
    graph = builder.compile(checkpointer=saver)
    seen = [await graph.ainvoke({"log": ["begin"]}, config)]
    state = await graph.aget_state(config)
    seen.append(told(state))
    answers = {item.id: f"to {item.value}" for item in state.interrupts}
    seen.append(await graph.ainvoke(Command(resume=answers), config))
    seen.append(told(await graph.aget_state(config)))
    seen.append(await graph.ainvoke(Command(resume=7), config))
    for result in seen:
        if "__interrupt__" in result:
            result["__interrupt__"] = [item.value for item in result["__interrupt__"]]
    return seen, await history(graph, config)


async def breakpoints(saver: Saver, config: RunnableConfig) -> Any:
    """A graph stops before and after nodes, and its state is changed meanwhile."""
    builder = StateGraph(State)
    for name in ("a", "b", "c"):
        builder.add_node(name, lambda state, name=name: {"log": [name], "answer": name})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    builder.add_edge("b", "c")
    graph = builder.compile(checkpointer=saver, interrupt_before=["b"], interrupt_after=["b"])
    seen = [await graph.ainvoke({"log": ["begin"]}, config), told(await graph.aget_state(config))]
    await graph.aupdate_state(config, {"log": ["changed"]}, as_node="a")
    seen.append(await graph.ainvoke(None, config))
    seen.append(await graph.ainvoke(None, config))
    return seen, await history(graph, config), await history(graph, config, filter={"source": "update"}, limit=1)


async def subgraphs(saver: Saver, config: RunnableConfig, look: bool = True) -> Any:
    """A subgraph that asks, inside of another, and one that remembers from run to run; ``look`` is to look into them."""
    inner = StateGraph(State)
    inner.add_node("deep", lambda state: {"log": ["deep"]})
    inner.add_node("ask", lambda state: {"log": [interrupt("deep?")]})
    inner.add_edge(START, "deep")
    inner.add_edge("deep", "ask")
    middle = StateGraph(State)
    middle.add_node("inner", inner.compile())
    middle.add_edge(START, "inner")
    memory = StateGraph(State)
    memory.add_node("count", lambda state: {"log": [len(state["log"])]})
    memory.add_edge(START, "count")
    builder = StateGraph(State)
    builder.add_node("middle", middle.compile())
    builder.add_node("memory", memory.compile(checkpointer=True))
    builder.add_edge(START, "middle")
    builder.add_edge("middle", "memory")
    graph = builder.compile(checkpointer=saver)
    seen: list[Any] = []
    for run in range(2):
        await graph.ainvoke({"log": [f"run {run}"]}, config)
        seen.append(told(await graph.aget_state(config, subgraphs=look)))
        seen.append(await graph.ainvoke(Command(resume=f"answer {run}"), config))
    return seen, await history(graph, config)


async def time_travel(saver: Saver, config: RunnableConfig) -> Any:
    """A thread goes on from an earlier checkpoint, once as it was and once changed."""
    builder = StateGraph(State)
    builder.add_node("a", lambda state: {"log": [f"a{len(state['log'])}"]})
    builder.add_node("b", lambda state: {"log": [f"b{state.get('answer', '')}"]})
    builder.add_edge(START, "a")
    builder.add_edge("a", "b")
    graph = builder.compile(checkpointer=saver)
    seen: list[Any] = [await graph.ainvoke({"log": ["one"]}, config), await graph.ainvoke({"log": ["two"]}, config)]
    past = [item async for item in graph.aget_state_history(config)]
    before_b = next(item for item in reversed(past) if item.next == ("b",))
    seen.append(await graph.ainvoke(None, before_b.config))
    fork = await graph.aupdate_state(before_b.config, {"answer": "!"})
    seen.append(await graph.ainvoke(None, fork))
    seen.append(told(await graph.aget_state(before_b.config)))
    seen.append(await history(graph, config, before=before_b.config))
    return seen, await history(graph, config)


async def errors(saver: Saver, config: RunnableConfig) -> Any:
    """One of three parallel tasks fails when the others have ended; what they did is not done again."""
    done: list[str] = []

    async def others_are_kept() -> bool:
        found = await saver.aget_tuple(config)
        writes = (found and found.pending_writes) or ()
        return {"a", "c"} <= {value[0] for _, channel, value in writes if channel == "log"}

    def node(name: str) -> Any:
        async def run(state: State) -> State:
            done.append(name)
            if name == "b" and done.count("b") == 1:
                while not await others_are_kept():  # noqa: ASYNC110 - the service tells nobody
                    await asyncio.sleep(0.01)
                raise ValueError("b fails once")
            return {"log": [name]}

        return run

    builder = StateGraph(State)
    for name in ("a", "b", "c"):
        builder.add_node(name, node(name))
        builder.add_edge(START, name)
        builder.add_edge(name, "end")
    builder.add_node("end", lambda state: {"answer": "done"})
    graph = builder.compile(checkpointer=saver)
    try:
        await graph.ainvoke({"log": ["begin"]}, config)
        raise AssertionError("the first run must fail")
    except ValueError as error:
        failure = str(error)
    state = told(await graph.aget_state(config))
    result = await graph.ainvoke(None, config)
    return failure, state, result, sorted(done), await history(graph, config)


async def sends(saver: Saver, config: RunnableConfig) -> Any:
    """A node starts as many tasks as there are items."""
    builder = StateGraph(State)
    builder.add_node("work", lambda item: {"log": [item["number"] ** 2]})
    builder.add_node("end", lambda state: {"answer": str(sum(state["log"]))})
    builder.add_conditional_edges(
        START, lambda state: [Send("work", {"number": number}) for number in state["items"]], ["work"]
    )
    builder.add_edge("work", "end")
    graph = builder.compile(checkpointer=saver)
    return await graph.ainvoke({"items": [*range(15)], "log": []}, config), await history(graph, config)


async def functions(saver: Saver, config: RunnableConfig) -> Any:
    """The functional API: tasks that call tasks, thirty deep, an answer from outside, and what is kept from run to run."""

    @task
    async def descend(depth: int) -> int:
        return 1 + await descend(depth - 1) if depth else 0

    @entrypoint(checkpointer=saver)
    async def run(name: str, *, previous: int | None = None) -> Any:
        depth = await descend(30)
        answer = interrupt(f"{name}?")
        runs = (previous or 0) + 1
        return entrypoint.final(value=[depth, answer, runs], save=runs)

    seen: list[Any] = []
    for name in ("first", "second"):
        asked = await run.ainvoke(name, config)
        seen.append([item.value for item in asked["__interrupt__"]])
        seen.append(await run.ainvoke(Command(resume=f"answer to {name}"), config))
    return seen, await history(run, config)


async def nested(saver: Saver, config: RunnableConfig) -> Any:
    """Subgraphs in each other, thirty deep, the innermost of which asks."""
    inner = StateGraph(State)
    inner.add_node("ask", lambda state: {"log": [interrupt("deep?")]})
    inner.add_edge(START, "ask")
    for depth in range(30):
        outer = StateGraph(State)
        outer.add_node(f"level_{depth}", inner.compile())
        outer.add_edge(START, f"level_{depth}")
        inner = outer
    graph = inner.compile(checkpointer=saver)
    await graph.ainvoke({"log": []}, config)
    return await graph.ainvoke(Command(resume="yes"), config), await history(graph, config)


def added(state: list[Any] | None, writes: Sequence[list[Any]]) -> list[Any]:
    """The reducer of a delta channel."""
    return [*(state or []), *(entry for write in writes for entry in write)]


class Delta(TypedDict, total=False):
    log: Annotated[list[Any], DeltaChannel(added, snapshot_frequency=4)]
    rare: Annotated[list[Any], DeltaChannel(added, snapshot_frequency=1000)]
    turn: int


class Frequent(Delta, total=False):
    rare: Annotated[list[Any], DeltaChannel(added, snapshot_frequency=3)]


def delta_graph(saver: Saver, state: type[Any] = Delta) -> Any:
    """A graph whose channels keep what is added to them."""

    def both(name: str) -> Any:
        return lambda state: {
            "log": [f"{name}{state['turn']}:{len(state['log'])}"],
            "rare": [name] * (state["turn"] % 2),
        }

    builder = StateGraph(state)
    for name in ("a", "b", "c"):
        builder.add_node(name, both(name))
    builder.add_edge(START, "a")
    builder.add_edge(START, "b")
    builder.add_edge(["a", "b"], "c")
    return builder.compile(checkpointer=saver)


async def deltas(saver: Saver, config: RunnableConfig) -> Any:
    """Channels that keep what is added to them, with a snapshot now and then: run, look back, fork, change."""
    graph = delta_graph(saver)
    seen: list[Any] = [
        await graph.ainvoke({"log": [f"in{turn}"], "rare": ["r"], "turn": turn}, config) for turn in range(6)
    ]
    past = [item async for item in graph.aget_state_history(config)]
    for item in past[3], past[9], past[-2]:
        seen.append(told(await graph.aget_state(item.config)))
    fork = await graph.aupdate_state(past[5].config, {"log": ["forked"]}, as_node="c")
    seen.append(told(await graph.aget_state(fork)))
    seen.append(await graph.ainvoke({"log": ["on"], "turn": 9}, fork))
    await graph.aupdate_state(config, {"log": Overwrite(["over"])}, as_node="c")
    seen.append(await graph.ainvoke({"log": ["end"], "turn": 10}, config))
    return seen, await history(graph, config)


SCENARIOS: dict[str, Scenario] = {
    scenario.__name__: scenario
    for scenario in (
        interrupts,
        breakpoints,
        subgraphs,
        time_travel,
        errors,
        sends,
        deltas,
        functions,
        nested,
    )
}
