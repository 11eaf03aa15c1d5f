"""All that one owner has, as SQL."""

from __future__ import annotations

from typing import Any

from agentstorage.v1 import common_pb2
from agentstorage.v1.owner_pb2 import ResourceUsage
from storage_service.store import Access, Order, Page
from storage_service.store.postgres.rows import Values, message
from storage_service.store.postgres.threads import Threads
from storage_service.store.tables import (
    ASSISTANT_VERSIONS,
    ASSISTANTS,
    CHECKPOINT_BLOBS,
    CHECKPOINT_WRITES,
    CHECKPOINTS,
    CRONS,
    DISPLACED_ITEMS,
    ITEMS,
    RUN_EVENTS,
    RUNS,
    THREAD_STATES,
    THREADS,
    M,
    Table,
)

# A resource's tables: its own, and the one that hangs on it with the column that says on which row.
RESOURCES: dict[common_pb2.Resource, tuple[Table[Any], tuple[Table[Any], str] | None]] = {
    common_pb2.RESOURCE_ASSISTANTS: (ASSISTANTS, (ASSISTANT_VERSIONS, "assistant_id")),
    common_pb2.RESOURCE_THREADS: (THREADS, (THREAD_STATES, "thread_id")),
    common_pb2.RESOURCE_RUNS: (RUNS, (RUN_EVENTS, "run_id")),
    common_pb2.RESOURCE_ITEMS: (ITEMS, None),
    common_pb2.RESOURCE_CRONS: (CRONS, None),
}
# What hangs on the rows of a table, with the column that says on which: all that goes with them when they are deleted.
_PARTS: dict[Table[Any], tuple[tuple[Table[Any], str], ...]] = {
    table: (part,) for table, part in RESOURCES.values() if part is not None
}
_PARTS[THREADS] += tuple((table, "thread_id") for table in (CHECKPOINTS, CHECKPOINT_BLOBS, CHECKPOINT_WRITES))
_PARENTS = {part: (table, column) for table, parts in _PARTS.items() for part, column in parts}


class Owners(Threads):
    """The named operations on a whole owner."""

    async def usage(self) -> list[ResourceUsage]:
        values = Values()
        parts = []
        for resource, (table, _) in RESOURCES.items():
            own = self.visible(table, Access.OWN, values)
            alive = f" AND {table.alive}" if table.alive else ""
            rows = f"SELECT pg_column_size(t.*) AS bytes FROM {table.name} AS t WHERE {own}{alive}"
            if table is ITEMS:
                rows += f" UNION ALL SELECT pg_column_size(d.*) FROM {DISPLACED_ITEMS.name} AS d WHERE {own}"
            for part, column in _PARTS.get(table, ()):
                rows += (
                    f" UNION ALL SELECT pg_column_size(c.*) FROM {part.name} AS c"
                    f" WHERE c.{column} IN (SELECT id FROM {table.name} WHERE {own})"
                )
            parts.append(
                f"SELECT {int(resource)}, count(*), coalesce(sum(bytes), 0)::int8 FROM ({rows}) AS r{int(resource)}"
            )
        rows_found = await self.run(" UNION ALL ".join(parts), values, again=True, slow=True)
        return [ResourceUsage(resource=row[0], rows=row[1], bytes=row[2]) for row in sorted(rows_found)]

    async def erase(self, limit: int) -> int:
        for table, _ in RESOURCES.values():
            if table is THREADS:
                deleted = await self._erase_threads(limit)
            else:
                values = Values()
                own = self.visible(table, Access.OWN, values)
                # Rows are named by their place, so that a batch is found by the owner's index whatever the key is.
                chosen = f"ctid = ANY(ARRAY(SELECT ctid FROM {table.name} WHERE {own} LIMIT {values(limit)}))"
                statement = (
                    f"WITH gone AS (DELETE FROM {table.name} WHERE {chosen} RETURNING 1) SELECT count(*) FROM gone"
                )
                deleted = await self.number(statement, values, slow=True)
            if deleted:
                return deleted
        values = Values()
        own = self.visible(ITEMS, Access.OWN, values)
        chosen = f"ctid = ANY(ARRAY(SELECT ctid FROM {DISPLACED_ITEMS.name} WHERE {own} LIMIT {values(limit)}))"
        return await self.number(
            f"WITH gone AS (DELETE FROM {DISPLACED_ITEMS.name} WHERE {chosen} RETURNING 1) SELECT count(*) FROM gone",
            values,
            slow=True,
        )

    async def _erase_threads(self, limit: int) -> int:
        values = Values()
        statement = (
            f"SELECT id FROM {THREADS.name} WHERE {self.visible(THREADS, Access.OWN, values)} LIMIT {values(limit)}"
        )
        while found := await self.run(statement, values, slow=True):
            # Checkpoints that are written while this waits for a thread go with it too.
            if deleted := await self.delete_threads([id for (id,) in found]):
                return deleted
        return 0

    async def export(
        self, table: Table[M], after: tuple[Any, ...] | None, limit: int
    ) -> tuple[list[M], tuple[Any, ...] | None]:
        # One row more than asked tells whether there are more.
        page = Page(limit + 1, after=after)
        parent = _PARENTS.get(table)
        order = _EXPORT_ORDER.get(table.resource, Order(table.key, False))
        if parent is None:
            # Rows of any size: each goes as a message of its own where it must.
            statement, values = self.search(table, [], order, page, Access.OWN)
            rows = [message(table, row) for row in await self.run(statement, values, again=True, slow=True)]
        else:
            rows = await self._export_part(table, parent, order, page)
        if len(rows) <= limit:
            return rows, None
        return rows[:limit], tuple(getattr(rows[limit - 1], name) for name in order.fields)

    async def _export_part(self, table: Table[M], parent: tuple[Table[Any], str], order: Order, page: Page) -> list[M]:
        values = Values()
        owners, column = parent
        # Parent by parent, in the order of an index, so that a page reads no more than its own rows and those of one parent.
        keys = ['parents.parent COLLATE "C"', *(table.columns[name].sort_key for name in order.fields[1:])]
        own, rest = self.visible(owners, Access.OWN, values), "true"
        if page.after is not None:
            after = [values(value) for value in page.after]
            own += f' AND id COLLATE "C" >= {after[0]}'
            rest = f"({', '.join(keys)}) > ({', '.join(after)})"
        statement = (
            f"SELECT {table.select} FROM (SELECT id AS parent FROM {owners.name} WHERE {own}) AS parents"
            f" JOIN {table.name} ON {column} = parents.parent WHERE {rest} ORDER BY {', '.join(keys)} LIMIT {values(page.limit)}"
        )
        rows = await self.run(statement, values, again=True, slow=True)
        return [message(table, row) for row in rows]


_EXPORT_ORDER = {THREAD_STATES.resource: Order(("thread_id", "sequence"), False)}
