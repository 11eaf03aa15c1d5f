"""What is measured: methods of the API, each with an endless supply of requests, and the rows that they need."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.message import Message

from agentstorage.v1 import store_pb2, threads_pb2

#: Sends the bytes of a request to the method of a path and gives those of the answer.
Send = Callable[[str, bytes], Awaitable[bytes]]

THREADS = 1000
ITEMS = 1000
THREADS_WITH_STATES = 20
STATES_OF_EACH = 20
NAMESPACE = ("benchmark", "items")
_SEEDERS = 16
#: What texts are made of.
WORDS = ("the", "agent", "asked", "for", "weather", "in", "Paris", "a", "tool", "answered", "rain", "at", "noon")


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one owner that the operations read and change. ``document`` is the JSON object in each of them."""

    owner: str
    document: str
    threads: tuple[str, ...]
    keys: tuple[str, ...]

    @classmethod
    def of_size(cls, payload: int) -> Rows:
        """Rows whose document has ``payload`` bytes."""
        threads = tuple(str(uuid.UUID(int=payload << 32 | number, version=4)) for number in range(THREADS))
        return cls(f"benchmark-{payload}", document_of(payload), threads, tuple(f"key-{n:04}" for n in range(ITEMS)))

    def turned(self, part: float) -> Rows:
        """The same rows, beginning behind that part of them, so that two clients do not change the same row at the same moment."""
        threads, keys = int(len(self.threads) * part), int(len(self.keys) * part)
        return replace(
            self,
            threads=(*self.threads[threads:], *self.threads[:threads]),
            keys=(*self.keys[keys:], *self.keys[:keys]),
        )

    async def insert(self, send: Send) -> None:
        """Make the rows in a service that has none of them."""
        await _send_all(send, "ThreadService/CreateThread", [self._thread(thread) for thread in self.threads])
        await _send_all(send, "StoreService/PutItem", [self._item(key) for key in self.keys])
        states = [self._state(thread) for thread in self.threads[:THREADS_WITH_STATES] for _ in range(STATES_OF_EACH)]
        await _send_all(send, "ThreadService/AddThreadState", states)

    def _thread(self, thread: str, owner: str = "") -> Message:
        metadata = json.dumps({"graph_id": "agent", "user": thread[:8]})
        return threads_pb2.CreateThreadRequest(
            owner_id=owner or self.owner, thread_id=thread, metadata=metadata, values=self.document
        )

    def _item(self, key: str) -> Message:
        return store_pb2.PutItemRequest(owner_id=self.owner, namespace=NAMESPACE, key=key, value=self.document)

    def _state(self, thread: str) -> Message:
        return threads_pb2.AddThreadStateRequest(
            owner_id=self.owner, thread_id=thread, checkpoint_id=str(uuid.uuid4()), values=self.document, next=["tools"]
        )

    # The requests, endlessly.

    def get_thread(self) -> Iterator[Message]:
        """Read the threads in turn."""
        return self._each([threads_pb2.GetThreadRequest(owner_id=self.owner, thread_id=id) for id in self.threads])

    def get_item(self) -> Iterator[Message]:
        """Read the items in turn."""
        request = store_pb2.GetItemRequest
        return self._each([request(owner_id=self.owner, namespace=NAMESPACE, key=key) for key in self.keys])

    def create_thread(self) -> Iterator[Message]:
        """Create a new thread each time, of another owner, so that searches find the same rows whatever ran before."""
        owner = f"{self.owner}-new"
        while True:
            yield self._thread(str(uuid.uuid4()), owner)

    def update_thread(self) -> Iterator[Message]:
        """Replace the values of the threads in turn."""
        request = threads_pb2.UpdateThreadRequest
        return self._each([request(owner_id=self.owner, thread_id=id, values=self.document) for id in self.threads])

    def put_item(self) -> Iterator[Message]:
        """Replace the items in turn."""
        return self._each([self._item(key) for key in self.keys])

    def search_threads(self) -> Iterator[Message]:
        """Ask for the first page of ten, newest first."""
        return itertools.repeat(threads_pb2.SearchThreadsRequest(owner_id=self.owner, page_size=10))

    def add_thread_state(self) -> Iterator[Message]:
        """Add a state to the threads in turn, but not to those whose states are listed."""
        for thread in itertools.cycle(self.threads[THREADS_WITH_STATES:]):
            yield self._state(thread)

    def list_thread_states(self) -> Iterator[Message]:
        """Ask for the ten newest states of a thread, one thread after the other."""
        request = threads_pb2.ListThreadStatesRequest
        threads = self.threads[:THREADS_WITH_STATES]
        return self._each([request(owner_id=self.owner, thread_id=id, page_size=10) for id in threads])

    @staticmethod
    def _each(requests: list[Message]) -> Iterator[Message]:
        return itertools.cycle(requests)


@dataclass(frozen=True, slots=True)
class Operation:
    """A method that is called, with what it is called with, time after time.

    ``kind`` is read, write, page, or graph; ``grows`` says that each call leaves more rows.
    """

    path: str
    kind: str
    requests: Callable[[Rows], Iterator[Any]]
    grows: bool = False

    @property
    def name(self) -> str:
        """The method's name."""
        return self.path.rpartition("/")[2]


#: The methods of the API that are measured, by name.
METHODS = {
    operation.name: operation
    for operation in (
        Operation("ThreadService/GetThread", "read", Rows.get_thread),
        Operation("StoreService/GetItem", "read", Rows.get_item),
        Operation("ThreadService/CreateThread", "write", Rows.create_thread, grows=True),
        Operation("StoreService/PutItem", "write", Rows.put_item),
        Operation("ThreadService/UpdateThread", "write", Rows.update_thread),
        Operation("ThreadService/SearchThreads", "page", Rows.search_threads),
        Operation("ThreadService/AddThreadState", "write", Rows.add_thread_state, grows=True),
        Operation("ThreadService/ListThreadStates", "page", Rows.list_thread_states),
    )
}


def document_of(size: int) -> str:
    """A JSON object of ``size`` bytes as agents keep them: a list of messages in plain words, always the same."""
    seeded = random.Random(size)
    messages: list[dict[str, str]] = []
    while len(json.dumps({"messages": messages})) < size - 200:
        content = " ".join(seeded.choices(WORDS, k=20)) + f" {seeded.randrange(10**12)}"
        messages.append({"type": seeded.choice(("human", "ai", "tool")), "content": content})
    fill = size - len(json.dumps({"messages": messages, "fill": ""}))
    text = json.dumps({"messages": messages, "fill": "x" * max(fill, 0)})
    assert len(text) == size, f"{len(text)} bytes instead of {size}"
    return text


async def _send_all(send: Send, path: str, requests: list[Message]) -> None:
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            await send(f"/agentstorage.v1.{path}", request.SerializeToString())

    await asyncio.gather(*(work() for _ in range(_SEEDERS)))
