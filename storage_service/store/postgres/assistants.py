"""Assistants and their versions, as SQL."""

from __future__ import annotations

from collections.abc import Sequence

from agentstorage.v1.assistants_pb2 import Assistant
from storage_service.caller import SYSTEM_OWNER
from storage_service.store import Access
from storage_service.store.change import Change
from storage_service.store.postgres.rows import Rows, Statement, Values, message
from storage_service.store.postgres.threads import DELETE_THREAD_ROWS, FREE_THREADS
from storage_service.store.tables import ASSISTANT_VERSIONS, ASSISTANTS, CRONS, RUNS, THREADS
from storage_service.store.where import Equals, Where

_CONTENT = "graph_id, name, description, config, context, metadata"
# The version that is about to be replaced, kept whole. A version that is kept already stays as it was kept.
_KEEP_FORMER = (
    f"INSERT INTO {ASSISTANT_VERSIONS.name} (assistant_id, version, {_CONTENT}, created_at, updated_at)"
    f" SELECT id, version, {_CONTENT}, created_at, updated_at FROM former ON CONFLICT DO NOTHING"
)

# Only what is the assistant's owner's own goes with it: another owner may have named the same id.
_OWN = "owner_id IS NOT DISTINCT FROM assistant.owner_id"
# Of the system's assistants everybody may have crons and runs: they go, or end, with it.
_CONCERNED = f"({{0}}.{_OWN} OR assistant.owner_id = '{SYSTEM_OWNER}')"
_RUNS_IN_FLIGHT = f"r.assistant_id = assistant.id AND {_CONCERNED.format('r')} AND r.status IN ('pending', 'running')"
_OWN_THREADS = (
    f"t.{_OWN}"
    # The first characters find the thread by its index, which holds no more of a text that anybody can make long.
    ' AND "left"(t.metadata ->> \'assistant_id\', 255) = "left"(assistant.id, 255)'
    " AND t.metadata ->> 'assistant_id' = assistant.id"
)


