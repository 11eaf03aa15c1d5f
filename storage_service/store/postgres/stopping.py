"""Stopping runs, as SQL: a run that is leased is asked to stop, and any other is stopped, or deleted, at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from agentstorage.v1.runs_pb2 import CANCEL_ACTION_ROLLBACK, CancelAction
from storage_service.store import Access
from storage_service.store.postgres.adapt import Texts
from storage_service.store.postgres.checkpoints import Checkpoints, undoing
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.rows import Statement, Values
from storage_service.store.postgres.threads import FREE_THREADS
from storage_service.store.tables import RUNS, THREADS
from storage_service.store.where import Where

#: The condition that a worker has a run, whether its lease has lapsed or not: exactly that of the index.
LEASED: Final = '"status" = \'running\' AND "worker_id" IS NOT NULL'


class Stopping(Checkpoints):
    """What ends runs for others than their workers."""

    async def cancel_runs(self, where: Sequence[Where], action: CancelAction) -> tuple[list[str], list[str]]:
        async def work(transaction: Transaction) -> tuple[list[str], list[str]]:
            values = Values()
            conditions = self.conditions(RUNS, where, Access.OWN, values)
            flight = f"SELECT id FROM {RUNS.name} WHERE {conditions} AND {_IN_FLIGHT}"
            found = (await transaction.run_all([self.lock_threads_of(where), (flight, values)]))[1]
            return await self.stop_runs(transaction, [id for (id,) in found], action)

        return await self.atomic(work)

    def lock_threads_of(self, where: Sequence[Where], strength: str = "UPDATE") -> Statement:
        """The statement that locks the threads of runs. What ends a run does so behind it, and no admission comes between."""
        values = Values()
        named = f"SELECT thread_id FROM {RUNS.name} WHERE {self.conditions(RUNS, where, Access.OWN, values)}"
        own = self.visible(THREADS, Access.OWN, values)
        return f"SELECT FROM {THREADS.name} WHERE {own} AND id IN ({named}) ORDER BY id FOR {strength}", values

    @staticmethod
    async def stop_runs(
        transaction: Transaction, run_ids: Sequence[str], action: CancelAction
    ) -> tuple[list[str], list[str]]:
        """Stop those of runs that are in flight, behind the locks of their threads, whoever's they are.

        Gives those that are stopped, and those whose workers are asked to.
        """
        # Locked first, so that a lease that lapses meanwhile is seen as it is.
        found = await transaction.run(_LOCKING, Values([Texts(run_ids)]))
        leased = [id for id, is_leased in found if is_leased]
        others = [id for id, is_leased in found if not is_leased]
        if action == CANCEL_ACTION_ROLLBACK:
            await undo_runs(transaction, others)
        elif others:
            await transaction.run(_INTERRUPTING, Values([Texts(others)]))
        if leased:
            word = "rollback" if action == CANCEL_ACTION_ROLLBACK else "interrupt"
            await transaction.run(_ASKING, Values((Texts(leased), word)))
        return sorted(others), sorted(leased)


async def undo_runs(transaction: Transaction, run_ids: Sequence[str]) -> None:
    """Delete runs with their events and checkpoints, and free their threads, behind the locks of these."""
    if run_ids:
        values = Values([Texts(run_ids)])
        await transaction.run_all([(undoing("$1"), values), (_DELETING, values)])


_IN_FLIGHT: Final = "\"status\" IN ('pending', 'running')"
_LOCKING: Final = (
    f"SELECT id, {LEASED} FROM {RUNS.name} WHERE id = ANY ($1::text[]) AND {_IN_FLIGHT} ORDER BY id FOR UPDATE"
)
_INTERRUPTING: Final = (
    f"WITH ended AS (UPDATE {RUNS.name} SET status = 'interrupted', finished_at = now(), updated_at = now()"
    f" WHERE id = ANY ($1::text[]) RETURNING id, thread_id, owner_id), {FREE_THREADS} SELECT count(*) FROM ended"
)
_DELETING: Final = (
    f"WITH ended AS (DELETE FROM {RUNS.name} WHERE id = ANY ($1::text[])"
    f" RETURNING id, thread_id, owner_id), {FREE_THREADS} SELECT count(*) FROM ended"
)
# What was asked for more stays so.
_ASKING: Final = (
    f"UPDATE {RUNS.name} SET cancel = CASE WHEN cancel = 'rollback' THEN cancel ELSE $2 END, updated_at = now()"
    " WHERE id = ANY ($1::text[])"
)
