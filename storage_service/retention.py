"""Retention: deleting threads, checkpoints and items that have outlived their time, in the background and by a command.

A pass goes in batches of transactions that take a fraction of a second, and rests between batches as long as they took, so that it never
has more than half of one connection. Any number of processes may be at it at once (``store/postgres/retention.py``). Threads and items
whose time is over are found by an index, every minute; for old checkpoints, and for values that no checkpoint uses, all threads are gone
through, by one of all processes, once a day.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from storage_service.caller import AllOwners, Scope
from storage_service.errors import Failure
from storage_service.settings import Settings
from storage_service.store import Access, Order, Page, Store
from storage_service.store.retention import MOST_ROWS, Swept, id_before
from storage_service.store.tables import THREADS
from storage_service.store.where import Equals, Where

log = logging.getLogger(__name__)

_DAY: Final = 86400.0
# A batch begins small and grows while it takes less than the first, and shrinks when it takes more than the second (seconds).
_FIRST_ROWS, _QUICK, _SLOW = 20, 0.1, 0.5

# Sweeps up to so many rows; None when there are no more.
Step = Callable[[int], Awaitable[Swept | None]]


async def in_batches(step: Step, *, rests: bool = False) -> Swept:
    """Do a step until there is no more for it to do."""
    limit, swept = _FIRST_ROWS, Counter[str]()
    while True:
        began = time.monotonic()
        done = await step(limit)
        if done is None:
            return swept
        swept += done
        took = time.monotonic() - began
        if took < _QUICK:
            limit = min(MOST_ROWS, 2 * limit)
        elif took > _SLOW:
            limit = max(1, limit // 2)
        if rests:
            await asyncio.sleep(took)


@dataclass(frozen=True)
class Sweep:
    """What a pass looks at: the rows of a scope, or of one of its threads alone."""

    store: Store
    scope: Scope = AllOwners()  # noqa: RUF009 - it has no state
    thread_id: str = ""
    rests: bool = False

    async def threads(self) -> Swept:
        """End the time of threads whose time is over."""

        async def step(limit: int) -> Swept | None:
            # Numbers that are all 0 are something: a thread with a part of its checkpoints left.
            return await self.store.seen_by(self.scope).sweep_threads(limit, self.thread_id) or None

        return await in_batches(step, rests=self.rests)

    async def items(self) -> Swept:
        """Delete the items whose time is over; a thread has none."""

        async def step(limit: int) -> Swept | None:
            swept = await self.store.seen_by(self.scope).sweep_items(limit)
            return swept if swept.total() else None

        return Counter() if self.thread_id else await in_batches(step, rests=self.rests)

    async def checkpoints(self, before: str) -> Swept:
        """Delete the checkpoints made before a time that are not needed ("" for none), and values that no checkpoint uses."""

        async def sweep(thread_ids: Sequence[str]) -> Swept:
            return await self.store.seen_by(self.scope).sweep_checkpoints(thread_ids, before)

        return await self.through_threads(sweep)

    async def through_threads(self, work: Callable[[Sequence[str]], Awaitable[Swept]]) -> Swept:
        """Do work on all threads, page by page."""
        where: list[Where] = [Equals("thread_id", self.thread_id)] if self.thread_id else []
        fields = ("created_at", "thread_id")
        after: tuple[Any, ...] | None = None

        async def step(limit: int) -> Swept | None:
            nonlocal after
            page = Page(limit, after=after, fields=frozenset(fields))
            rows = await self.store.seen_by(self.scope).find(THREADS, where, Order(fields, False), page, Access.OWN)
            if not rows:
                return None
            after = (rows[-1].created_at, rows[-1].thread_id)
            return await work([row.thread_id for row in rows])

        return await in_batches(step, rests=self.rests)


def before_days(days: float) -> str:
    """What the ids of checkpoints that are older than so many days are less than."""
    return id_before(time.time() - days * _DAY)


class Sweeper:
    """Sweeps in the background, as long as a server runs."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._seconds = settings.sweep_seconds
        self._days = settings.checkpoint_days
        self._sweeping: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, unless it is switched off."""
        if self._seconds:
            self._sweeping = asyncio.create_task(self._sweep(), name="sweep")

    async def stop(self) -> None:
        """End, also in the middle of a transaction, which then has not been."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.wait({self._sweeping}, timeout=1)

    async def _sweep(self) -> None:
        while True:
            # Replicas that started together do not sweep together.
            await asyncio.sleep(self._seconds * random.uniform(0.5, 1.5))  # noqa: S311 - spreads the replicas
            await self._pass()

    async def _pass(self) -> None:
        sweep = Sweep(self._store, rests=True)
        swept: Swept = Counter()
        for part in (sweep.threads, sweep.items, partial(self._checkpoints, sweep)):
            if self._store.trouble():
                break
            try:
                swept += await part()
            except Failure as failure:
                log.warning("the sweep was broken off: %s", failure.message)
            # What is wrong with one part must not end the others, nor what comes after.
            except Exception as error:
                log.error("the sweep failed", exc_info=error)
        if swept:
            log.info("swept", extra={"fields": dict(swept)})

    async def _checkpoints(self, sweep: Sweep) -> Swept:
        if not await self._store.claim("checkpoints", _DAY):
            return Counter()
        return await sweep.checkpoints(before_days(self._days) if self._days else "")
