"""One thread, two runtimes: one calls the service, the other opens the same database itself with LangGraph's AsyncPostgresSaver.

So a fleet can move to the service one runtime at a time: both keep checkpoints in the same rows, and neither needs to know of the other.
Start a server with `make serve`, which prints its DATABASE_URL, then run this file with that in the environment. The target comes from
AGENTSTORAGE_TARGET, else localhost:50051.
"""

from __future__ import annotations

import asyncio
import operator
import os
import sys
import uuid
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.graph import START, StateGraph

from agentstorage.langgraph import AsyncGrpcSaver


class State(TypedDict):
    """What the thread remembers."""

    log: Annotated[list[str], operator.add]


async def run(saver: BaseCheckpointSaver[Any], thread_id: str, text: str) -> None:
    """Add a text to the thread, by a graph on this checkpointer, and print all that the thread remembers."""
    builder = StateGraph(State)
    builder.add_node("answer", lambda state: {"log": [f"answer {len(state['log'])}"]})
    builder.add_edge(START, "answer")
    graph = builder.compile(checkpointer=saver)
    state = await graph.ainvoke({"log": [text]}, {"configurable": {"thread_id": thread_id}})
    print(type(saver).__name__, "remembers", state["log"])


async def main(database_url: str) -> None:
    """Let the two runtimes take turns."""
    thread_id = str(uuid.uuid4())
    # The thread begins on the service, so that it belongs to an owner.
    async with AsyncGrpcSaver(owner_id="example-user") as saver:
        await run(saver, thread_id, "over the service")
    async with AsyncPostgresSaver.from_conn_string(database_url) as saver:
        # The service has made the tables: no saver.setup().
        await run(saver, thread_id, "past the service")
    async with AsyncGrpcSaver(owner_id="example-user") as saver:
        await run(saver, thread_id, "over the service again")
    async with AsyncGrpcSaver(owner_id="somebody-else") as saver:
        found = await saver.aget_tuple({"configurable": {"thread_id": thread_id}})
        print("another owner sees", found)


if __name__ == "__main__":
    if "DATABASE_URL" not in os.environ:
        sys.exit("set DATABASE_URL to the service's database: `make serve` prints it when it starts")
    asyncio.run(main(os.environ["DATABASE_URL"]))
