"""What a server does for the queue by itself: taking back leases that have lapsed, firing crons, and deleting old events.

Any number of processes may be at it at once: each lease, tick and log is taken by one of them. A failure of one pass ends that pass alone.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from agentstorage.v1.crons_pb2 import TICK_OUTCOME_DISABLED, TickOutcome
from storage_service.caller import AllOwners
from storage_service.errors import Failure
from storage_service.services.firing import FIRED_CRONS, fire_due
from storage_service.services.run_queue import take_back
from storage_service.settings import Settings
from storage_service.store import Store

log = logging.getLogger(__name__)

# Leases, and logs, that one pass takes.
_LEASES, _LOGS, _THREADS = 100, 10, 20
# The most crons that one line of the log names.
_NAMED_CRONS: Final = 10
# How long a thread that a cron made for a run is kept after its end, so that those who follow it hear of that.
_KEPT_SECONDS: Final = 60.0
_DAY, _EVENT_SECONDS = 86400.0, 60.0
# How a pass that has more to do goes on: after so short a pause.
_REST: Final = 0.05


class Upkeep:
    """Looks after the queue in the background, as long as a server runs."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        # Crons that could not be fired, and until when they are left alone.
        self._put_off: dict[str, float] = {}

    def start(self) -> None:
        """Begin what is not switched off."""
        settings = self._settings
        for name, seconds, work in (
            ("leases", settings.lease_sweep_seconds, self._leases),
            ("crons", settings.cron_seconds, self._crons),
            ("events", _EVENT_SECONDS if settings.event_days else 0.0, self._events),
        ):
            if seconds:
                self._tasks.append(asyncio.create_task(self._repeat(name, seconds, work), name=name))

    async def stop(self) -> None:
        """End, also in the middle of a transaction, which then has not been."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)

    async def _repeat(self, name: str, seconds: float, work: Callable[[], Awaitable[bool]]) -> None:
        """Do work again and again; it says whether there is more to do at once."""
        has_more = False
        while True:
            # Replicas that started together do not look together.
            await asyncio.sleep(_REST if has_more else seconds * random.uniform(0.5, 1.5))  # noqa: S311 - spreads the replicas
            has_more = False
            if self._store.trouble():
                continue
            try:
                has_more = await work()
            except Failure as failure:
                log.warning("looking after %s was broken off: %s", name, failure.message)
            # What is wrong with one pass must not end those to come.
            except Exception as error:
                log.error("looking after %s failed", name, exc_info=error)

    async def _leases(self) -> bool:
        lapsed = await take_back(self._store, AllOwners(), _LEASES, self._settings.limits.run_attempts)
        count = len(lapsed.requeued) + len(lapsed.failed) + len(lapsed.stopped)
        if count:
            kinds = {name: len(getattr(lapsed, name)) for name in ("requeued", "failed", "stopped")}
            log.info("leases that lapsed were taken back", extra={"fields": kinds})
        ended = await self._store.seen_by(AllOwners()).sweep_threads_of_crons(_THREADS, _KEPT_SECONDS)
        return count >= _LEASES or ended >= _THREADS

    async def _crons(self) -> bool:
        now = time.monotonic()
        self._put_off = {cron_id: until for cron_id, until in self._put_off.items() if until > now}
        fired = await fire_due(self._store, AllOwners(), FIRED_CRONS, self._put_off)
        if fired:
            outcomes = Counter(TickOutcome.Name(one.outcome).removeprefix("TICK_OUTCOME_").lower() for one in fired)
            # One that is switched off names an assistant or a thread that is not there.
            fields: dict[str, object] = dict(outcomes)
            if disabled := [one.cron_id for one in fired if one.outcome == TICK_OUTCOME_DISABLED]:
                fields["disabled_crons"] = disabled[:_NAMED_CRONS]
            log.log(logging.WARNING if disabled else logging.INFO, "crons fired", extra={"fields": fields})
        return len(fired) >= FIRED_CRONS

    async def _events(self) -> bool:
        deleted = await self._store.seen_by(AllOwners()).sweep_events(_LOGS, self._settings.event_days * _DAY)
        if deleted:
            log.info("old events were deleted", extra={"fields": {"events": deleted}})
        return deleted > 0
