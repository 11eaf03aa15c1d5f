"""Time travel: look at what a thread went through, change a step of the past, and go on from there.

Start a server with `make serve`, then run this file. The target comes from AGENTSTORAGE_TARGET, else localhost:50051.
"""

from __future__ import annotations

import uuid
from typing import TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import START, StateGraph

from agentstorage.langgraph import GrpcSaver


class State(TypedDict, total=False):
    """A trip as it is planned."""

    city: str
    hotel: str
    plan: str


def find_hotel(state: State) -> State:
    """Take the first one."""
    return {"hotel": f"Hotel {state['city']}"}


def write_plan(state: State) -> State:
    """Put it together."""
    return {"plan": f"To {state['city']}, two nights in {state['hotel']}"}


def main() -> None:
    """Plan a trip, and then another one from the middle of the first."""
    builder = StateGraph(State).add_sequence([find_hotel, write_plan]).add_edge(START, "find_hotel")
    config: RunnableConfig = {"configurable": {"thread_id": str(uuid.uuid4())}}
    with GrpcSaver(owner_id="example-user") as saver:
        graph = builder.compile(checkpointer=saver)
        print("first plan:", graph.invoke({"city": "Paris"}, config)["plan"])

        # Each step left a checkpoint; the newest comes first.
        history = list(graph.get_state_history(config))
        for state in history:
            print("  next:", ", ".join(state.next) or "nothing", "| values:", state.values)

        # The moment before the plan was written, once as it was: write_plan runs again, find_hotel does not.
        before = next(state for state in history if state.next == ("write_plan",))
        print("once more:", graph.invoke(None, before.config)["plan"])

        # And once with another hotel: a new checkpoint beside the old ones, from which the graph goes on.
        fork = graph.update_state(before.config, {"hotel": "the Ritz"})
        print("forked:", graph.invoke(None, fork)["plan"])

        # Nothing was overwritten.
        print("still there:", graph.get_state(history[0].config).values["plan"])
        print("now:", graph.get_state(config).values["plan"])


if __name__ == "__main__":
    main()
