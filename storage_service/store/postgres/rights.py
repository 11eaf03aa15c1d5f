"""Who may do what with the tables, and row-level security on all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

#: LangGraph's tables; they lie in the schema "public", which PostgREST shows unless row-level security is on.
LANGGRAPH_TABLES = (
    "checkpoints",
    "checkpoint_blobs",
    "checkpoint_writes",
    "checkpoint_migrations",
    "store",
    "store_migrations",
)
#: The runtimes' tables, which are ours now, and those that only the service knows.
TABLES = (
    "assistants",
    "threads",
    "thread_states",
    "runs",
    "store_items",
    "crons",
    "assistant_versions",
    "store_items_displaced",
    "storage_service_migrations",
    "sweeps",
    "run_events",
)


class MigrationError(Exception):
    """The schema could not be brought to the revision that this service needs; the one-line message says what to do."""


@dataclass(frozen=True)
class TableFacts:
    """Who owns a table, and what the role of the connection can do with it."""

    name: str
    owner: str
    user: str
    owned: bool
    secured: bool
    visible: bool
    readable: bool


async def tables(conn: AsyncConnection[Any]) -> list[TableFacts]:
    """The facts of all tables that the service uses and that exist."""
    cursor = conn.cursor(row_factory=class_row(TableFacts))
    await cursor.execute(
        "SELECT n.nspname || '.' || c.relname AS name, pg_get_userbyid(c.relowner) AS owner, current_user::text AS user,"
        " pg_has_role(c.relowner, 'USAGE') AS owned, c.relrowsecurity AS secured,"
        " NOT c.relrowsecurity OR r.rolsuper OR r.rolbypassrls OR (pg_has_role(c.relowner, 'USAGE') AND NOT c.relforcerowsecurity)"
        " OR EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid) AS visible,"
        " has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT') AS readable"
        " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.rolname = current_user"
        " WHERE c.relkind IN ('r', 'p') AND ((n.nspname = 'langgraph_server' AND c.relname = ANY (%s))"
        " OR (n.nspname = 'public' AND c.relname = ANY (%s))) ORDER BY 1",
        (list(TABLES), list(LANGGRAPH_TABLES)),
    )
    return await cursor.fetchall()


def check_rights(facts: list[TableFacts], *, pending: bool) -> None:
    """Says at once, and not in the middle, which table the role cannot change or cannot see."""
    for table in facts:
        if table.owned:
            continue
        who = f'the table {table.name} belongs to the role "{table.owner}" and the connection is "{table.user}"'
        grant = f'GRANT "{table.owner}" TO "{table.user}"'
        if table.secured and not table.visible:
            raise MigrationError(
                f'{who}, which row-level security shows no rows; {grant}, or ALTER ROLE "{table.user}" BYPASSRLS'
            )
        if pending or not table.secured or not table.readable:
            raise MigrationError(f'{who}; run `storage-service migrate` as "{table.owner}", or {grant}')


async def secure(conn: AsyncConnection[Any]) -> None:
    """Shuts roles that own nothing, as PostgREST uses them, out of LangGraph's tables and ours: row-level security without a policy."""
    for table in await tables(conn):
        if not table.secured:
            async with conn.transaction():
                await conn.execute("SET LOCAL lock_timeout = '3s'")
                await conn.execute(
                    sql.SQL("ALTER TABLE {} ENABLE ROW LEVEL SECURITY").format(sql.Identifier(*table.name.split(".")))
                )
