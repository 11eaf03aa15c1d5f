"""Items of the long-term store, as SQL: each operation is one or two statements and a way to read their rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zlib import crc32

from agentstorage.v1 import store_pb2 as pb
from storage_service.errors import VersionMismatch
from storage_service.store import Access, Page
from storage_service.store.items import (
    Delete,
    Get,
    ListNamespaces,
    Operation,
    Put,
    Result,
    Search,
    item_search,
    limit_of,
)
from storage_service.store.postgres.database import Transaction
from storage_service.store.postgres.lane import Row
from storage_service.store.postgres.refreshing import ENDS, PLACE, REFRESHED, REFRESHED_ITEM
from storage_service.store.postgres.rows import Rows, Statement, Values, message
from storage_service.store.postgres.vectors import MANY_NUMBERS, PGVECTOR, STORED, bound, closest, numbers
from storage_service.store.tables import ITEMS
from storage_service.store.where import Below, LabelsMatch

_ALIVE = "(i.expires_at IS NULL OR i.expires_at > now())"
# In every statement about one item the first values are its namespace, its key and its owner; a put has value, metadata, minutes to
# live, and the fields and the vectors after these.
_KEY = '"namespace" = $1 AND "key" = $2 AND "owner_id" = $3'
_PUT_ENDS = ENDS.format("$6::float8")
_VECTORS = STORED.format(fields="$7", embeddings="$8")
_CHANGED = (
    f"value = $4::jsonb, metadata = coalesce($5::jsonb, CASE WHEN {_ALIVE} THEN i.metadata ELSE '{{}}' END),"
    f" version = i.version + 1, created_at = CASE WHEN {_ALIVE} THEN i.created_at ELSE now() END,"
    f" updated_at = now(), expires_at = {_PUT_ENDS}, ttl_minutes = $6::float8"
)
_UPSERT = (
    f"INSERT INTO {ITEMS.name} AS i (namespace, key, owner_id, value, metadata, version, expires_at, ttl_minutes, vectors)"
    f" VALUES ($1, $2, $3, $4::jsonb, coalesce($5::jsonb, '{{}}'), 1, {_PUT_ENDS}, $6::float8, {_VECTORS})"
    f" ON CONFLICT (namespace, key, owner_id) DO UPDATE SET {_CHANGED}, vectors = EXCLUDED.vectors"
)
_PUT = f"{_UPSERT} RETURNING {ITEMS.select}"
_PUT_NEW = f"{_UPSERT} WHERE NOT {_ALIVE} RETURNING {ITEMS.select}"
_PUT_EXPECTED = (
    f"UPDATE {ITEMS.name} AS i SET {_CHANGED}, vectors = {_VECTORS}"
    f" WHERE {_KEY} AND version = $9 AND {_ALIVE} RETURNING {ITEMS.select}"
)
_VERSION = f"SELECT version FROM {ITEMS.name} AS i WHERE {_KEY} AND {_ALIVE}"
_DELETE = f"DELETE FROM {ITEMS.name} AS i WHERE {_KEY} RETURNING {_ALIVE}"
_ITEM = f"{_KEY} AND {ITEMS.alive}"
_GET = f"SELECT {ITEMS.select} FROM {ITEMS.name} WHERE {_ITEM}"
_GET_REFRESHED = (
    f"WITH refreshed AS (UPDATE {ITEMS.name} SET expires_at = {ENDS.format('ttl_minutes')}"
    f" WHERE {_ITEM} AND ttl_minutes IS NOT NULL RETURNING {ITEMS.select})"
    f" SELECT * FROM refreshed UNION ALL {_GET} AND ttl_minutes IS NULL"
)
_TURNS = 16


@dataclass(frozen=True, slots=True)
class _Plan:
    """What an operation sends, and what it makes of the rows of each statement."""

    statements: list[Statement]
    read: Callable[[list[list[Row]]], Result]
    # Whether it locks nothing, whether it may run twice, and whether it may take long.
    reads: bool = False
    again: bool = False
    slow: bool = False
    # What tells whether there is nothing, where a change meanwhile may have hidden it.
    otherwise: Statement | None = None


class Items(Rows):
    """The named operations on items."""

    async def run_operations(self, operations: Sequence[Operation]) -> list[Result]:
        pgvector = ""
        if any(isinstance(operation, Search) and operation.vector for operation in operations):
            found = await self.run(PGVECTOR, Values(), reads=True)
            pgvector = found[0][0] if found else ""
        if sum(numbers(operation) for operation in operations if isinstance(operation, Put)) > MANY_NUMBERS:
            # Beside the event loop.
            plans = await asyncio.to_thread(self._plans, operations, pgvector)
        else:
            plans = self._plans(operations, pgvector)
        if len(plans) == 1 and plans[0].slow and plans[0].again:
            return [plans[0].read([await self.run_page(*plans[0].statements[0])])]
        if len(plans) == 1 and len(plans[0].statements) == 1:
            [(statement, values)] = plans[0].statements
            rows = await self.run(statement, values, reads=plans[0].reads, again=plans[0].again, slow=plans[0].slow)
            if not rows and plans[0].otherwise is not None:
                rows = await self.run(*plans[0].otherwise, reads=True)
            return [plans[0].read([rows])]

        # Batches that write the same items in other orders would wait for each other until Postgres finds it out, a second later.
        locks = self._locks(operations)

        async def work(transaction: Transaction) -> list[Result]:
            sent = [*locks, *(statement for plan in plans for statement in plan.statements)]
            left = iter((await transaction.run_all(sent))[len(locks) :])
            results = []
            for index, plan in enumerate(plans):
                try:
                    results.append(plan.read([next(left) for _ in plan.statements]))
                except VersionMismatch as mismatch:
                    if len(plans) > 1:
                        mismatch.metadata["index"] = str(index)
                    raise
            return results

        return await self.atomic(work)

    def _locks(self, operations: Sequence[Operation]) -> list[Statement]:
        """The statement that takes the turns of the items that a batch writes, in one order for all batches; none for a single item."""
        items = set()
        for operation in operations:
            if isinstance(operation, Put | Delete) or (isinstance(operation, Get) and operation.refresh_ttl):
                items.add(crc32("\0".join((*operation.namespace, operation.key)).encode()))
        if len(items) < 2:
            return []
        # Few turns for many items, since each takes room in the table of locks that all of Postgres shares.
        turns = sorted({item % _TURNS for item in items})
        owner = crc32((self.owner_id or "").encode()) - 2**31
        return [("SELECT pg_advisory_xact_lock($1::int, turn) FROM unnest($2::int[]) AS turn", Values((owner, turns)))]

    def _plans(self, operations: Sequence[Operation], pgvector: str) -> list[_Plan]:
        return [self._plan(operation, pgvector) for operation in operations]

    def _plan(self, operation: Operation, pgvector: str) -> _Plan:
        if isinstance(operation, Put):
            return self._put(operation)
        if isinstance(operation, Get):
            return self._get(operation)
        if isinstance(operation, Delete):
            return self._delete(operation)
        if isinstance(operation, Search):
            return self._search(operation, pgvector)
        return self._list_namespaces(operation)

    def _identity(self, operation: Put | Get | Delete) -> Values:
        # An item without an owner has the empty one: the column is part of the primary key.
        return Values((".".join(operation.namespace), operation.key, self.owner_id or ""))

    def _put(self, put: Put) -> _Plan:
        values = self._identity(put)
        values += (
            put.value,
            put.metadata or None,
            put.ttl_minutes if put.HasField("ttl_minutes") else None,
            *bound(put),
        )
        expected = put.expected_version if put.HasField("expected_version") else None
        if expected is None:
            statements = [(_PUT, values)]
        elif not expected:
            statements = [(_PUT_NEW, values), (_VERSION, self._identity(put))]
        else:
            statements = [(_PUT_EXPECTED, Values((*values, expected))), (_VERSION, self._identity(put))]

        def read(results: list[list[Row]]) -> Result:
            if not results[0]:
                raise VersionMismatch(results[1][0][0] if results[1] else 0)
            return pb.PutItemResponse(item=message(ITEMS, results[0][0]))

        # So many would hold up what goes by the same way.
        return _Plan(statements, read, slow=numbers(put) > MANY_NUMBERS)

    def _get(self, get: Get) -> _Plan:
        def read(results: list[list[Row]]) -> Result:
            item = message(ITEMS, results[0][0]) if results[0] else None
            return pb.GetItemResponse(item=item)

        values = self._identity(get)
        if get.refresh_ttl:
            return _Plan([(_GET_REFRESHED, values)], read, again=True, otherwise=(_GET, values))
        return _Plan([(_GET, values)], read, reads=True, again=True)

    def _delete(self, delete: Delete) -> _Plan:
        def read(results: list[list[Row]]) -> Result:
            return pb.DeleteItemResponse(deleted=bool(results[0]) and results[0][0][0])

        return _Plan([(_DELETE, self._identity(delete))], read)

    def _search(self, search: Search, pgvector: str) -> _Plan:
        where, order = item_search(search)
        if search.vector:
            return _Plan([closest(self, search, where, pgvector)], _read_scored, again=True, slow=True)
        page = Page(limit_of(search.limit), search.offset)
        statement, values = self.search(ITEMS, where, order, page, Access.SEARCH)
        if search.refresh_ttl:
            found = statement.replace(ITEMS.select, f"{ITEMS.select}, {PLACE}", 1)
            # A scan of what was found keeps its order.
            statement = f"WITH found AS ({found}), {REFRESHED} SELECT {REFRESHED_ITEM} FROM found"

        def read(results: list[list[Row]]) -> Result:
            items = [message(ITEMS, row) for row in results[0]]
            return pb.SearchItemsResponse(items=items)

        return _Plan([(statement, values)], read, again=True, slow=True)

    def _list_namespaces(self, listing: ListNamespaces) -> _Plan:
        values = Values()
        where = [
            LabelsMatch(tuple(match.path), match.match_type == pb.NAMESPACE_MATCH_TYPE_SUFFIX)
            for match in listing.matches
        ]
        conditions = self.conditions(ITEMS, where, Access.SEARCH, values)
        labels = "string_to_array(namespace, '.')"
        if listing.max_depth:
            labels = f"({labels})[1:{values(listing.max_depth)}::int]"
        statement = (
            f"SELECT labels FROM (SELECT DISTINCT {labels} AS labels FROM {ITEMS.name} WHERE {conditions}) AS n"
            f' ORDER BY labels COLLATE "C" LIMIT {values(limit_of(listing.limit, 100))} OFFSET {values(listing.offset)}'
        )

        def read(results: list[list[Row]]) -> Result:
            namespaces = [pb.Namespace(labels=row[0]) for row in results[0]]
            return pb.ListNamespacesResponse(namespaces=namespaces)

        return _Plan([(statement, values)], read, again=True, slow=True)

    async def delete_namespace(self, namespace: Sequence[str]) -> int:
        # Items whose time is over go too, but do not count.
        values = Values()
        # As an item that is put, a call without an owner deletes those that have none.
        owner = values(self.owner_id or "")
        conditions = f'"owner_id" = {owner} AND {Below(tuple(namespace)).sql(ITEMS, values)}'
        statement = (
            f"WITH gone AS (DELETE FROM {ITEMS.name} AS i WHERE {conditions} RETURNING {_ALIVE} AS alive)"
            " SELECT count(*) FROM gone WHERE alive"
        )
        return await self.number(statement, values, slow=True)


def _read_scored(results: list[list[Row]]) -> Result:
    items = [message(ITEMS, row[:-1]) for row in results[0]]
    for item, row in zip(items, results[0], strict=True):
        item.score = row[-1]
    return pb.SearchItemsResponse(items=items)
