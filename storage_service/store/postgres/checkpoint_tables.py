"""LangGraph's checkpoint tables as LangGraph makes them, and as a database has them: for ``storage-service doctor``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from psycopg import AsyncConnection
from psycopg.rows import dict_row

#: Whose tables these are, and the number of the last step of its ``setup()``.
MADE_BY: Final = "langgraph-checkpoint-postgres 3.2"
LATEST_STEP: Final = 9

_REQUIRED, _OPTIONAL, _BYTES = "text NOT NULL", "text", "bytea"
_PLACE: Final = {"thread_id": _REQUIRED, "checkpoint_ns": _REQUIRED}


@dataclass(frozen=True)
class CheckpointTable:
    """A table: its columns with their types, and its indexes, by name, with their columns. The first one is the primary key."""

    name: str
    columns: dict[str, str]
    indexes: dict[str, tuple[str, ...]]


def _table(name: str, columns: dict[str, str], *key: str) -> CheckpointTable:
    of_threads = {f"{name}_thread_id_idx": ("thread_id",)} if "thread_id" in columns else {}
    return CheckpointTable(name, columns, {f"{name}_pkey": key} | of_threads)


EXPECTED: Final = (
    _table(
        "checkpoints",
        {
            **_PLACE,
            "checkpoint_id": _REQUIRED,
            "parent_checkpoint_id": _OPTIONAL,
            "type": _OPTIONAL,
            "checkpoint": "jsonb NOT NULL",
            "metadata": "jsonb NOT NULL",
        },
        *_PLACE,
        "checkpoint_id",
    ),
    _table(
        "checkpoint_blobs",
        {**_PLACE, "channel": _REQUIRED, "version": _REQUIRED, "type": _REQUIRED, "blob": _BYTES},
        *_PLACE,
        "channel",
        "version",
    ),
    _table(
        "checkpoint_writes",
        {
            **_PLACE,
            "checkpoint_id": _REQUIRED,
            "task_id": _REQUIRED,
            "idx": "integer NOT NULL",
            "channel": _REQUIRED,
            "type": _OPTIONAL,
            "blob": "bytea NOT NULL",
            "task_path": _REQUIRED,
        },
        *_PLACE,
        "checkpoint_id",
        "task_id",
        "idx",
    ),
    _table("checkpoint_migrations", {"v": "integer NOT NULL"}, "v"),
)

_COLUMNS = (
    'SELECT c.relname AS "table", a.attname AS name, format_type(a.atttypid, a.atttypmod)'
    " || CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END AS type"
    " FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = 'public' AND c.relname = ANY (%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"
)
# An index with a condition is not over all rows; one whose building was cut short is told by another finding.
_INDEXES = (
    'SELECT c.relname AS "table", i.relname AS name, x.indisunique AS is_unique, x.indpred IS NULL AND x.indisvalid AS is_whole,'
    " ARRAY(SELECT pg_get_indexdef(x.indexrelid, k, true) FROM generate_series(1, x.indnkeyatts) AS k) AS columns"
    " FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid JOIN pg_class i ON i.oid = x.indexrelid"
    " JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relname = ANY (%s) ORDER BY i.relname"
)


@dataclass
class Found:
    """The tables of a database beside the expected ones: a line for each, and what is missing, or is something else.

    ``step`` is the last step of LangGraph's ``setup()`` that was done, -1 for none, and None when the record of it can't be read.
    """

    lines: list[str]
    tables: list[str]
    columns: list[str]
    keys: list[str]
    indexes: list[str]
    step: int | None


async def look(conn: AsyncConnection[Any], unreadable: set[str]) -> Found:
    """Compare the tables with the expected ones; changes nothing."""
    names = [table.name for table in EXPECTED]
    cursor = conn.cursor(row_factory=dict_row)
    columns: dict[str, dict[str, str]] = {}
    for row in await (await cursor.execute(_COLUMNS, (names,))).fetchall():
        columns.setdefault(row["table"], {})[row["name"]] = row["type"]
    indexes: dict[str, list[dict[str, Any]]] = {}
    for row in await (await cursor.execute(_INDEXES, (names,))).fetchall():
        indexes.setdefault(row["table"], []).append(row)
    found = Found([], [], [], [], [], -1)
    for table in EXPECTED:
        if table.name in columns:
            found.lines.append(_compare(found, table, columns[table.name], indexes.get(table.name, [])))
        else:
            found.tables.append(table.name)
            found.lines.append(f"public.{table.name}: not there")
    if "checkpoint_migrations" in unreadable:
        found.step = None
    elif "v" in columns.get("checkpoint_migrations", {}):
        await cursor.execute("SELECT coalesce(max(v), -1) AS step FROM public.checkpoint_migrations")
        record = await cursor.fetchone()
        found.step = record["step"] if record else -1
    return found


def _compare(found: Found, table: CheckpointTable, columns: dict[str, str], indexes: list[dict[str, Any]]) -> str:
    """Add what is missing to ``found``, and tell what there is in one line."""
    right = []
    for name, type in table.columns.items():
        if columns.get(name) == type:
            right.append(name)
        else:
            found.columns.append(f"{table.name}.{name} ({columns.get(name, 'not there')}, and not {type})")
    served = {}
    for name, parts in table.indexes.items():
        must_be_unique = name.endswith("_pkey")
        serving = [
            index["name"]
            for index in indexes
            if tuple(index["columns"]) == parts and index["is_whole"] and (index["is_unique"] or not must_be_unique)
        ]
        if serving:
            served[name] = serving[0]
        else:
            (found.keys if must_be_unique else found.indexes).append(f"{name} on {table.name} ({', '.join(parts)})")
    more = [name for name in columns if name not in table.columns]
    more += [index["name"] for index in indexes if index["name"] not in served.values()]
    return (
        f"public.{table.name}: {len(right)} of {len(table.columns)} columns ({', '.join(right)}),"
        f" {len(served)} of {len(table.indexes)} indexes ({', '.join(served.values())})"
        + (f"; beside them {', '.join(more)}" if more else "")
    )
