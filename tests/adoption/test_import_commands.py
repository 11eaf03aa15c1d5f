"""The commands that import, as operators meet them: what they print, what they refuse, killed and run again, and with many rows."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from langgraph.store.postgres import PostgresStore

from tests.adoption.imported import listed, sqlite_saver, tuples
from tests.adoption.runtimes import rows, statements
from tests.docs.markdown import ROOT
from tests.faults.servers import run
from tests.langgraph.checkpoints import checkpoint, config, metadata
from tests.postgres_server import MakeDatabase

SQLITE = ("import-checkpoints", "--from-sqlite")
POSTGRES = ("import-checkpoints", "--from-postgres")
NOWHERE = "postgresql://app:hunter2@127.0.0.1:1/app"


def fill(file: Path, threads: int, checkpoints: int, size: int = 10) -> None:
    """Threads with checkpoints, each with a value of its own of so many bytes, and a write."""
    letters = random.Random(1)
    with sqlite_saver(file) as saver:
        for thread in range(threads):
            where = config(f"t{thread}")
            for step in range(checkpoints):
                made = checkpoint({"a": letters.randbytes(size), "step": step})
                where = saver.put(where, made, metadata(step), made["channel_versions"])
                saver.put_writes(where, [("a", step)], "task")


@pytest.mark.parametrize("command", ["import-store", "import-checkpoints"])
def test_help(command: str) -> None:
    result = run(command, "-h")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")
    assert "--dry-run" in result.stdout
    assert f"  {command} " in run("--help").stdout


def test_from_sqlite(migrated: str, file: Path) -> None:
    fill(file, 2, 3)
    tried = run(*SQLITE, str(file), "--owner", "alice", "--dry-run", DATABASE_URL=migrated)
    assert (tried.returncode, tried.stderr) == (0, "")
    assert "checkpoints: 6 read, 6 to be written, 0 there already, 0 clashing, 0 refused\n" in tried.stdout
    done = run(*SQLITE, str(file), "--owner", "alice", DATABASE_URL=migrated)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "values: 6 read, 6 written, 0 there already, 0 clashing, 0 refused\n"
        "writes: 6 read, 6 written, 0 there already, 0 clashing, 0 refused\n"
        "checkpoints: 6 read, 6 written, 0 there already, 0 clashing, 0 refused\n"
        "read back and compared with the source: 18 rows, equal\n"
    )
    other = run(*SQLITE, str(file), "--owner", "bob", DATABASE_URL=migrated)
    assert (other.returncode, other.stdout.splitlines()[:2]) == (
        1,
        [
            "refused: thread t0: here it belongs to another owner",
            "refused: thread t1: here it belongs to another owner",
        ],
    )
    assert other.stderr == "Error: not everything is there: see what was refused and what clashes\n"
    assert "checkpoints_without_thread" not in run("doctor", DATABASE_URL=migrated).stdout


@pytest.mark.parametrize("way", ["variable", "file"])
def test_from_postgres(migrated: str, make_database: MakeDatabase, file: Path, tmp_path: Path, way: str) -> None:
    fill(file, 2, 3)
    target = make_database()
    assert run("migrate", DATABASE_URL=target).returncode == 0
    assert run(*SQLITE, str(file), "--owner", "alice", DATABASE_URL=migrated).returncode == 0
    named = {"SOURCE_DATABASE_URL": migrated}
    if way == "file":
        (tmp_path / "url").write_text(f"{migrated}\n")
        named = {"SOURCE_DATABASE_URL_FILE": str(tmp_path / "url")}
    done = run(*POSTGRES, "--owner", "bob", DATABASE_URL=target, **named)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("read back and compared with the source: 18 rows, equal\n")
    assert rows(target, "SELECT DISTINCT owner_id FROM langgraph_server.threads") == [{"owner_id": "bob"}]


def test_the_store(migrated: str) -> None:
    with PostgresStore.from_conn_string(migrated) as store:
        store.setup()
        for user in ("alice", "bob"):
            store.put(("memories", user), "k", {"of": user})
    done = run("import-store", "--owner-label", "2", DATABASE_URL=migrated)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "items: 2 read, 2 written, 0 there already, 0 clashing, 0 refused\n"
        "read back and compared with the source: 2 rows, equal\n"
    )
    statements(migrated, """UPDATE store SET value = '{}', updated_at = now() WHERE prefix = 'memories.bob'""")
    again = run("import-store", "--owner-label", "2", DATABASE_URL=migrated)
    assert (again.returncode, again.stdout.splitlines()[0]) == (
        1,
        "clash: items: memories.bob / k: other content is there, and stays",
    )
    tried = run("import-store", "--owner-label", "2", "--on-clash", "newest", "--dry-run", DATABASE_URL=migrated)
    assert tried.stdout.startswith("items: 2 read, 1 to be written, 1 there already, 0 clashing")
    assert run("import-store", "--owner-label", "2", "--on-clash", "newest", DATABASE_URL=migrated).returncode == 0


# The command, what is set, and what the one line must name; those with a third text are told by the page on operation.
MISTAKES: list[tuple[tuple[str, ...], dict[str, str], str]] = [
    (("import-store",), {}, "say whose the items are: --owner ID, or --owner-label N"),
    (("import-store", "--owner", "a", "--owner-label", "1"), {}, "say whose the items are"),
    (("import-store", "--owner", "a"), {}, "DATABASE_URL is not set"),
    (("import-store", "--owner", "a"), {"DATABASE_URL": NOWHERE}, "nothing listens at that address"),
    (("import-store", "--owner", "a\nb"), {"DATABASE_URL": NOWHERE}, "--owner holds a control character"),
    (("import-checkpoints",), {}, "say where the checkpoints are: --from-sqlite FILE, or --from-postgres"),
    ((*SQLITE, "f", "--from-postgres"), {}, "say where the checkpoints are"),
    ((*SQLITE, "f"), {}, "say whose the threads are: --owner ID"),
    (POSTGRES, {}, "say whose the threads are"),
    ((*SQLITE, "f", "--owner", "a"), {}, "DATABASE_URL is not set"),
    ((*SQLITE, "f", "--owner", "a" * 256), {"DATABASE_URL": NOWHERE}, "--owner is longer than 255 bytes"),
    ((*SQLITE, "no.sqlite", "--owner", "a"), {"DATABASE_URL": NOWHERE}, "no.sqlite is not there, or is no file"),
    (
        (*SQLITE, "/etc/passwd", "--owner", "a"),
        {"DATABASE_URL": NOWHERE},
        "/etc/passwd can't be read: file is not a database",
    ),
    ((*POSTGRES, "--owner", "a"), {"DATABASE_URL": NOWHERE}, "SOURCE_DATABASE_URL is not set"),
    (
        (*POSTGRES, "--owner", "a"),
        {"DATABASE_URL": NOWHERE, "SOURCE_DATABASE_URL": NOWHERE, "SOURCE_DATABASE_URL_FILE": "f"},
        "SOURCE_DATABASE_URL and SOURCE_DATABASE_URL_FILE are both set",
    ),
    (
        (*POSTGRES, "--owner", "a"),
        {"DATABASE_URL": NOWHERE, "SOURCE_DATABASE_URL_FILE": "/no/such/file"},
        "SOURCE_DATABASE_URL_FILE can't be read: No such file or directory",
    ),
    (
        (*POSTGRES, "--owner", "a"),
        {"DATABASE_URL": NOWHERE, "SOURCE_DATABASE_URL": NOWHERE},
        "the source can't be reached (nothing listens at that address); check SOURCE_DATABASE_URL",
    ),
]


@pytest.mark.parametrize(
    ("command", "environment", "named"), MISTAKES, ids=[f"{number}-{m[2][:24]}" for number, m in enumerate(MISTAKES)]
)
def test_mistakes(command: tuple[str, ...], environment: dict[str, str], named: str) -> None:
    result = run(*command, **environment)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert named in line
    assert "hunter2" not in line


def test_the_page_says_what_the_commands_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "operation.md").read_text()
    for command, environment in (
        (("import-store",), {}),
        (("import-checkpoints",), {}),
        ((*SQLITE, "agents.sqlite"), {}),
        ((*SQLITE, "agents.sqlite", "--owner", "alice"), {"DATABASE_URL": NOWHERE}),
        ((*POSTGRES, "--owner", "alice"), {"DATABASE_URL": NOWHERE}),
        ((*POSTGRES, "--owner", "alice"), {"DATABASE_URL": NOWHERE, "SOURCE_DATABASE_URL": NOWHERE}),
    ):
        line = run(*command, **environment).stderr.strip()
        assert f"`{line}`" in page


def test_not_migrated(empty: str, file: Path) -> None:
    fill(file, 1, 1)
    for command in ((*SQLITE, str(file)), ("import-store",)):
        result = run(*command, "--owner", "a", DATABASE_URL=empty)
        assert (result.returncode, result.stdout) == (1, "")
        assert (
            result.stderr == "Error: the schema is not the one of this service; run `storage-service migrate` first\n"
        )


def test_a_role_that_may_not_write(migrated: str, file: Path) -> None:
    fill(file, 1, 1)
    with psycopg.connect(migrated, autocommit=True) as conn:
        name = f"weak_{conn.info.dbname}"
        conn.execute(f"CREATE ROLE {name} LOGIN BYPASSRLS")
        try:
            conn.execute(f"GRANT USAGE ON SCHEMA langgraph_server TO {name}")
            conn.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA public, langgraph_server TO {name}")
            url = migrated.replace("postgres@", f"{name}@")
            result = run(*SQLITE, str(file), "--owner", "a", DATABASE_URL=url)
            assert (result.returncode, result.stdout) == (1, "")
            assert result.stderr == "Error: the database refused a statement (InsufficientPrivilege, SQLSTATE 42501)\n"
        finally:
            conn.execute(f"DROP OWNED BY {name}")
            conn.execute(f"DROP ROLE {name}")


@contextmanager
def begun(url: str, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A command at work, which is killed when the block ends."""
    arguments = [sys.executable, "-m", "storage_service", *command]
    with subprocess.Popen(arguments, env={**os.environ, "DATABASE_URL": url}, stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


def wait_for_lock(url: str) -> None:
    """Wait until somebody waits for a row that another transaction has."""
    deadline = time.monotonic() + 60
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    while not rows(url, query):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_killed_and_run_again(migrated: str, file: Path) -> None:
    """At each table, in the middle: a batch of it is there, and the next one is not."""
    fill(file, 1100, 1)
    with sqlite_saver(file) as saver:
        expected = {f"t{number}": listed(saver, f"t{number}") for number in range(1100)}
        last = saver.conn.execute("SELECT max(thread_id) FROM checkpoints").fetchone()[0]
    for table, columns, content in (
        ("checkpoint_blobs", "thread_id, channel, version, type, blob", "'a', %s, 'bytes', ''"),
        ("checkpoint_writes", "thread_id, checkpoint_id, task_id, idx, channel, blob", "%s, 'task', 0, 'a', ''"),
        ("checkpoints", "thread_id, checkpoint_id, checkpoint", "%s, '{}'"),
    ):
        # Somebody writes the last row at this moment, and gives it up.
        (found,) = expected[last]
        place: Any = found.config["configurable"]["checkpoint_id"]
        if table == "checkpoint_blobs":
            place = found.checkpoint["channel_versions"]["a"]
        with psycopg.connect(migrated) as conn:
            conn.execute(f"INSERT INTO {table} ({columns}) VALUES (%s, {content})", (last, place))
            with begun(migrated, *SQLITE, str(file), "--owner", "alice"):
                wait_for_lock(migrated)
            conn.rollback()
        (there,) = rows(migrated, f"SELECT count(*) FROM {table}")
        assert there["count"] == 1000
    # What is there can be read, and the rest comes.
    assert await tuples(migrated, "t0") == expected["t0"]
    assert await tuples(migrated, last) == []
    done = run(*SQLITE, str(file), "--owner", "alice", DATABASE_URL=migrated)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "values: 1100 read, 0 written, 1100 there already, 0 clashing, 0 refused\n"
        "writes: 1100 read, 0 written, 1100 there already, 0 clashing, 0 refused\n"
        "checkpoints: 1100 read, 100 written, 1000 there already, 0 clashing, 0 refused\n"
        "read back and compared with the source: 3300 rows, equal\n"
    )
    for thread in ("t0", "t999", last):
        assert await tuples(migrated, thread) == expected[thread]
    assert rows(migrated, "SELECT owner_id, count(*) FROM langgraph_server.threads GROUP BY 1") == [
        {"owner_id": "alice", "count": 1100}
    ]


