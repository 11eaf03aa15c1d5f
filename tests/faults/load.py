"""Callers that keep calling while something breaks, and what must hold of what they saw: nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.faults.servers import until
from tests.service import CallFailed, GrpcApi


@dataclass
class Load:
    """Writers and readers of one owner's items. Times are those of ``time.monotonic``."""

    api: GrpcApi
    owner: str
    attempted: set[str] = field(default_factory=set)
    acked: set[str] = field(default_factory=set)
    failures: list[tuple[float, str, CallFailed]] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)
    _stopped: bool = False
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Load:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def start(self, writers: int = 6, readers: int = 3) -> None:
        """Begin to call."""
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(writers)]
        self._tasks += [asyncio.create_task(self._read()) for _ in range(readers)]

    async def stop(self) -> None:
        """Let the calls in flight end and make no more."""
        self._stopped = True
        await asyncio.gather(*self._tasks)

    async def until_more(self, count: int, seconds: float = 20) -> None:
        """Wait until so many more calls have succeeded."""
        wanted = len(self.successes) + count

        async def are_there() -> bool:
            return len(self.successes) >= wanted

        await until(are_there, seconds)

    def first_success_after(self, moment: float) -> float:
        """The seconds from a moment to the first call that succeeded after it."""
        return min((when for when in self.successes if when >= moment), default=float("inf")) - moment

    def codes(self, kind: str = "") -> Counter[str]:
        """The statuses of the calls that failed, "read" or "write" or both."""
        return Counter(failure.code.name for _, what, failure in self.failures if what.startswith(kind))

    def lost(self, url: str) -> set[str]:
        """The acknowledged keys that are not in the database. AssertionError for keys in it that nobody wrote."""
        with psycopg.connect(url) as conn:
            cursor = conn.execute("SELECT key FROM langgraph_server.store_items WHERE owner_id = %s", (self.owner,))
            found = {str(key) for (key,) in cursor}
        assert found <= self.attempted
        return self.acked - found

    async def _write(self, writer: int) -> None:
        number = 0
        while not self._stopped:
            key = f"{writer}-{number}"
            number += 1
            self.attempted.add(key)
            if await self._try("write", "PutItem", namespace=["load"], key=key, value=f'{{"n": {number}}}'):
                self.acked.add(key)

    async def _read(self) -> None:
        while not self._stopped:
            await self._try("read", "SearchItems", namespace_prefix=["load"], limit=5)

    async def _try(self, what: str, method: str, **fields: Any) -> bool:
        started = time.monotonic()
        try:
            await self.api.call(method, owner_id=self.owner, **fields)
        except CallFailed as failure:
            self.failures.append((time.monotonic() - started, what, failure))
            await asyncio.sleep(0.02)
            return False
        self.successes.append(time.monotonic())
        return True