class Assistants(Rows):
    """The named operations on assistants."""

    async def update_assistant(
        self, assistant_id: str, changes: Sequence[Change], expected_version: int | None
    ) -> Assistant | None:
        values = Values()
        where: list[Where] = [Equals("assistant_id", assistant_id)]
        if expected_version is not None:
            where.append(Equals("version", expected_version))
        conditions = self.conditions(ASSISTANTS, where, Access.OWN, values)
        terms = [change.sql(ASSISTANTS, values) for change in changes]
        # Locking in "former" reads the newest row, whatever the statement's snapshot; last_version lives in the row for that reason.
        statement = (
            f"WITH former AS (SELECT * FROM {ASSISTANTS.name} WHERE {conditions} FOR UPDATE),"
            f" kept AS ({_KEEP_FORMER}),"
            f" changed AS (UPDATE {ASSISTANTS.name} SET {''.join(term + ', ' for term in terms)}"
            ' "version" = greatest("version", "last_version") + 1, "last_version" = greatest("version", "last_version") + 1,'
            f' "updated_at" = now() WHERE id = (SELECT id FROM former) RETURNING *)'
            f" SELECT {ASSISTANTS.select} FROM changed"
        )
        rows = await self.run(statement, values)
        return message(ASSISTANTS, rows[0]) if rows else None

    async def set_latest_version(self, assistant_id: str, version: int) -> Assistant | None:
        values = Values()
        named = [Equals("assistant_id", assistant_id)]
        conditions = self.conditions(ASSISTANTS, named, Access.OWN, values)
        wanted = values(version)
        statement = (
            f"WITH former AS (SELECT * FROM {ASSISTANTS.name} WHERE {conditions} FOR UPDATE),"
            f" kept AS ({_KEEP_FORMER}),"
            f" wanted AS (SELECT version, {_CONTENT} FROM {ASSISTANT_VERSIONS.name}"
            f" WHERE assistant_id = (SELECT id FROM former) AND version = {wanted}"
            f" UNION ALL SELECT version, {_CONTENT} FROM former WHERE version = {wanted} LIMIT 1),"
            f" changed AS (UPDATE {ASSISTANTS.name} AS a SET version = wanted.version, graph_id = wanted.graph_id,"
            " name = wanted.name, description = wanted.description, config = wanted.config, context = wanted.context,"
            " metadata = (wanted.metadata - 'owner') || CASE WHEN a.metadata ? 'owner'"
            " THEN jsonb_build_object('owner', a.metadata -> 'owner') ELSE '{}' END,"
            " last_version = greatest(a.version, a.last_version), updated_at = now()"
            " FROM wanted WHERE a.id = (SELECT id FROM former) RETURNING a.*)"
            f" SELECT {ASSISTANTS.select} FROM changed"
        )
        # Behind a lock, for a version that an update keeps meanwhile is one to be found.
        rows = await self.behind_locks([self.lock(ASSISTANTS, named, Access.OWN)], statement, values)
        return message(ASSISTANTS, rows[0]) if rows else None

    async def list_versions(
        self, assistant_id: str, where: Sequence[Where], limit: int, offset: int, before: int | None
    ) -> list[Assistant]:
        values = Values()
        conditions = self.conditions(ASSISTANTS, [Equals("assistant_id", assistant_id)], Access.SEARCH, values)
        terms = [term.sql(ASSISTANT_VERSIONS, values) for term in where]
        if before is not None:
            terms.append(f"version < {values(before)}")
        statement = (
            f"WITH current AS (SELECT * FROM {ASSISTANTS.name} WHERE {conditions}),"
            f" versions AS (SELECT id AS assistant_id, version, {_CONTENT}, created_at, updated_at FROM current"
            f" UNION ALL SELECT v.assistant_id, v.version, v.graph_id, v.name, v.description, v.config, v.context, v.metadata,"
            f" v.created_at, v.updated_at FROM {ASSISTANT_VERSIONS.name} AS v JOIN current ON v.assistant_id = current.id"
            " WHERE v.version <> current.version)"
            f" SELECT {ASSISTANT_VERSIONS.select} FROM versions WHERE {' AND '.join(terms) or 'true'}"
            f" ORDER BY version DESC LIMIT {values(limit)} OFFSET {values(offset)}"
        )
        return [message(ASSISTANT_VERSIONS, row) for row in await self.run_page(statement, values)]

    async def delete_assistant(self, assistant_id: str, delete_threads: bool) -> bool:
        values = Values()
        named = [Equals("assistant_id", assistant_id)]
        conditions = self.conditions(ASSISTANTS, named, Access.OWN, values)
        threads = (
            f" gone AS (DELETE FROM {THREADS.name} AS t USING assistant WHERE {_OWN_THREADS} RETURNING t.id, t.owner_id),"
            f" {DELETE_THREAD_ROWS},"
        )
        statement = (
            f"WITH assistant AS (DELETE FROM {ASSISTANTS.name} WHERE {conditions} RETURNING id, owner_id),"
            f"{threads if delete_threads else ''}"
            f" deleted_crons AS (DELETE FROM {CRONS.name} AS c USING assistant"
            f" WHERE c.assistant_id = assistant.id AND {_CONCERNED.format('c')}),"
            f" ended AS (UPDATE {RUNS.name} AS r SET status = 'interrupted', updated_at = now(), finished_at = now()"
            f" FROM assistant WHERE {_RUNS_IN_FLIGHT}"
            f"{' AND NOT EXISTS (SELECT FROM gone WHERE gone.id = r.thread_id)' if delete_threads else ''}"
            f" RETURNING r.id, r.thread_id, r.owner_id), {FREE_THREADS} SELECT count(*) FROM assistant"
        )
        locks = [self.lock(ASSISTANTS, named, Access.OWN), self._lock_of_threads(assistant_id, delete_threads)]
        rows = await self.behind_locks(locks, statement, values)
        return int(rows[0][0]) > 0

    def _lock_of_threads(self, assistant_id: str, delete_threads: bool) -> Statement:
        """The statement that locks the threads that go, or may be freed, with an assistant; that is locked before."""
        values = Values()
        conditions = self.conditions(ASSISTANTS, [Equals("assistant_id", assistant_id)], Access.OWN, values)
        threads = f" UNION ALL SELECT t.id FROM {THREADS.name} AS t, assistant WHERE {_OWN_THREADS}"
        return (
            f"WITH assistant AS (SELECT id, owner_id FROM {ASSISTANTS.name} WHERE {conditions}),"
            f" concerned AS (SELECT r.thread_id AS id FROM {RUNS.name} AS r, assistant WHERE {_RUNS_IN_FLIGHT}"
            f"{threads if delete_threads else ''})"
            f" SELECT FROM {THREADS.name} WHERE id IN (SELECT id FROM concerned) ORDER BY id FOR UPDATE",
            values,
        )
