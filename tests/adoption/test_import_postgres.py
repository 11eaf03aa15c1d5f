"""Checkpoints of another Postgres come over row by row, whichever of LangGraph's savers wrote them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import psycopg
import pytest
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.types import TASKS
from langgraph.types import Send

from storage_service.settings import Limits
from storage_service.store.postgres.imports import other_database
from storage_service.store.postgres.imports.checkpoints import CHECKPOINTS, Row, Table, import_checkpoints
from storage_service.store.postgres.imports.report import Refused, SourceError
from tests.adoption.imported import counted, from_postgres, tuples, unchanged
from tests.adoption.runtimes import row, rows, statements
from tests.langgraph.checkpoints import checkpoint, config, metadata, put
from tests.langgraph.graphs import Delta, delta_graph, deltas, history, interrupts
from tests.postgres_server import MakeDatabase

TABLES = ("checkpoints", "checkpoint_blobs", "checkpoint_writes")


@pytest.fixture
async def source(make_database: MakeDatabase) -> str:
    """Another database, which LangGraph's saver has set up."""
    url = make_database()
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        await saver.setup()
    return url


def contents(url: str) -> list[list[dict[str, Any]]]:
    return [rows(url, f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4, 5") for table in TABLES]


async def test_rows_are_as_they_were(migrated: str, source: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(source) as saver:
        for name, scenario in {"deltas": deltas, "interrupts": interrupts}.items():
            await scenario(saver, {"configurable": {"thread_id": name}})
        await put(
            saver, "t", {"none": None, "float": 1e300, "text": 'é \\ "', "list": [1], "data": b"\0"}, ns="child:1"
        )
        # A channel that has been emptied, as older savers kept it; and what only columns without a use hold.
        statements(
            source,
            "INSERT INTO checkpoint_blobs VALUES ('t', 'child:1', 'gone', '1', 'empty', NULL)",
            "UPDATE checkpoints SET type = 'old' WHERE thread_id = 't'",
        )
        expected = await history(delta_graph(saver, Delta), config("deltas"))
    report, told = await from_postgres(migrated, source)
    assert (report.is_complete, told) == (True, [])
    assert contents(migrated) == contents(source)
    assert [len(found) for found in contents(migrated)] == [
        report.counts[kind].written for kind in ("checkpoints", "values", "writes")
    ]
    assert {found["owner_id"] for found in rows(migrated, "SELECT owner_id FROM langgraph_server.threads")} == {"alice"}
    unchanged((await from_postgres(migrated, source))[0])
    async with AsyncPostgresSaver.from_conn_string(migrated) as saver:
        assert await history(delta_graph(saver, Delta), config("deltas")) == expected


async def test_rows_of_old_formats(migrated: str, source: str) -> None:
    """Up to format 3, what a step sent was kept with the writes of the checkpoint before; LangGraph.js knows no paths of tasks."""
    async with AsyncPostgresSaver.from_conn_string(source) as saver:
        where = config("t")
        for step in range(3):
            made = checkpoint({"a": [step]})
            made["v"] = step + 1
            where = await saver.aput(where, made, metadata(step), made["channel_versions"])
            await saver.aput_writes(where, [("x", 0), (TASKS, Send("node", [step])), (TASKS, 2)], "task")
        expected = await tuples(source, "t")
    statements(source, "ALTER TABLE checkpoint_writes DROP COLUMN task_path")
    assert (await from_postgres(migrated, source))[0].is_complete
    assert await tuples(migrated, "t") == expected
    assert expected[0].checkpoint["channel_values"][TASKS] == [Send("node", [1]), 2]


async def test_what_is_written_meanwhile_comes_with_the_next_run(migrated: str, source: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(source) as saver:
        await put(saver, "t", {"a": [1]})
        async with other_database.opened(source) as opened:
            await put(saver, "t", {"a": [2]})
            before = [found async for found in opened.rows(CHECKPOINTS)]
        assert len(before) == 1
    report, _ = await from_postgres(migrated, source)
    counted(report, checkpoints=(2, 2, 0, 0, 0))


async def test_values_that_are_there_under_the_same_version(migrated: str, source: str) -> None:
    """With versions that are numbers, a thread that went on in both databases has other values in each."""
    versions = {"a": 1, "b": 1}
    for url, owner, id, values in (
        (source, "", "2", {"a": ["there"], "b": ["same"]}),
        (migrated, "alice", "1", {"a": ["here"], "b": ["same"]}),
    ):
        async with AsyncPostgresSaver.from_conn_string(url) as saver:
            await saver.aput(config("t"), checkpoint(values, versions, id), metadata(), versions)  # type: ignore[arg-type]  # as LangGraph.js has them
        if owner:
            statements(
                url, """INSERT INTO langgraph_server.threads (id, metadata) VALUES ('t', '{"owner": "alice"}')"""
            )
    expected = await tuples(migrated, "t")
    report, told = await from_postgres(migrated, source)
    assert told == [
        "clash: values: t /  / a / 1: other content is there, and stays",
        "refused: checkpoints: t /  / 2: the value of its channel a is not there",
    ]
    counted(report, values=(2, 0, 1, 1, 0), checkpoints=(1, 0, 0, 0, 1))
    assert await tuples(migrated, "t") == expected


async def test_two_owners(migrated: str, source: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(source) as saver:
        for thread in ("mine", "bobs"):
            await put(saver, thread, {"a": [thread]})
    statements(migrated, """INSERT INTO langgraph_server.threads (id, metadata) VALUES ('bobs', '{"owner": "bob"}')""")
    report, told = await from_postgres(migrated, source)
    assert told == ["refused: thread bobs: here it belongs to another owner"]
    counted(report, values=(2, 1, 0, 0, 1), checkpoints=(2, 1, 0, 0, 1))
    assert await tuples(migrated, "bobs") == []
    assert row(migrated, "threads", "mine")["owner_id"] == "alice"
    report, told = await from_postgres(migrated, source, "bob")
    assert told == ["refused: thread mine: here it belongs to another owner"]
    assert len(await tuples(migrated, "bobs")) == 1


async def test_tables_in_another_schema(migrated: str, source: str) -> None:
    async with AsyncPostgresSaver.from_conn_string(source) as saver:
        await put(saver, "t", {"a": [1]})
    statements(source, "CREATE SCHEMA elsewhere", *(f"ALTER TABLE {table} SET SCHEMA elsewhere" for table in TABLES))
    with pytest.raises(SourceError, match="no table checkpoint_blobs"):
        await from_postgres(migrated, source)
    report, _ = await from_postgres(migrated, source + "&options=-c%20search_path%3Delsewhere")
    assert report.counts["checkpoints"].written == 1


async def test_a_role_that_sees_no_rows_is_told_so(migrated: str, source: str) -> None:
    """To such a role a full table is an empty one, and nothing would seem to be everything."""
    async with AsyncPostgresSaver.from_conn_string(source) as saver:
        await put(saver, "t", {"a": [1]})
    with psycopg.connect(source, autocommit=True) as conn:
        name = f"reader_{conn.info.dbname}"
        conn.execute(f"CREATE ROLE {name} LOGIN")
        try:
            conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}")
            as_reader = source.replace("postgres@", f"{name}@")
            assert (await from_postgres(migrated, as_reader, dry_run=True))[0].counts["checkpoints"].read == 1
            for table in TABLES:
                conn.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
            with pytest.raises(
                SourceError, match=r"SQLSTATE 42501.*check SOURCE_DATABASE_URL, and what its role may do"
            ):
                await from_postgres(migrated, as_reader)
        finally:
            conn.execute(f"DROP OWNED BY {name}")
            conn.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("url", "named"),
    [
        (lambda source: "nonsense", "SOURCE_DATABASE_URL is not a connection string"),
        (lambda source: "http://app:hunter2@example.com/app", "SOURCE_DATABASE_URL is not a connection string"),
        (
            lambda source: "postgresql://app:hunter2@127.0.0.1:1/app",
            "can't be reached .nothing listens at that address.",
        ),
        (
            lambda source: source.replace("/test_", "/absent_"),
            "can't be reached .the database does not exist: create it.",
        ),
    ],
)
async def test_a_source_that_is_none(migrated: str, source: str, url: Callable[[str], str], named: str) -> None:
    with pytest.raises(SourceError, match=named) as raised:
        await from_postgres(migrated, url(source))
    assert "hunter2" not in str(raised.value)


class Cut:
    """A source whose session is ended when its first row has come."""

    def __init__(self, opened: other_database.OtherDatabase, url: str) -> None:
        self._opened = opened
        self._url = url

    async def rows(self, table: Table) -> AsyncGenerator[Row | Refused, None]:
        async with aclosing(self._opened.rows(table)) as found:
            yield await anext(found)
            others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            statements(self._url, f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity {others}")
            async for row in found:
                yield row


async def test_a_source_that_goes_away(migrated: str, source: str) -> None:
    """A session that is ended is no end of the rows."""
    # More than what is on its way already.
    many = "SELECT 't', '', 'a', n::text, 'bytes', repeat('x', 9000)::bytea FROM generate_series(1, 3000) n"
    statements(source, f"INSERT INTO checkpoint_blobs {many}")
    async with other_database.opened(source) as opened:
        cut = Cut(opened, source)
        with pytest.raises(SourceError, match=r"the source can't be re.*check SOURCE_DATABASE_URL"):
            await import_checkpoints(migrated, cut, owner="alice", limits=Limits(), tell=print)
    (there,) = rows(migrated, "SELECT count(*) FROM checkpoint_blobs")
    assert there["count"] < 3000


async def test_a_database_that_refuses_a_row_in_the_middle(migrated: str, source: str) -> None:
    """The source is let go of, and not waited for."""
    async with AsyncPostgresSaver.from_conn_string(source) as saver:
        for number in range(600):
            await put(saver, f"t{number}", {"a": [number]})
    statements(
        migrated,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION disk_full; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON checkpoint_blobs FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    with pytest.raises(psycopg.errors.DiskFull):
        await asyncio.wait_for(from_postgres(migrated, source), 20)
    assert rows(migrated, "SELECT * FROM langgraph_server.threads") == [], (
        "the thread comes with its first row, or not at all"
    )
    statements(migrated, "DROP TRIGGER refuse ON checkpoint_blobs")
    assert (await from_postgres(migrated, source))[0].is_complete
