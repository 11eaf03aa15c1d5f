"""Waking those who wait for something to happen to the queue or to a log.

A wake-up is a hint: whoever waits looks for itself when it is woken, and now and then anyway, so that one that is lost costs no more than
that pause. Within a process they come at once; a backend that other processes share tells those too (``relay``).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from storage_service.errors import ShuttingDown

#: Stands for every topic.
ALL: Final = "*"


def queue_of(owner_id: str | None) -> str:
    """The topic of those who claim runs of an owner, or of all."""
    return f"queue/{owner_id or ''}"


def log_of(kind: str, id: str) -> str:
    """The topic of what happens to one run or thread: to its log, its status and its being stopped."""
    return f"{kind}/{id}"


class Waiter:
    """One who waits on some topics."""

    __slots__ = ("_closed", "_woken")

    def __init__(self) -> None:
        self._woken = asyncio.Event()
        self._closed = False

    def wake(self) -> None:
        """Let it look."""
        self._woken.set()

    def end(self) -> None:
        """Let it give up."""
        self._closed = True
        self._woken.set()

    async def wait(self, seconds: float) -> None:
        """Wait for a wake-up since the last call, but no longer than so long. Raises ShuttingDown."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._woken.wait(), seconds)
        if self._closed:
            raise ShuttingDown()
        self._woken.clear()


class Wakeups:
    """Who waits in this process. ``relay`` is called with the topics that others are to hear of too, ``on_first`` when somebody waits."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Waiter]] = {}
        self._closed = False
        self.relay: Callable[[Iterable[str]], None] | None = None
        self.on_first: Callable[[], None] | None = None

    @contextlib.contextmanager
    def waiter(self, *topics: str) -> Iterator[Waiter]:
        """Wait on topics until the block ends. Raises ShuttingDown when nobody is to wait any more."""
        if self._closed:
            raise ShuttingDown()
        if self.on_first is not None:
            self.on_first()
        waiter = Waiter()
        for topic in topics:
            self._waiting.setdefault(topic, []).append(waiter)
        try:
            yield waiter
        finally:
            for topic in topics:
                waiters = self._waiting[topic]
                waiters.remove(waiter)
                if not waiters:
                    del self._waiting[topic]

    def tell(self, *topics: str) -> None:
        """Wake those who wait on these topics, here and in other processes."""
        self.hear(topics)
        if self.relay is not None:
            self.relay(topics)

    def hear(self, topics: Iterable[str]) -> None:
        """Wake those who wait here. Of those who wait for a run one is enough, who goes to the end of the line."""
        for topic in topics:
            if topic == ALL:
                for waiters in self._waiting.values():
                    for waiter in waiters:
                        waiter.wake()
                continue
            waiters = self._waiting.get(topic, [])
            if topic.startswith("queue/") and waiters:
                waiters.append(waiters.pop(0))
                waiters[-1].wake()
            else:
                for waiter in waiters:
                    waiter.wake()

    def close(self) -> None:
        """End every wait."""
        self._closed = True
        for waiters in self._waiting.values():
            for waiter in waiters:
                waiter.end()