def test_what_is_not_used_yet_is_not_swept_away(migrated: str, file: Path) -> None:
    """Values come before their checkpoints, and an import may take hours."""
    # More than a batch: of the first one the values are there and the checkpoints not, while the writes of the second have to wait.
    fill(file, 600, 1)
    with sqlite_saver(file) as saver:
        last, place = saver.conn.execute(
            "SELECT thread_id, checkpoint_id FROM writes ORDER BY 1 DESC LIMIT 1"
        ).fetchone()
    command = (*SQLITE, str(file), "--owner", "alice")
    with psycopg.connect(migrated) as conn:
        conn.execute(
            "INSERT INTO checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob) VALUES (%s, %s, 'task', 0, 'a', '')",
            (last, place),
        )
        with subprocess.Popen(
            [sys.executable, "-m", "storage_service", *command], env={**os.environ, "DATABASE_URL": migrated}
        ) as process:
            wait_for_lock(migrated)
            statements(migrated, "UPDATE langgraph_server.threads SET updated_at = now() - interval '1 day'")
            assert rows(migrated, "SELECT count(*) FROM checkpoint_blobs") == [{"count": 600}]
            swept = run("sweep", DATABASE_URL=migrated)
            assert (swept.returncode, swept.stderr) == (0, "")
            conn.rollback()
            assert process.wait(30) == 0
    assert rows(migrated, "SELECT count(*) FROM checkpoint_blobs") == [{"count": 600}]
    assert run(*command, "--dry-run", DATABASE_URL=migrated).returncode == 0


