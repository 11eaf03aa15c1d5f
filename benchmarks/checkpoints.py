"""What is measured of LangGraph's checkpointers: their methods, and a whole graph that runs on them."""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import uuid
from collections.abc import Iterator
from typing import Any, Final

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, ChannelVersions, Checkpoint, CheckpointMetadata
from langgraph.checkpoint.base.id import uuid6
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks.load import CallOnce
from benchmarks.operations import WORDS, Operation, Rows

Saver = BaseCheckpointSaver[Any]
#: What LangGraph gives to ``aput``.
_Put = tuple[RunnableConfig, Checkpoint, CheckpointMetadata, ChannelVersions]

#: The supersteps of the graph, each with two tasks.
SUPERSTEPS: Final = 10
_GRAPH = "Graph"
_ANSWER = "It rains in Paris until noon; take the train at ten, the meeting room is booked."
# A message has so many characters, or a conversation so many messages, whichever makes fewer messages.
_CHARACTERS, _MESSAGES = 120, 24
_SEEDERS = 16


async def insert(saver: Saver, rows: Rows) -> None:
    """Make two checkpoints in each thread that is there to be read, the newer one with what a task wrote before it was interrupted."""
    waiting = iter(_read(rows))

    async def work() -> None:
        for thread in waiting:
            parent = None
            for step in (1, 2):
                put = _put(rows, thread, parent, f"00000000-0000-6000-8000-{step:012}", step)
                parent = await saver.aput(*put)
            assert parent
            await saver.aput_writes(parent, _writes(rows), str(uuid.UUID(int=step, version=4)))

    await asyncio.gather(*(work() for _ in range(_SEEDERS)))


def calling(saver: Saver, operation: Operation, rows: Rows) -> CallOnce:
    """What makes one call of an operation."""
    called = graph(saver) if operation.path.startswith(_GRAPH) else saver
    method = getattr(called, operation.name)
    requests = operation.requests(rows)
    return lambda: method(*next(requests))


def graph(saver: Saver) -> Any:
    """A graph of two chains of nodes that run side by side, each adding a message: supersteps of two tasks."""
    builder = StateGraph(MessagesState)

    async def answer(state: MessagesState) -> dict[str, Any]:
        return {"messages": [AIMessage(_ANSWER)]}

    for chain in ("research", "write"):
        before = START
        for step in range(SUPERSTEPS):
            name = f"{chain}_{step}"
            builder.add_node(name, answer)
            builder.add_edge(before, name)
            before = name
    return builder.compile(checkpointer=saver)


@functools.cache
def messages_of(size: int) -> list[AnyMessage]:
    """A conversation whose texts have ``size`` characters, always the same."""
    seeded = random.Random(size)
    each = max(_CHARACTERS, size // _MESSAGES)
    text = " ".join(seeded.choices(WORDS, k=size))[:size]
    parts = [text[start : start + each] for start in range(0, size, each)]
    kinds = itertools.cycle((HumanMessage, AIMessage))
    return [
        kind(part, id=str(uuid.UUID(int=seeded.getrandbits(128), version=4)))
        for kind, part in zip(kinds, parts, strict=False)
    ]


# The arguments, endlessly. Threads take turns, so that no two callers are in one thread at the same time.


def _gets(rows: Rows) -> Iterator[tuple[RunnableConfig]]:
    """Read the newest checkpoint of the threads in turn."""
    return itertools.cycle([(_config(thread),) for thread in _read(rows)])


def _puts(rows: Rows) -> Iterator[_Put]:
    """Go on with threads that nothing reads: each checkpoint follows the one before it in its thread."""
    parents: dict[str, RunnableConfig | None] = dict.fromkeys(_written(rows))
    for step in itertools.count(1):
        for thread, parent in parents.items():
            put = _put(rows, thread, parent, str(uuid6(clock_seq=step)), step)
            parents[thread] = _config(thread, put[1]["id"])
            yield put


def _put_writes(rows: Rows) -> Iterator[tuple[RunnableConfig, list[tuple[str, Any]], str]]:
    """Keep what a task of a new checkpoint wrote."""
    writes = _writes(rows)
    for thread in itertools.cycle(_written(rows)):
        yield _config(thread, str(uuid6())), writes, str(uuid.uuid4())


def _runs(rows: Rows) -> Iterator[tuple[dict[str, Any], RunnableConfig]]:
    """Run the graph in a new thread each time."""
    messages = messages_of(len(rows.document))
    while True:
        yield {"messages": messages}, {"configurable": {"thread_id": str(uuid.uuid4())}}


def _put(rows: Rows, thread: str, parent: RunnableConfig | None, id: str, step: int) -> _Put:
    """A checkpoint as a graph of agent and tools makes it after a step: one channel of bytes, three simple ones, three of them new."""
    version, before = (f"{number:032}.{random.random():016}" for number in (step + 1, step))
    new: ChannelVersions = {"messages": version, "turns": version, "branch:to:agent": version}
    values = {
        "messages": messages_of(len(rows.document)),
        "turns": step,
        "topic": "the weather in Paris",
        "branch:to:agent": None,
    }
    checkpoint: Checkpoint = {
        "v": 4,
        "id": id,
        "ts": "2026-01-01T12:00:00.000000+00:00",
        "channel_values": values,
        "channel_versions": {"__start__": before, "topic": before, "branch:to:tools": before, **new},
        "versions_seen": {
            "__input__": {},
            "__start__": {"__start__": before},
            "agent": {"branch:to:agent": before},
            "tools": {"branch:to:tools": before},
        },
        "updated_channels": sorted(new),
    }
    return parent or _config(thread), checkpoint, {"source": "loop", "step": step, "parents": {}}, new


def _writes(rows: Rows) -> list[tuple[str, Any]]:
    return [("messages", messages_of(len(rows.document))), ("branch:to:agent", None)]


def _config(thread: str, id: str | None = None) -> RunnableConfig:
    place = {"thread_id": thread, "checkpoint_ns": ""}
    return {"configurable": place | ({"checkpoint_id": id} if id else {})}


def _read(rows: Rows) -> tuple[str, ...]:
    return rows.threads[: len(rows.threads) // 2]


def _written(rows: Rows) -> tuple[str, ...]:
    return rows.threads[len(rows.threads) // 2 :]


#: The operations of checkpointers by name.
CHECKPOINTS: Final = {
    operation.name: operation
    for operation in (
        Operation("Checkpointer/aput", "write", _puts, grows=True),
        Operation("Checkpointer/aput_writes", "write", _put_writes, grows=True),
        Operation("Checkpointer/aget_tuple", "read", _gets),
        Operation(f"{_GRAPH}/ainvoke", "graph", _runs, grows=True),
    )
}
