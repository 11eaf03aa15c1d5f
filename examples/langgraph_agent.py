"""A LangGraph agent with a tool, whose conversation goes on after a restart of this program, of the service and of Postgres.

Start a server with `make serve`, then run this file, each time with another question, and restart what you like in between:

    python examples/langgraph_agent.py "What is the weather in Paris?"
    python examples/langgraph_agent.py "And tomorrow?"

The target comes from AGENTSTORAGE_TARGET, else localhost:50051. The model is a fake that needs no network; with a real one, such as
`ChatOpenAI(model=...)`, nothing else changes.
"""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import tool
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition

from agentstorage.langgraph import AsyncGrpcSaver

FORECASTS = {("Paris", "today"): "rain", ("Paris", "tomorrow"): "sun", ("Rome", "today"): "sun"}


@tool
def weather(city: str, day: str) -> str:
    """Tell the weather of a city, today or tomorrow."""
    return f"{FORECASTS.get((city, day), 'fog')} in {city} {day}"


class FakeModel(BaseChatModel):
    """Asks the tool about the city that the conversation named last, and repeats what it says."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        """It knows its one tool."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            answer = AIMessage(f"There will be {last.text}.")
        else:
            # "And tomorrow?" names no city: it is the messages of earlier runs that do.
            said = " ".join(message.text for message in messages if isinstance(message, HumanMessage))
            cities = re.findall("Paris|Rome", said) or ["Paris"]
            day = "tomorrow" if "tomorrow" in last.text else "today"
            call = {"name": "weather", "args": {"city": cities[-1], "day": day}, "id": f"call-{len(messages)}"}
            answer = AIMessage("", tool_calls=[call])
        return ChatResult(generations=[ChatGeneration(message=answer)])


async def main(question: str) -> None:
    """Ask the agent, in the one conversation of this example."""
    model = FakeModel().bind_tools([weather])

    async def agent(state: MessagesState) -> dict[str, Any]:
        return {"messages": [await model.ainvoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("agent", agent)
    builder.add_node("tools", ToolNode([weather]))
    builder.add_edge(START, "agent")
    builder.add_conditional_edges("agent", tools_condition)
    builder.add_edge("tools", "agent")

    # The owner is who the agent works for: a user, or a tenant. Nobody else finds this conversation.
    async with AsyncGrpcSaver(owner_id="example-user") as saver:
        graph = builder.compile(checkpointer=saver)
        config: RunnableConfig = {"configurable": {"thread_id": "example-weather"}}
        state = await graph.ainvoke({"messages": [HumanMessage(question)]}, config)
    print("you:  ", question)
    print("agent:", state["messages"][-1].text)
    print("messages in this conversation:", len(state["messages"]))


if __name__ == "__main__":
    asyncio.run(main(" ".join(sys.argv[1:]) or "What is the weather in Paris?"))