def test_the_store_killed_and_run_again(migrated: str) -> None:
    with PostgresStore.from_conn_string(migrated) as store:
        store.setup()
    statements(
        migrated,
        "INSERT INTO store (prefix, key, value) SELECT 'a', lpad(n::text, 5), '1' FROM generate_series(1, 1200) n",
    )
    command = ("import-store", "--owner", "alice")
    with psycopg.connect(migrated) as conn:
        conn.execute(
            "INSERT INTO langgraph_server.store_items (namespace, key, owner_id, version) VALUES ('a', ' 1100', 'alice', 1)"
        )
        with begun(migrated, *command):
            wait_for_lock(migrated)
        conn.rollback()
    assert rows(migrated, "SELECT count(*) FROM langgraph_server.store_items") == [{"count": 1000}]
    done = run(*command, DATABASE_URL=migrated)
    assert (done.returncode, done.stdout.splitlines()[0]) == (
        0,
        "items: 1200 read, 200 written, 1000 there already, 0 clashing, 0 refused",
    )


def measured(url: str, *command: str, **environment: str) -> tuple[str, int]:
    """What a command prints, and the most memory that it had, in MiB."""
    arguments = [sys.executable, "-m", "storage_service", *command]
    with subprocess.Popen(
        arguments, env={**os.environ, "DATABASE_URL": url, **environment}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        printed = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, printed
    return printed, usage.ru_maxrss // 1024


def test_many_checkpoints_in_little_memory(migrated: str, make_database: MakeDatabase, tmp_path: Path) -> None:
    """4,000 checkpoints of one thread, with 80 MB of values."""
    fill(tmp_path / "small", 1, 1)
    fill(tmp_path / "large", 1, 4000, 20_480)
    others = [make_database(), make_database()]
    for url in others:
        assert run("migrate", DATABASE_URL=url).returncode == 0
    _, little = measured(others[0], *SQLITE, str(tmp_path / "small"), "--owner", "a")
    printed, much = measured(migrated, *SQLITE, str(tmp_path / "large"), "--owner", "a")
    assert "checkpoints: 4000 read, 4000 written" in printed
    assert much - little < 40
    printed, from_database = measured(others[1], *POSTGRES, "--owner", "a", SOURCE_DATABASE_URL=migrated)
    assert "values: 4000 read, 4000 written" in printed
    assert from_database - little < 40
