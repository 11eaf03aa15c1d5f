"""Python's half of the graph of the TypeScript client's test of shared threads.

``python -m tests.langgraph.portable_graph TARGET OWNER THREAD WORD`` begins with a word, or answers with it what waits, and prints the
state as JSON.
"""

from __future__ import annotations

import asyncio
import json
import operator
import sys
from typing import Annotated, Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, Overwrite, Send, interrupt

from agentstorage.langgraph import AsyncGrpcSaver, PortableSerializer


class State(TypedDict):
    """What the nodes say."""

    log: Annotated[list[str], operator.add]


def said(name: str) -> dict[str, Any]:
    """Say that a node ran, and where."""
    return {"log": [f"{name} in python"]}


def fan(_: State) -> list[Send]:
    """Three tasks for one node."""
    return [Send("work", {"number": number}) for number in range(3)]


def work(task: dict[str, Any]) -> dict[str, Any]:
    """One of them asks."""
    return said(f"work {task['number']}{interrupt('work?') if task['number'] == 2 else ''}")


async def main(target: str, owner: str, thread: str, word: str) -> None:
    """Go on with a thread."""
    builder = StateGraph(State)
    builder.add_node("left", lambda _: said("left"))
    builder.add_node("right", lambda _: said("right"))
    builder.add_node("ask", lambda _: said(f"ask {interrupt('ask?')}"))
    builder.add_node("both", lambda _: said("both"))
    of_tasks: Any = work  # whose state is a task's, not the graph's
    builder.add_node("work", of_tasks)
    builder.add_node("last", lambda state: {"log": Overwrite([*state["log"], "last in python"])}, defer=True)
    builder.add_edge(START, "left")
    builder.add_edge(START, "right")
    builder.add_edge("right", "ask")
    builder.add_edge(["left", "ask"], "both")
    builder.add_conditional_edges("both", fan, ["work"])
    builder.add_edge("work", "last")
    builder.add_edge("last", END)
    async with AsyncGrpcSaver(target, owner_id=owner, serde=PortableSerializer()) as saver:
        graph = builder.compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": thread}}
        given: Any = Command(resume=word) if (await graph.aget_state(config)).next else {"log": [word]}
        await graph.ainvoke(given, config)
        state = await graph.aget_state(config)
    sys.stdout.write(json.dumps({"log": state.values["log"], "next": state.next}))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
