"""Gives an owner to rows that have none. A row that has an owner is never touched, and no updated_at changes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from psycopg import errors, sql

from storage_service.store.postgres.migrate import LATEST, Connection, connected, revision
from storage_service.store.postgres.rights import MigrationError

#: What may be named: the tables, and "checkpoints" for threads that have checkpoints and no row.
RESOURCES = ("assistants", "threads", "runs", "crons", "checkpoints")
_PAGE = 1000

# Candidates are the rows without an owner whose metadata can hold one; a page of them gets it at a time. Each statement walks the ids,
# so that a row that cannot be changed is passed and not met again.
_ASSIGN: dict[str, str] = {
    table: f"UPDATE langgraph_server.{table} SET metadata = metadata || jsonb_build_object('owner', %(owner)s::text)"
    f" WHERE id IN (SELECT id FROM page) AND owner_id IS NULL RETURNING id"
    for table in ("assistants", "threads", "runs", "crons")
}
_CANDIDATES: dict[str, str] = {
    table: f"SELECT id FROM langgraph_server.{table} WHERE owner_id IS NULL AND jsonb_typeof(metadata) = 'object'"
    for table in ("assistants", "threads", "runs", "crons")
} | {
    "checkpoints": "SELECT DISTINCT c.thread_id AS id FROM public.checkpoints c"
    " WHERE NOT EXISTS (SELECT FROM langgraph_server.threads t WHERE t.id = c.thread_id)"
    " AND octet_length(c.thread_id) BETWEEN 1 AND 255 AND c.thread_id !~ '[[:cntrl:]]'",
}
_ASSIGN["checkpoints"] = (
    "INSERT INTO langgraph_server.threads (id, metadata) SELECT id, jsonb_build_object('owner', %(owner)s::text) FROM page"
    " ON CONFLICT (id) DO NOTHING RETURNING id"
)
# What a thread's new owner brings along: the runs of the thread inherit it, as those of any other thread have.
_INHERIT: str = (
    "UPDATE langgraph_server.runs SET metadata = metadata || jsonb_build_object('owner', %(owner)s::text)"
    " WHERE thread_id = ANY (%(threads)s) AND owner_id IS NULL AND jsonb_typeof(metadata) = 'object' RETURNING id"
)
_INHERITING: str = (
    "SELECT id FROM langgraph_server.runs"
    " WHERE thread_id = ANY (%(threads)s) AND owner_id IS NULL AND jsonb_typeof(metadata) = 'object'"
)


_FOUND: dict[str, str] = {
    table: f"SELECT id, owner_id, jsonb_typeof(metadata) = 'object' AS takes_one FROM langgraph_server.{table}"
    " WHERE id = ANY (%(ids)s)"
    for table in ("assistants", "threads", "runs", "crons")
} | {
    "checkpoints": "SELECT DISTINCT c.thread_id AS id, t.owner_id,"
    " coalesce(jsonb_typeof(t.metadata) = 'object', c.thread_id !~ '[[:cntrl:]]') AS takes_one"
    " FROM public.checkpoints c LEFT JOIN langgraph_server.threads t ON t.id = c.thread_id WHERE c.thread_id = ANY (%(ids)s)",
}


async def left_out(conninfo: str, owner: str, *, resources: Collection[str], ids: Collection[str]) -> dict[str, str]:
    """The ids for which ``assign_owner`` can do nothing, each with the reason; a row that has this owner already is none of them.

    To be asked before it: the owner of a row says who had it then. Raises as it does.
    """
    async with connected(conninfo) as conn:
        await _check(conn, owner, resources)
        rows: dict[str, list[dict[str, Any]]] = {id: [] for id in ids}
        for resource in resources or RESOURCES:
            cursor = await conn.execute(sql.SQL(_FOUND[resource]), {"ids": list(ids)})
            for row in await cursor.fetchall():
                rows[row["id"]].append(row)
    return {id: reason for id, found in rows.items() if (reason := _why_left_out(found, owner))}


def _why_left_out(rows: list[dict[str, Any]], owner: str) -> str:
    if any(row["owner_id"] == owner or (row["owner_id"] is None and row["takes_one"]) for row in rows):
        return ""
    if not rows:
        return "no row has this id"
    if all(row["owner_id"] is None for row in rows):
        return "its metadata can hold no owner"
    return "it has another owner"


async def _check(conn: Connection, owner: str, resources: Collection[str]) -> None:
    """Raises for arguments, and for a schema, that nothing can be done with."""
    unknown = set(resources) - set(RESOURCES)
    if unknown:
        raise ValueError(f"resources are {', '.join(RESOURCES)}")
    if not 1 <= len(owner.encode()) <= 255 or any(ord(character) < 32 or ord(character) == 127 for character in owner):
        raise ValueError("an owner is text of 1 to 255 bytes without control characters")
    if await revision(conn) != LATEST:
        raise MigrationError("the schema is not the one of this service; run `storage-service migrate` first")


async def assign_owner(
    conninfo: str,
    owner: str,
    *,
    resources: Collection[str] = (),
    ids: Collection[str] = (),
    all_ownerless: bool = False,
    dry_run: bool = False,
) -> dict[str, int]:
    """Gives ``owner`` to rows that have none, and answers how many of each resource; "runs" counts those of the threads, too.

    ``resources`` are some of RESOURCES, all of them when none is named.
    ``ids`` names the rows (of "checkpoints": the threads), or ``all_ownerless`` takes all; exactly one of the two. With ``dry_run``
    nothing changes and the answer is what would. It works in pages: what was done before an interruption stays, and a second call does
    the rest. Raises ValueError for bad arguments, MigrationError when the schema is not the one of this service, and psycopg.Error.
    """
    if bool(ids) == all_ownerless:
        raise ValueError("name either ids or all rows without an owner")
    async with connected(conninfo) as conn:
        await _check(conn, owner, resources)
        given: dict[str, set[str]] = {}
        try:
            # Threads before runs, whatever the order of the arguments: a run that inherits is counted once.
            for resource in RESOURCES:
                if resource in (resources or RESOURCES):
                    await _assign(conn, resource, owner, None if all_ownerless else list(ids), dry_run, given)
        except errors.InsufficientPrivilege as error:
            raise MigrationError(
                "the role of the connection may not change these rows; use the role that owns the tables"
            ) from error
        return {resource: len(rows) for resource, rows in given.items()}


async def _assign(
    conn: Connection, resource: str, owner: str, ids: list[str] | None, dry_run: bool, given: dict[str, set[str]]
) -> None:
    """Adds the ids of the rows that get the owner to ``given``, by resource."""
    after: str | None = None
    given.setdefault(resource, set())
    values: dict[str, Any] = {"owner": owner, "ids": ids, "size": _PAGE}
    page = sql.SQL(
        "WITH page AS MATERIALIZED (SELECT id FROM ({}) candidates WHERE (%(ids)s::text[] IS NULL OR id = ANY (%(ids)s::text[]))"
        " AND (%(after)s::text IS NULL OR id > %(after)s::text) ORDER BY id LIMIT %(size)s), "
    ).format(sql.SQL(_CANDIDATES[resource]))
    change = sql.SQL("changed AS (SELECT id FROM page)" if dry_run else "changed AS ({})").format(
        sql.SQL(_ASSIGN[resource])
    )
    answer = sql.SQL(" SELECT (SELECT max(id) FROM page) AS last, ARRAY(SELECT id FROM changed) AS ids")
    while True:
        async with conn.transaction():
            cursor = await conn.execute(page + change + answer, values | {"after": after})
            row = await cursor.fetchone()
            if row is None or row["last"] is None:
                return
            after = row["last"]
            given[resource].update(row["ids"])
            if resource in ("threads", "checkpoints") and row["ids"]:
                cursor = await conn.execute(
                    _INHERITING if dry_run else _INHERIT, {"owner": owner, "threads": row["ids"]}
                )
                if runs := [run["id"] for run in await cursor.fetchall()]:
                    given.setdefault("runs", set()).update(runs)
