"""Databases as the two runtimes leave them: the Python one writes 32 hex digits and namespaces as array literals, the TypeScript one
writes dashed ids, no owner on assistants and runs, and (older versions) JSON within a JSON string."""

from __future__ import annotations

import json
from typing import Any

import psycopg
from langgraph.checkpoint.postgres import PostgresSaver
from langgraph.store.postgres import PostgresStore
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

# What both run when they start, one statement at a time.
DDL = [
    "CREATE SCHEMA IF NOT EXISTS langgraph_server",
    """CREATE TABLE IF NOT EXISTS langgraph_server.assistants (
        id TEXT PRIMARY KEY, graph_id TEXT NOT NULL, config JSONB NOT NULL DEFAULT '{}', context JSONB NOT NULL DEFAULT '{}',
        metadata JSONB NOT NULL DEFAULT '{}', name TEXT, description TEXT, version INTEGER NOT NULL DEFAULT 1,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS langgraph_server.threads (
        id TEXT PRIMARY KEY, metadata JSONB NOT NULL DEFAULT '{}', config JSONB NOT NULL DEFAULT '{}',
        status TEXT NOT NULL DEFAULT 'idle', values JSONB NOT NULL DEFAULT '{}', interrupts JSONB NOT NULL DEFAULT '{}',
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE TABLE IF NOT EXISTS langgraph_server.thread_states (
        id SERIAL PRIMARY KEY, thread_id TEXT NOT NULL REFERENCES langgraph_server.threads(id) ON DELETE CASCADE,
        values JSONB NOT NULL DEFAULT '{}', metadata JSONB NOT NULL DEFAULT '{}', next TEXT[] NOT NULL DEFAULT '{}',
        tasks JSONB NOT NULL DEFAULT '[]', checkpoint_id TEXT NOT NULL, parent_checkpoint JSONB,
        interrupts JSONB NOT NULL DEFAULT '[]', created_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    """CREATE INDEX IF NOT EXISTS idx_thread_states_thread_id
        ON langgraph_server.thread_states (thread_id, created_at DESC)""",
    """CREATE TABLE IF NOT EXISTS langgraph_server.runs (
        id TEXT PRIMARY KEY, thread_id TEXT, assistant_id TEXT, status TEXT NOT NULL DEFAULT 'pending',
        metadata JSONB NOT NULL DEFAULT '{}', kwargs JSONB NOT NULL DEFAULT '{}',
        multitask_strategy TEXT NOT NULL DEFAULT 'reject',
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
    "CREATE INDEX IF NOT EXISTS idx_runs_thread_id ON langgraph_server.runs (thread_id, created_at DESC)",
    """CREATE TABLE IF NOT EXISTS langgraph_server.store_items (
        namespace TEXT NOT NULL, key TEXT NOT NULL, value JSONB NOT NULL DEFAULT '{}', owner_id TEXT NOT NULL,
        metadata JSONB NOT NULL DEFAULT '{}', created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now(), PRIMARY KEY (namespace, key, owner_id))""",
    """CREATE TABLE IF NOT EXISTS langgraph_server.crons (
        id TEXT PRIMARY KEY, assistant_id TEXT, thread_id TEXT, end_time TIMESTAMPTZ, schedule TEXT NOT NULL, user_id TEXT,
        payload JSONB NOT NULL DEFAULT '{}', next_run_date TIMESTAMPTZ, metadata JSONB NOT NULL DEFAULT '{}',
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(), updated_at TIMESTAMPTZ NOT NULL DEFAULT now())""",
]
KEYS = {
    "assistants": ("id",),
    "threads": ("id",),
    "thread_states": ("id",),
    "runs": ("id",),
    "store_items": ("namespace", "key", "owner_id"),
    "crons": ("id",),
}
COLUMNS = {
    "assistants": "id graph_id config context metadata name description version created_at updated_at",
    "threads": "id metadata config status values interrupts created_at updated_at",
    "thread_states": "id thread_id values metadata next tasks checkpoint_id parent_checkpoint interrupts created_at",
    "runs": "id thread_id assistant_id status metadata kwargs multitask_strategy created_at updated_at",
    "store_items": "namespace key value owner_id metadata created_at updated_at",
    "crons": "id assistant_id thread_id end_time schedule user_id payload next_run_date metadata created_at updated_at",
}

PY_ASSISTANT = "3f2b8c1d9e7a4f60b1c2d3e4f5a6b7c8"
PY_THREAD = "aa11bb22cc33dd44ee55ff6677889900"
PY_RUN = "0123456789abcdef0123456789abcdef"
PY_CRON = "c0ffee00c0ffee00c0ffee00c0ffee00"
PY_CRON_SECONDS = "c0ffee00c0ffee00c0ffee00c0ffee06"
TS_ASSISTANT = "7b0e5a4c-1d2f-4e3a-9b8c-0a1b2c3d4e5f"
TS_THREAD = "11111111-2222-4333-8444-555555555555"
TS_THREAD_ENCODED = "66666666-7777-4888-9999-aaaaaaaaaaaa"
TS_RUN = "99999999-8888-4777-8666-555555555555"
TS_RUN_ORPHAN = "99999999-8888-4777-8666-000000000000"
TS_RUN_ENCODED = "99999999-8888-4777-8666-111111111111"
TS_CHECKPOINT = "checkpoint_1718000000000_k3j9x2"
ORPHAN_THREAD = "dead0000dead0000dead0000dead0000"
CHECKPOINT_THREAD = "only-in-checkpoints"


def encoded(document: Any, times: int = 1) -> Jsonb:
    """A document in a JSON string, as a driver stores it that is given text for a jsonb column."""
    for _ in range(times):
        document = json.dumps(document)
    return Jsonb(document)


def tables(url: str) -> None:
    """What both runtimes create when they start."""
    statements(url, *DDL)


def insert(conn: psycopg.Connection[Any], table: str, **columns: Any) -> None:
    """Inserts a row as a runtime does: only the columns it knows; items are upserted."""
    names = ", ".join(f'"{name}"' for name in columns)
    values = {name: Jsonb(value) if isinstance(value, dict) else value for name, value in columns.items()}
    places = ", ".join(f"%({name})s" for name in columns)
    query = f"INSERT INTO langgraph_server.{table} ({names}) VALUES ({places})"
    if table == "store_items":
        updates = ", ".join(
            f'"{name}" = EXCLUDED."{name}"' for name in columns if name in ("value", "metadata", "updated_at")
        )
        query += " ON CONFLICT (namespace, key, owner_id) DO " + (f"UPDATE SET {updates}" if updates else "NOTHING")
    conn.execute(query, values)


def python_rows(url: str) -> None:
    """Rows in the Python runtime's style, of alice."""
    alice = {"owner": "alice"}
    with psycopg.connect(url, autocommit=True) as conn:
        insert(
            conn,
            "assistants",
            id=PY_ASSISTANT,
            graph_id="agent",
            name="Écrivain",
            config={"tags": [], "recursion_limit": 25, "configurable": {}},
            metadata={**alice, "team": "x"},
            version=4,
            updated_at="2024-03-01 10:00:00.123456+00",
        )
        insert(conn, "assistants", id="shared" + "0" * 26, graph_id="agent", metadata={"owner": "system"})
        insert(
            conn,
            "threads",
            id=PY_THREAD,
            metadata=alice,
            status="interrupted",
            values={"messages": [{"content": "hi", "n": 12345678901234567890}]},
            updated_at="2024-03-02 10:00:00+00",
        )
        for number, parent in ((1, Jsonb(None)), (2, Jsonb({"checkpoint_id": f"{1:032x}"})), (3, None)):
            insert(
                conn,
                "thread_states",
                thread_id=PY_THREAD,
                checkpoint_id=f"{number:032x}",
                values={"step": number},
                next=["agent"],
                parent_checkpoint=parent,
                created_at=f"2024-03-02 10:00:0{number}+00",
            )
        insert(
            conn,
            "runs",
            id=PY_RUN,
            thread_id=PY_THREAD,
            assistant_id=PY_ASSISTANT,
            status="success",
            metadata=alice,
            kwargs={"input": {"a": 1}},
            updated_at="2024-03-02 10:00:09+00",
        )
        # A list bound to a text column becomes an array literal.
        for namespace, key, value, updated in (
            (["org.user"], "k1", {"v": "py"}, "2024-01-02"),
            (["org", "user"], "k2", {"v": "py list"}, "2024-01-02"),
            (["a b", "c"], "k3", {"v": 1}, "2024-01-02"),
            (["clash.one"], "k", {"v": "older"}, "2024-01-01"),
            (["clash", "two"], "k", {"v": "newer"}, "2024-02-01"),
            (["three.way"], "k", {"v": "oldest"}, "2024-01-01"),
            (["three", "way"], "k", {"v": "middle"}, "2024-01-02"),
        ):
            insert(
                conn,
                "store_items",
                namespace=namespace,
                key=key,
                value=value,
                owner_id="alice",
                updated_at=f"{updated} 00:00:00+00",
                created_at="2023-12-31 00:00:00+00",
            )
        insert(conn, "store_items", namespace="{broken", key="k", value={"v": 0}, owner_id="alice")
        insert(conn, "store_items", namespace='{"",a}', key="k", value={"v": 0}, owner_id="alice")
        insert(conn, "store_items", namespace=["texts"], key="string", value=Jsonb("just text"), owner_id="alice")
        insert(conn, "store_items", namespace=["texts"], key="number", value=Jsonb(123), owner_id="alice")
        insert(conn, "store_items", namespace=["texts"], key="null", value=Jsonb(None), owner_id="alice")
        insert(
            conn,
            "crons",
            id=PY_CRON,
            assistant_id=PY_ASSISTANT,
            schedule="*/5 * * * *",
            user_id="alice",
            payload={"input": {}},
            metadata=alice,
            next_run_date="2024-03-01 00:00:00+00",
        )
        insert(conn, "crons", id=PY_CRON_SECONDS, schedule="*/5 * * * * 30", metadata=alice)


def typescript_rows(url: str) -> None:
    """Rows in the TypeScript runtime's style, of bob: dashed ids, no owner on assistants and runs, some documents encoded twice."""
    with psycopg.connect(url, autocommit=True) as conn:
        insert(
            conn,
            "assistants",
            id=TS_ASSISTANT,
            graph_id="agent",
            name="helper",
            config=encoded({"configurable": {"model": "m"}}),
            context=encoded({}, 2),
            metadata={"created_by": "ui"},
        )
        insert(
            conn, "threads", id=TS_THREAD, metadata={"owner": "bob"}, values={"messages": ["[not json]", '{"a": 1}']}
        )
        insert(
            conn,
            "threads",
            id=TS_THREAD_ENCODED,
            metadata=encoded({"owner": "bob", "title": 'ä "q" \\ 🎈'}),
            config=encoded({}),
            values=encoded({"messages": [{"content": '{"nested": "text"}'}]}, 3),
            interrupts=encoded({}),
            updated_at="2024-05-01 00:00:00.5+00",
        )
        insert(
            conn,
            "thread_states",
            thread_id=TS_THREAD_ENCODED,
            checkpoint_id=TS_CHECKPOINT,
            values=encoded({"messages": []}),
            metadata=encoded({"step": 1}),
            tasks=encoded([]),
            interrupts=encoded([]),
            parent_checkpoint=encoded({"checkpoint_id": "checkpoint_1717999999999_aaaaaa"}),
        )
        insert(
            conn,
            "runs",
            id=TS_RUN,
            thread_id=TS_THREAD,
            assistant_id=TS_ASSISTANT,
            status="running",
            kwargs={"input": None},
            updated_at="2024-05-01 00:00:00+00",
        )
        insert(conn, "runs", id=TS_RUN_ORPHAN, thread_id=ORPHAN_THREAD, assistant_id=TS_ASSISTANT)
        insert(
            conn,
            "runs",
            id=TS_RUN_ENCODED,
            thread_id=TS_THREAD_ENCODED,
            metadata=encoded({"source": "ui"}),
            kwargs=encoded({"input": {"x": [1, 2]}}),
        )
        for namespace, key, value, updated in (
            ("org.user", "t1", {"v": "ts"}, "2024-01-03"),
            ("clash.one", "k", {"v": "newer"}, "2024-02-01"),
            ("clash.two", "k", {"v": "older"}, "2024-01-01"),
            ("three.way", "k", {"v": "newest"}, "2024-01-03"),
        ):
            insert(
                conn,
                "store_items",
                namespace=namespace,
                key=key,
                value=value,
                owner_id="alice",
                metadata=encoded({"source": "ts"}),
                updated_at=f"{updated} 00:00:00+00",
            )
        insert(conn, "store_items", namespace="ts", key="encoded", value=encoded({"a": [1]}), owner_id="bob")
        insert(conn, "store_items", namespace="ts", key="wrapped", value={"_value": "x"}, owner_id="anonymous")


def langgraph_rows(url: str) -> None:
    """LangGraph's own tables, made by its own setup, with a thread that has a row and one that has none."""
    with PostgresSaver.from_conn_string(url) as saver:
        saver.setup()
    with PostgresStore.from_conn_string(url) as store:
        store.setup()
        store.put(("org", "user"), "memory", {"text": "likes tea"})
    with psycopg.connect(url, autocommit=True) as conn:
        for thread in (PY_THREAD, CHECKPOINT_THREAD):
            for number in (1, 2):
                conn.execute(
                    "INSERT INTO checkpoints (thread_id, checkpoint_id, checkpoint, metadata) VALUES (%s, %s, %s, '{}')",
                    (
                        thread,
                        f"1ef4f797-8335-6428-8001-{number:012x}",
                        Jsonb({"v": 4, "channel_values": {"n": number}}),
                    ),
                )
            conn.execute("INSERT INTO checkpoint_blobs VALUES (%s, '', 'messages', '1', 'msgpack', '\\x90')", (thread,))


def both(url: str) -> None:
    """A database that both runtimes have used."""
    tables(url)
    python_rows(url)
    typescript_rows(url)
    langgraph_rows(url)


def contents(url: str) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    """Every row of the runtimes' tables, by table and primary key, in the columns that the runtimes know."""
    found: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {}
    with psycopg.connect(url, row_factory=dict_row) as conn:
        for table, key in KEYS.items():
            columns = ", ".join(f'"{column}"' for column in COLUMNS[table].split())
            rows = conn.execute(f"SELECT {columns} FROM langgraph_server.{table}").fetchall()
            found[table] = {tuple(row[column] for column in key): row for row in rows}
    return found


def rows(url: str, query: str, *values: Any) -> list[dict[str, Any]]:
    """What a query answers."""
    with psycopg.connect(url, autocommit=True, row_factory=dict_row) as conn:
        return list(conn.execute(query, values or None).fetchall())


def statements(url: str, *texts: str) -> None:
    """Runs statements, each by itself."""
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in texts:
            conn.execute(statement)


def row(url: str, table: str, id: str) -> dict[str, Any]:
    """One row of a table of the runtimes, with every column."""
    (found,) = rows(url, f"SELECT * FROM langgraph_server.{table} WHERE id = %s", id)
    return found


def unwrapped(document: Any) -> Any:
    """A document without the JSON strings around it, by the rule's words: a string that holds an object or an array is that."""
    inner = document
    while isinstance(inner, str):
        try:
            inner = json.loads(inner)
        except ValueError:
            return document
    return inner if isinstance(inner, dict | list) else document
