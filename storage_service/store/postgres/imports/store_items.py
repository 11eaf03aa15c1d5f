"""Copies the items of LangGraph's own store, ``public.store``, into those of the service, in the same database.

The values never leave Postgres: a page of keys is looked at here, by the rules that the API has for an item, and copied there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from psycopg import sql

from agentstorage.v1.store_pb2 import PutItemRequest
from storage_service.errors import InvalidRequest
from storage_service.settings import Limits
from storage_service.store.postgres.imports.report import Refused, Report, SourceError, shown
from storage_service.store.postgres.imports.target import BEGIN, opened, rules_of
from storage_service.store.postgres.migrate import Connection
from storage_service.validate import Validator

KIND = "items"
_PAGE = 500
# A store of an older LangGraph has no columns for the time to live, and one without an index has no vectors.
_COLUMNS = (
    "SELECT c.relname || '.' || a.attname AS name FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid"
    " WHERE c.oid IN (to_regclass('public.store'), to_regclass('public.store_vectors'))"
    " AND a.attnum > 0 AND NOT a.attisdropped"
)
_NEEDED = {f"store.{name}" for name in ("prefix", "key", "value", "created_at", "updated_at")}
_LIVING = {f"store.{name}" for name in ("expires_at", "ttl_minutes")}
_EMBEDDED = {f"store_vectors.{name}" for name in ("prefix", "key", "field_name", "embedding")}
_VECTORS = (
    "(SELECT array_agg(ROW(v.field_name, v.embedding::real[])::langgraph_server.item_vector ORDER BY v.field_name)"
    " FROM public.store_vectors v WHERE v.prefix = s.prefix AND v.key = s.key AND v.embedding IS NOT NULL)"
)

_NAMED = "unnest(%(prefixes)s::text[], %(keys)s::text[], %(owners)s::text[]) AS r (prefix, key, owner_id)"
_NEWER = "EXCLUDED.updated_at > i.updated_at"
_OVERWRITTEN = ("value", "created_at", "updated_at", "expires_at", "ttl_minutes", "vectors")


def _source(columns: set[str]) -> str:
    """The rows of the source as items, with whether a client could read their times."""
    expires, ttl = ("s.expires_at", "s.ttl_minutes::float8") if columns >= _LIVING else ("NULL::timestamptz", "NULL")
    vectors = _VECTORS if columns >= _EMBEDDED else "NULL"
    return (
        "LATERAL (SELECT s.value, s.created_at, s.updated_at,"
        f" {expires} AS expires_at, {ttl}::float8 AS ttl_minutes, {vectors}::langgraph_server.item_vector[] AS vectors"
        " FROM public.store s WHERE s.prefix = r.prefix AND s.key = r.key) AS s"
    )


def _pages(columns: set[str], *, first: bool) -> str:
    expires = ", expires_at" if columns >= _LIVING else ""
    times = (
        f"least(created_at, updated_at{expires}) < '0001-01-01 00:00+00' OR greatest(created_at, updated_at{expires})"
    )
    after = "" if first else "WHERE (prefix, key) > (%(prefix)s, %(key)s)"
    return (
        f"SELECT prefix, key, coalesce({times} >= '10000-01-01 00:00+00', false) AS is_timeless"
        f" FROM public.store {after} ORDER BY prefix, key LIMIT {_PAGE}"
    )


def _insert(source: str, *, newest: bool) -> str:
    changes = ", ".join(f"{name} = EXCLUDED.{name}" for name in _OVERWRITTEN)
    clash = f"DO UPDATE SET {changes}, version = i.version + 1 WHERE {_NEWER}" if newest else "DO NOTHING"
    return (
        "INSERT INTO langgraph_server.store_items AS i"
        " (namespace, key, owner_id, value, version, created_at, updated_at, expires_at, ttl_minutes, vectors)"
        " SELECT r.prefix, r.key, r.owner_id, s.value, 1, coalesce(s.created_at, s.updated_at, now()),"
        " coalesce(s.updated_at, s.created_at, now()), s.expires_at, s.ttl_minutes, s.vectors"
        f" FROM {_NAMED}, {source} ON CONFLICT (namespace, key, owner_id) {clash} RETURNING i.namespace, i.key"
    )


def _compare(source: str) -> str:
    """Whether each item is there, and equal to the source's: a reader may have put off its end meanwhile."""
    return (
        "SELECT r.prefix, r.key, i.key IS NOT NULL AS is_there, s.updated_at > i.updated_at AS is_older,"
        " i.value = s.value AND i.created_at = coalesce(s.created_at, s.updated_at, i.created_at)"
        " AND i.updated_at = coalesce(s.updated_at, s.created_at, i.updated_at)"
        " AND i.ttl_minutes IS NOT DISTINCT FROM s.ttl_minutes AND i.vectors IS NOT DISTINCT FROM s.vectors"
        " AND (i.expires_at IS NOT DISTINCT FROM s.expires_at OR i.expires_at > s.expires_at) AS is_equal"
        f" FROM {_NAMED} CROSS JOIN {source} LEFT JOIN langgraph_server.store_items i"
        " ON i.namespace = r.prefix AND i.key = r.key AND i.owner_id = r.owner_id"
    )


