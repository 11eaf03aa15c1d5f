"""The verbs over rows, as SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from google.protobuf.message import Message

from storage_service.caller import SYSTEM_OWNER, AllOwners, Owner, Scope
from storage_service.errors import AlreadyExists
from storage_service.store import Access, Inserted, Order, Page
from storage_service.store.change import Change
from storage_service.store.postgres.database import Database, Row
from storage_service.store.tables import ASSISTANTS, RUNS, THREADS, M, Table
from storage_service.store.where import Equals, Where

SCHEMA = '"langgraph_server"'
# Set by the database when a row is made.
_STAMPED = frozenset({"created_at", "updated_at"})


class Values(list[Any]):
    """The values of a statement; calling it binds one more and gives its place."""

    def __call__(self, value: Any) -> str:
        self.append(value)
        return f"${len(self)}"


def message(table: Table[M], row: Row, fields: frozenset[str] | None = None) -> M:
    """A row, read by ``table.select`` or ``select_only(fields)``, as its message."""
    names = [name for name in table.columns if fields is None or name in fields]
    return table.message(**{name: value for name, value in zip(names, row, strict=True) if value is not None})


class Rows:
    """The rows of one scope: the verbs of :class:`storage_service.store.Handle`."""

    def __init__(self, database: Database, scope: Scope) -> None:
        self.database = database
        self.scope = scope

    @property
    def owner_id(self) -> str | None:
        """The owner, or None for all."""
        return self.scope.id if isinstance(self.scope, Owner) else None

    def visible(self, table: Table[Any], access: Access, values: Values) -> str:
        """The condition that the scope may see a row."""
        if isinstance(self.scope, AllOwners):
            return "true"
        owner = values(self.scope.id)
        if table is ASSISTANTS and access is not Access.OWN:
            return f"\"owner_id\" IN ({owner}, '{SYSTEM_OWNER}')"
        if table is THREADS and access is Access.BY_ID:
            return f'("owner_id" = {owner} OR "visibility" = \'read_by_id\')'
        if table is RUNS and access is Access.BY_ID:
            return (
                f'("owner_id" = {owner} OR EXISTS (SELECT FROM {THREADS.name} AS t WHERE t.id = "runs"."thread_id"'
                ' AND t.owner_id = "runs"."owner_id" AND t.visibility = \'read_by_id\'))'
            )
        return f'"owner_id" = {owner}'

    def conditions(self, table: Table[Any], where: Iterable[Where], access: Access, values: Values) -> str:
        """What rows must fulfil, the scope first."""
        terms = [self.visible(table, access, values)]
        if table.alive:
            terms.append(table.alive)
        terms.extend(term.sql(table, values) for term in where)
        return " AND ".join(terms)

    def stamp(self, metadata: str, values: Values) -> str:
        """Metadata with the owner of the scope in it."""
        if isinstance(self.scope, AllOwners):
            return f"{metadata}::jsonb - 'owner'"
        return f"{metadata}::jsonb || jsonb_build_object('owner', {values(self.scope.id)}::text)"

    def row_values(self, table: Table[M], row: M, values: Values) -> dict[str, str]:
        """The columns of a new row with the terms for their values."""
        terms = {}
        for name, column in table.columns.items():
            if name in _STAMPED:
                continue
            given: Any = getattr(row, name)
            if isinstance(given, Message) and not row.HasField(name):
                given = None
            bound = values(column.dump(given))
            terms[column.stored] = self.stamp(bound, values) if name == "metadata" else column.write.format(bound)
        return terms

    async def insert(self, table: Table[M], row: M, request_id: str = "") -> Inserted[M]:
        values = Values()
        terms = self.row_values(table, row, values)
        terms['"request_id"'] = values(request_id or None)
        statement = (
            f"INSERT INTO {table.name} ({', '.join(terms)}) VALUES ({', '.join(terms.values())})"
            f" ON CONFLICT (id) DO NOTHING RETURNING {table.select}"
        )
        rows = await self.database.run(statement, values)
        if rows:
            return Inserted(message(table, rows[0]), True)
        return await self.existing(table, getattr(row, table.id))

    async def existing(self, table: Table[M], id: str) -> Inserted[M]:
        """The own row that has the id already."""
        values = Values()
        conditions = self.conditions(table, [Equals(table.id, id)], Access.OWN, values)
        statement = f'SELECT "request_id", {table.select} FROM {table.name} WHERE {conditions}'
        rows = await self.database.run(statement, values, again=True)
        if not rows:
            raise AlreadyExists(table.resource, id)
        return Inserted(message(table, rows[0][1:]), False, rows[0][0] or "")

    async def get(
        self, table: Table[M], *where: Where, access: Access = Access.BY_ID, fields: frozenset[str] | None = None
    ) -> M | None:
        values = Values()
        conditions = self.conditions(table, where, access, values)
        statement = f"SELECT {table.select_only(fields)} FROM {table.name} WHERE {conditions}"
        rows = await self.database.run(statement, values, again=True)
        return message(table, rows[0], fields) if rows else None

    async def find(
        self, table: Table[M], where: Sequence[Where], order: Order, page: Page, access: Access = Access.SEARCH
    ) -> list[M]:
        statement, values = self.search(table, where, order, page, access)
        rows = await self.database.run(statement, values, again=True, slow=True)
        return [message(table, row, page.fields) for row in rows]

    def search(
        self, table: Table[Any], where: Sequence[Where], order: Order, page: Page, access: Access
    ) -> tuple[str, Values]:
        """The statement of a search, with its values."""
        values = Values()
        conditions = self.conditions(table, where, access, values)
        columns = [table.columns[name] for name in order.fields]
        keys = [column.sort_key for column in columns]
        if page.after is not None:
            after = []
            for column, value in zip(columns, page.after, strict=True):
                cast = "::timestamptz" if column.is_time else ""
                after.append(values(column.cursor(value)) + cast)
            conditions += f" AND ({', '.join(keys)}) {'<' if order.descending else '>'} ({', '.join(after)})"
        direction = " DESC" if order.descending else ""
        statement = (
            f"SELECT {table.select_only(page.fields)} FROM {table.name} WHERE {conditions}"
            f" ORDER BY {', '.join(key + direction for key in keys)} LIMIT {values(page.limit)}"
        )
        if page.offset:
            statement += f" OFFSET {values(page.offset)}"
        return statement, values

    async def count(self, table: Table[Any], where: Sequence[Where], access: Access = Access.SEARCH) -> int:
        values = Values()
        statement = f"SELECT count(*) FROM {table.name} WHERE {self.conditions(table, where, access, values)}"
        return await self.number(statement, values, again=True, slow=True)

    async def number(self, statement: str, values: Values, *, again: bool = False, slow: bool = False) -> int:
        """Run a statement that gives one number."""
        rows = await self.database.run(statement, values, again=again, slow=slow)
        return int(rows[0][0])

    async def update(self, table: Table[M], where: Sequence[Where], changes: Sequence[Change]) -> M | None:
        values = Values()
        terms = [change.sql(table, values) for change in changes]
        conditions = self.conditions(table, where, Access.OWN, values)
        terms.append('"updated_at" = now()')
        statement = f"UPDATE {table.name} SET {', '.join(terms)} WHERE {conditions} RETURNING {table.select}"
        rows = await self.database.run(statement, values)
        return message(table, rows[0]) if rows else None

    async def delete(self, table: Table[Any], where: Sequence[Where]) -> int:
        values = Values()
        conditions = self.conditions(table, where, Access.OWN, values)
        return await self.number(
            f"WITH gone AS (DELETE FROM {table.name} WHERE {conditions} RETURNING 1) SELECT count(*) FROM gone", values
        )
