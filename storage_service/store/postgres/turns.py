"""Few places for work that waits for others' locks, so that it leaves the connections to everybody else."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator


class Turns:
    """At most ``places`` wait at once, and at most ``each`` of one owner, so that no owner's locked row holds up another's."""

    def __init__(self, places: int, each: int) -> None:
        self._places = asyncio.Semaphore(places)
        self._each = each
        self._owners: dict[str | None, asyncio.Semaphore] = {}
        self._users: Counter[str | None] = Counter()

    @contextlib.asynccontextmanager
    async def of(self, owner: str | None) -> AsyncIterator[None]:
        """A place for an owner's work, or for work of no single owner, as soon as there is one."""
        turn = self._owners.setdefault(owner, asyncio.Semaphore(self._each))
        self._users[owner] += 1
        try:
            async with turn, self._places:
                yield
        finally:
            self._users[owner] -= 1
            if not self._users[owner]:
                del self._users[owner], self._owners[owner]
