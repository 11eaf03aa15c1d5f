"""A LangGraph agent that Python and TypeScript run in turn, in one conversation: either goes on where the other stopped.

Start a server with `make serve`. Then say something, each time to the other program; both answer what waits, or begin a new trip:

    python examples/shared_agent.py Rome
    npm --prefix clients/typescript run --silent example -- yes
    npm --prefix clients/typescript run --silent example -- Paris
    python examples/shared_agent.py no

(`make setup-node` installs what the second needs; it is clients/typescript/examples/shared-agent.ts.)
A word before `--` names another conversation: `python examples/shared_agent.py summer -- Rome`.

The two graphs have the same nodes and channels, and the serializer is the portable one on both sides. The target comes from
AGENTSTORAGE_TARGET, else localhost:50051.
"""

from __future__ import annotations

import asyncio
import operator
import sys
from typing import Annotated, Any

from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.types import Command, interrupt

from agentstorage.langgraph import AsyncGrpcSaver, PortableSerializer


class State(MessagesState):
    """The conversation, and where all its trips went."""

    visited: Annotated[set[str], operator.or_]


def propose(state: State) -> dict[str, Any]:
    """Ask before anything is booked."""
    return {"messages": [AIMessage(f"Shall I book a night in {state['messages'][-1].text}?")]}


def approve(state: State) -> dict[str, Any]:
    """Wait for the answer, for as long as it takes, in whichever language it comes."""
    return {"messages": [HumanMessage(interrupt(state["messages"][-1].text))]}


def book(state: State) -> dict[str, Any]:
    """Do what the answer says."""
    *_, city, _question, answer = [message.text for message in state["messages"]]
    if answer != "yes":
        return {"messages": [AIMessage(f"No {city} then.")]}
    return {"messages": [AIMessage(f"Booked {city}.")], "visited": {str(city)}}


async def main(thread_id: str, said: str) -> None:
    """Say something to the agent."""
    builder = StateGraph(State)
    builder.add_node("propose", propose)
    builder.add_node("approve", approve)
    builder.add_node("book", book)
    builder.add_edge(START, "propose")
    builder.add_edge("propose", "approve")
    builder.add_edge("approve", "book")
    builder.add_edge("book", END)

    async with AsyncGrpcSaver(owner_id="example-user", serde=PortableSerializer()) as saver:
        graph = builder.compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": thread_id}}
        before = await graph.aget_state(config)
        print(
            f"python found {len(before.values.get('messages', []))} messages, next: {', '.join(before.next) or 'nothing'}"
        )
        given: Any = Command(resume=said) if before.next else {"messages": [HumanMessage(said)]}
        await graph.ainvoke(given, config)
        after = await graph.aget_state(config)
    for message in after.values["messages"]:
        print(f"  {message.type}: {message.text}")
    print(
        f"visited: {', '.join(sorted(after.values['visited'])) or 'nothing'}; next: {', '.join(after.next) or 'nothing'}"
    )


if __name__ == "__main__":
    name, _, rest = " ".join(sys.argv[1:]).rpartition("-- ")
    asyncio.run(main(name.strip() or "example-trips", rest or "Rome"))
