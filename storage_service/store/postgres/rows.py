"""The verbs over rows, as SQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import cache
from typing import Any, TypeVar

from storage_service.caller import SYSTEM_OWNER, AllOwners, Owner, Scope
from storage_service.errors import AlreadyExists
from storage_service.store import Access, Inserted, Order, Page, key_of_request, repeated
from storage_service.store.change import Change
from storage_service.store.postgres.database import Database, Transaction
from storage_service.store.postgres.lane import Row
from storage_service.store.tables import ASSISTANTS, RUNS, THREADS, Column, M, Table
from storage_service.store.where import Equals, Where

T = TypeVar("T")
SCHEMA = '"langgraph_server"'
# Set by the database when a row is made.
_STAMPED = frozenset({"created_at", "updated_at"})


# Texts of statements that read one row, by what they follow from.
_GETS: dict[tuple[Any, ...], str] = {}
_MOST_GETS = 200


class Values(list[Any]):
    """The values of a statement; calling it binds one more and gives its place."""

    def __call__(self, value: Any) -> str:
        self.append(value)
        return f"${len(self)}"


Statement = tuple[str, Values]
#: For what may be so large that even its least part takes longer than a call would have the time for.
WITHOUT_TIMEOUT: Statement = ("SET LOCAL statement_timeout = 0", Values())


def message(table: Table[M], row: Row, fields: frozenset[str] | None = None) -> M:
    """A row, read by ``table.select`` or ``select_only(fields)``, as its message."""
    names = table.fields if fields is None else [name for name in table.fields if name in fields]
    given = {name: value for name, value in zip(names, row, strict=True) if value is not None}
    for name, load in table.loads.items():
        if name in given:
            given[name] = load(given[name])
    return table.message(**given)


@cache
def _insertable(table: Table[Any]) -> tuple[Column, ...]:
    return tuple(column for name, column in table.columns.items() if name not in _STAMPED and not column.is_computed)


@cache
def _insert_terms(table: Table[Any], owned: bool) -> dict[str, str]:
    """The columns of a new row with the terms for their values: in order, then the request_id, then the owner."""
    columns = _insertable(table)
    terms = {}
    for place, column in enumerate(columns, 1):
        terms[column.stored] = column.write.format(f"${place}")
        if column.field == "metadata":
            owner = f" || jsonb_build_object('owner', ${len(columns) + 2}::text)" if owned else " - 'owner'"
            terms[column.stored] += owner
    terms['"request_id"'] = f"${len(columns) + 1}"
    return terms


@cache
def _insert_statement(table: Table[Any], owned: bool) -> str:
    terms = _insert_terms(table, owned)
    row = ", ".join(terms.values())
    # An owner's insert is refused where the id is taken; the table's first column is the id.
    source = f"SELECT {row} WHERE NOT {table.taken.format('$1')}" if table.taken and owned else f"VALUES ({row})"
    return f"INSERT INTO {table.name} ({', '.join(terms)}) {source} ON CONFLICT DO NOTHING RETURNING {table.select}"


# The condition that a row was made by a request, with ``{}`` in the place of the request's key: exactly the expression of the index.
MADE_BY = "\"left\"(request_id, 32) = {} AND strpos(request_id, ':') = 0 AND request_id <> ''"


class Rows:
    """The rows of one scope: the verbs of :class:`storage_service.store.Handle`."""

    def __init__(self, database: Database, scope: Scope, most_bytes: int) -> None:
        self.database = database
        self.scope = scope
        self.most_bytes = most_bytes

    @property
    def owner_id(self) -> str | None:
        """The owner, or None for all."""
        return self.scope.id if isinstance(self.scope, Owner) else None

    @property
    def default_ttl(self) -> str | None:
        """The time to live of a new thread that names none, as the column takes it."""
        ttl: str | None = THREADS.columns["ttl"].dump(self.database.settings.thread_ttl)
        return ttl

    async def run(
        self, statement: str, values: Values, *, reads: bool = False, again: bool = False, slow: bool = False
    ) -> list[Row]:
        """Run one statement for the scope; see :meth:`Database.run`."""
        return await self.database.run(statement, values, self.owner_id, reads=reads, again=again, slow=slow)

    async def run_page(self, statement: str, values: Values) -> list[Row]:
        """Run a statement that reads a page, whose rows may be large."""
        return await self.database.run(
            statement, values, self.owner_id, again=True, slow=True, most_bytes=self.most_bytes
        )

    async def atomic(self, work: Callable[[Transaction], Awaitable[T]]) -> T:
        """Run statements as one transaction for the scope; see :meth:`Database.atomic`."""
        return await self.database.atomic(work, self.owner_id)

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

    def new_row(self, table: Table[M], row: M, request_id: str) -> tuple[dict[str, str], Values]:
        """The columns of a new row with the terms for their values, and the values, bound first."""
        values = Values()
        for column in _insertable(table):
            given: Any = getattr(row, column.field)
            if column.is_time and not row.HasField(column.field):
                given = None
            values.append(column.dump(given))
        values.append(request_id or None)
        if isinstance(self.scope, Owner):
            values.append(self.scope.id)
        return _insert_terms(table, isinstance(self.scope, Owner)), values

    def insertion(self, table: Table[M], row: M, request_id: str = "") -> Statement:
        """The statement that inserts a row and gives it, or nothing where the id is taken."""
        _, values = self.new_row(table, row, request_id)
        return _insert_statement(table, isinstance(self.scope, Owner)), values

    async def insert(self, table: Table[M], row: M, request_id: str = "") -> Inserted[M]:
        rows = await self.run(*self.insertion(table, row, request_id))
        if rows:
            return Inserted(message(table, rows[0]), True)
        return await self.existing(table, getattr(row, table.id), request_id)

    async def existing(self, table: Table[M], id: str, request_id: str) -> Inserted[M]:
        """The own row that has the id already."""
        values = Values()
        conditions = self.conditions(table, [Equals(table.id, id)], Access.OWN, values)
        statement = f'SELECT "request_id", {table.select} FROM {table.name} WHERE {conditions}'
        rows = await self.run(statement, values, reads=True)
        if rows:
            return Inserted(message(table, rows[0][1:]), False, rows[0][0] or "")
        if key := key_of_request(request_id):
            made = f"SELECT 1 FROM {table.name} WHERE {MADE_BY.format('$1')}"
            if await self.run(made, Values([key]), reads=True):
                raise repeated()
        raise AlreadyExists(table.resource, id)

    async def get(
        self, table: Table[M], *where: Where, access: Access = Access.BY_ID, fields: frozenset[str] | None = None
    ) -> M | None:
        # The most frequent of all statements is not written anew each time: its text follows from these.
        shape = (table, access, type(self.scope), fields, *[type(term) is Equals and term.field for term in where])
        statement = _GETS.get(shape)
        if statement is None:
            values = Values()
            conditions = self.conditions(table, where, access, values)
            statement = f"SELECT {table.select_only(fields)} FROM {table.name} WHERE {conditions}"
            if False not in shape and len(_GETS) < _MOST_GETS:
                _GETS[shape] = statement
        else:
            values = Values([self.scope.id] if isinstance(self.scope, Owner) else [])
            values += [table.columns[term.field].dump(term.value) for term in where if isinstance(term, Equals)]
        rows = await self.run(statement, values, reads=True)
        return message(table, rows[0], fields) if rows else None

    async def find(
        self, table: Table[M], where: Sequence[Where], order: Order, page: Page, access: Access = Access.SEARCH
    ) -> list[M]:
        statement, values = self.search(table, where, order, page, access)
        return [message(table, row, page.fields) for row in await self.run_page(statement, values)]

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
                after.append(values(column.cursor(value, order.descending)) + cast)
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

    def lock(self, table: Table[Any], where: Iterable[Where], access: Access, strength: str = "UPDATE") -> Statement:
        """The statement that locks rows of the scope, always in the same order."""
        values = Values()
        conditions = self.conditions(table, where, access, values)
        return f"SELECT FROM {table.name} WHERE {conditions} ORDER BY id FOR {strength}", values

    async def behind_locks(self, locks: Sequence[Statement], statement: str, values: Values) -> list[Row]:
        """Run a statement behind locks that are taken by statements before it.

        A single statement that waits for a lock does not see what was committed meanwhile in other rows; this one does.
        """

        async def work(transaction: Transaction) -> list[Row]:
            return (await transaction.run_all([*locks, (statement, values)]))[-1]

        return await self.atomic(work)

    async def number(self, statement: str, values: Values, *, again: bool = False, slow: bool = False) -> int:
        """Run a statement that gives one number."""
        rows = await self.run(statement, values, again=again, slow=slow)
        return int(rows[0][0])

    async def update(self, table: Table[M], where: Sequence[Where], changes: Sequence[Change]) -> M | None:
        rows = await self.run(*self.updating(table, where, changes))
        return message(table, rows[0]) if rows else None

    def updating(self, table: Table[Any], where: Sequence[Where], changes: Sequence[Change]) -> Statement:
        """The statement of an update."""
        values = Values()
        terms = [change.sql(table, values) for change in changes]
        conditions = self.conditions(table, where, Access.OWN, values)
        terms.append('"updated_at" = now()')
        return f"UPDATE {table.name} SET {', '.join(terms)} WHERE {conditions} RETURNING {table.select}", values

    async def delete(self, table: Table[Any], where: Sequence[Where]) -> int:
        values = Values()
        conditions = self.conditions(table, where, Access.OWN, values)
        return await self.number(
            f"WITH gone AS (DELETE FROM {table.name} WHERE {conditions} RETURNING 1) SELECT count(*) FROM gone", values
        )
