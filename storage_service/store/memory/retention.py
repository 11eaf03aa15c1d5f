"""Deleting what has outlived its time, in dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

from agentstorage.v1.threads_pb2 import (
    THREAD_STATUS_ERROR,
    THREAD_STATUS_IDLE,
    THREAD_STATUS_INTERRUPTED,
    THREAD_TTL_STRATEGY_KEEP_LATEST,
    Thread,
)
from storage_service import jsontext
from storage_service.store import Access
from storage_service.store.memory.checkpoints import Checkpoints, prune
from storage_service.store.memory.histories import blob_keys
from storage_service.store.memory.rows import Record
from storage_service.store.retention import AGAIN_SECONDS, QUIET_SECONDS, Swept, id_before, in_use_until
from storage_service.store.tables import ITEMS, THREAD_STATES, THREADS
from storage_service.store.where import Equals, OneOf, Where

_ENDED = (THREAD_STATUS_IDLE, THREAD_STATUS_INTERRUPTED, THREAD_STATUS_ERROR)


class Retention(Checkpoints):
    """The named operations of retention."""

    def _now(self) -> float:
        return self.tables.now().ToMicroseconds() / 1e6

    def _is_left_alone(self, thread: Record[Thread]) -> bool:
        """Whether nobody is at work on a thread."""
        return thread.row.status in _ENDED and not self.in_flight(thread)

    async def sweep_threads(self, limit: int, thread_id: str = "") -> Swept:
        where: list[Where] = [Equals("thread_id", thread_id)] if thread_id else []
        expired = (
            thread
            for thread in self.records(THREADS, where, Access.OWN)
            if not self.tables.is_alive(thread.row) and self._is_left_alone(thread)
        )
        return Counter(self._end(thread) for thread in list(islice(expired, limit)))

    def _end(self, thread: Record[Thread]) -> str:
        """End the time of a thread; says what became of it."""
        row, now = thread.row, self._now()
        history = self.history(row.thread_id)
        newest = max(history.checkpoints.values(), key=lambda checkpoint: checkpoint.checkpoint_id, default=None)
        until = newest and in_use_until(
            now, row.ttl.minutes, newest.checkpoint_id, jsontext.text_at(newest.checkpoint, "ts")
        )
        if until:
            row.expires_at.FromMicroseconds(round(until * 1e6))
            return "renewed"
        if row.ttl.strategy != THREAD_TTL_STRATEGY_KEEP_LATEST:
            self.drop_thread(thread)
            return "threads"
        for state in self.states(row.thread_id)[1:]:
            del self.tables.of(THREAD_STATES)[(state.sequence,)]
        prune(history)
        row.expires_at.FromMicroseconds(round((now + max(AGAIN_SECONDS, row.ttl.minutes * 60)) * 1e6))
        return "pruned"

    async def sweep_items(self, limit: int) -> Swept:
        items = self.tables.of(ITEMS)
        ended = [
            key
            for key, record in items.items()
            if self.visible(ITEMS, record, Access.OWN) and not self.tables.is_alive(record.row)
        ]
        for key in ended[:limit]:
            del items[key]
        return Counter(items=len(ended[:limit]))

    async def sweep_checkpoints(self, thread_ids: Sequence[str], before: str) -> Swept:
        swept: Swept = Counter()
        quiet = self._now() - QUIET_SECONDS
        for thread in self.records(THREADS, [OneOf("thread_id", tuple(thread_ids))], Access.OWN):
            if not self._is_left_alone(thread):
                continue
            history = self.history(thread.row.thread_id)
            if before:
                swept["checkpoints"] += prune(history, before)
            used = {key for row in history.checkpoints.values() for key in blob_keys(row)}
            is_quiet = all(id < id_before(quiet) for _, id in history.checkpoints)
            if is_quiet and thread.row.updated_at.ToMicroseconds() < quiet * 1e6:
                for key in history.blobs.keys() - used:
                    del history.blobs[key]
                    swept["blobs"] += 1
        return swept