async def import_store(
    conninfo: str,
    *,
    owner: str = "",
    owner_label: int = 0,
    newest: bool = False,
    dry_run: bool = False,
    limits: Limits,
    tell: Callable[[str], None],
) -> Report:
    """Copies every row of ``public.store`` that the service can hold, and answers what became of each.

    The items get ``owner``, or the owner that the label of their namespace at ``owner_label`` (1 for the first) names; exactly one of the
    two. The label stays in the namespace, by which runtimes go on asking for the item. An item that is there stays as it is, unless
    ``newest`` says that the one that was updated later wins. Raises SourceError, MigrationError and psycopg.Error.
    """
    report = Report(tell, dry_run=dry_run)
    validator = rules_of(PutItemRequest, limits)
    async with opened(conninfo) as conn:
        columns = await _columns(conn)
        source = _source(columns)
        last: dict[str, Any] | None = None
        while True:
            async with conn.transaction():
                await conn.execute(BEGIN)
                page = await conn.execute(sql.SQL(_pages(columns, first=last is None)), last)
                rows = await page.fetchall()
            if not rows:
                return report
            last = rows[-1]
            report.of(KIND).read += len(rows)
            owners: dict[tuple[str, str], str] = {}
            for row in rows:
                labels = row["prefix"].split(".")
                theirs = owner or (labels[owner_label - 1] if owner_label <= len(labels) else "")
                if reason := _reason(validator, labels, row, theirs, owner_label):
                    report.refuse(KIND, Refused(shown((row["prefix"], row["key"])), reason))
                else:
                    owners[row["prefix"], row["key"]] = theirs
            await _copy(conn, report, source, owners, newest=newest)


def _reason(validator: Validator, labels: list[str], row: dict[str, Any], owner: str, owner_label: int) -> str:
    """Why a row can't come over; "" when it can."""
    if not owner and owner_label > len(labels):
        return f"its namespace has no label {owner_label}"
    if row["is_timeless"]:
        return "a time of it is infinite, or not from year 1 to year 9999"
    try:
        validator.check(PutItemRequest(owner_id=owner, namespace=labels, key=row["key"], value="null"))
    except InvalidRequest as invalid:
        return str(invalid)
    return ""


async def _columns(conn: Connection) -> set[str]:
    cursor = await conn.execute(_COLUMNS)
    found = {row["name"] for row in await cursor.fetchall()}
    if not any(name.startswith("store.") for name in found):
        raise SourceError("the database has no table public.store: no store of LangGraph has been used there")
    if missing := _NEEDED - found:
        names = ", ".join(sorted(missing))
        raise SourceError(f"public.store is not the table of LangGraph's store for Python: it has no column {names}")
    return found


async def _copy(
    conn: Connection, report: Report, source: str, owners: dict[tuple[str, str], str], newest: bool
) -> None:
    """Copies the rows that are named, in a transaction, and compares them once it is committed."""
    named = {
        "prefixes": [prefix for prefix, _ in owners],
        "keys": [key for _, key in owners],
        "owners": list(owners.values()),
    }
    written: set[tuple[str, str]] = set()
    if not report.dry_run:
        async with conn.transaction():
            await conn.execute(BEGIN)
            cursor = await conn.execute(sql.SQL(_insert(source, newest=newest)), named)
            written = {(row["namespace"], row["key"]) for row in await cursor.fetchall()}
    cursor = await conn.execute(sql.SQL(_compare(source)), named)
    rows = await cursor.fetchall()
    # Of what has gone from the source meanwhile there is nothing to tell.
    report.of(KIND).read -= len(owners) - len(rows)
    for row in rows:
        equal = row["is_equal"] if row["is_there"] else None
        if report.dry_run and newest and row["is_older"]:
            equal = None
        place = (row["prefix"], row["key"])
        report.settle(KIND, shown(place), written=place in written, equal=equal)
