"""Long-term memory, searched by meaning: what one thread was told, another one finds.

Start a server with `make serve`, then run this file. The target comes from AGENTSTORAGE_TARGET, else localhost:50051. The embedding is a
small local function; any Embeddings of LangChain can take its place, such as `OpenAIEmbeddings()` with "dims": 1536.
"""

from __future__ import annotations

import asyncio
import math
import uuid
import zlib
from collections.abc import Sequence
from typing import TypedDict

from langgraph.graph import START, StateGraph
from langgraph.store.base import BaseStore, IndexConfig

from agentstorage import Connection
from agentstorage.langgraph import AsyncGrpcSaver, AsyncGrpcStore

DIMS = 512
MEMORIES = {
    "drink": "likes to drink green tea in the morning",
    "sport": "goes swimming on Tuesdays",
    "travel": "travels by train, never by plane",
}


def embed(texts: Sequence[str]) -> list[list[float]]:
    """Count the groups of four letters in each text: texts that share words, or parts of words, get similar vectors."""
    vectors = []
    for text in texts:
        vector = [0.0] * DIMS
        letters = f" {text.lower()} "
        for start in range(len(letters) - 3):
            vector[zlib.crc32(letters[start : start + 4].encode()) % DIMS] += 1.0
        length = math.hypot(*vector) or 1.0
        vectors.append([number / length for number in vector])
    return vectors


class State(TypedDict, total=False):
    """A question and its answer."""

    question: str
    answer: str


async def answer(state: State, *, store: BaseStore) -> State:
    """Answer with the memory that comes closest; a real agent would put the memories into its prompt."""
    found = await store.asearch(("memories",), query=state["question"], limit=1)
    return {"answer": found[0].value["text"]}


async def main() -> None:
    """Remember, then ask in new threads."""
    index: IndexConfig = {"dims": DIMS, "embed": embed, "fields": ["text"]}
    owner = f"example-{uuid.uuid4().hex[:8]}"
    # Checkpointer and store share a connection.
    async with Connection() as connection:
        saver = AsyncGrpcSaver(connection, owner_id=owner)
        store = AsyncGrpcStore(connection, owner_id=owner, index=index)
        graph = StateGraph(State).add_node(answer).add_edge(START, "answer").compile(checkpointer=saver, store=store)
        for key, text in MEMORIES.items():
            await store.aput(("memories",), key, {"text": text})
        for question in ("What would you like to drink?", "When do you swim?", "A plane or a train ticket?"):
            state = await graph.ainvoke({"question": question}, {"configurable": {"thread_id": str(uuid.uuid4())}})
            print(question, "->", state["answer"])
        # With scores, and only among some: filters compare fields of the value.
        for item in await store.asearch(("memories",), query="tea", filter={"text": {"$ne": MEMORIES["sport"]}}):
            print(f"{item.key:6} {item.score:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
