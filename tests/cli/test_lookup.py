"""``runs``, ``threads`` and ``owners``: what they find, for whom, and that nothing in a row reaches the terminal as it is."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from storage_service.lookup_commands import RUN_STATUSES, THREAD_STATUSES
from storage_service.lookup_view import owner_row
from storage_service.store.postgres import lookups
from storage_service.store.tables import RUN_STATUS, THREAD_STATUS
from tests.adoption.runtimes import statements
from tests.cli.runner import Ended, run_each
from tests.faults.servers import run
from tests.postgres_server import MakeDatabase, PostgresServer

LEASED = "0199f1e2a3b44c5d8e7f001122334455"
# What a terminal obeys or shows turned around: a title, a clearing of the screen, C1 controls, a direction, a line.
EVIL = "e\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\n\x7fvil"
NOT_PRINTED = re.compile(r"[^\n\x20-\x7e\u00a1-\u024f\u4e00-\u9fff]")
DIGITS = "123456789012345678901234567890.10"
FILL = f"""
INSERT INTO langgraph_server.threads (id, metadata, status, "values") VALUES
    ('t1', '{{"owner": "alice"}}', 'busy', '{{"n": {DIGITS}, "text": "sch\u00f6n"}}'),
    ('t2', '{{"owner": "bob"}}', 'idle', '{{}}'), ('t3', '{{}}', 'idle', '{{}}');
INSERT INTO langgraph_server.runs
    (id, thread_id, assistant_id, status, metadata, kwargs, attempt, run_after, worker_id, lease_token, lease_expires_at, cancel,
     last_sequence, created_at) VALUES
    ('{LEASED}', 't1', 'a', 'running', '{{"owner": "alice"}}', '{{"input": {{"q": [1, {{}}]}}}}', 2, now(), 'worker-1', 7,
     now() + interval '1 hour', 'interrupt', 3, now() - interval '3 minutes'),
    ('later', 't1', 'a', 'pending', '{{"owner": "alice"}}', '{{}}', 0, now() + interval '2 hours', NULL, 0, NULL, NULL, 0,
     now() - interval '2 minutes'),
    ('lapsed', 't2', 'a', 'running', '{{"owner": "bob"}}', '{{}}', 1, now(), 'worker-2', 8, now() - interval '90 seconds', NULL, 0,
     now() - interval '1 minute'),
    ('strange', 't2', NULL, 'paused', '{{"owner": "bob"}}', '{{}}', 0, NULL, NULL, 0, NULL, NULL, 0, 'infinity'),
    ('nobodys', NULL, NULL, 'success', '{{}}', '{{}}', 0, NULL, NULL, 0, NULL, NULL, 0, now() - interval '4 minutes');
INSERT INTO langgraph_server.crons (id, schedule, metadata) VALUES ('c', '@daily', '{{"owner": "carol"}}');
INSERT INTO langgraph_server.store_items (namespace, key, owner_id) VALUES ('n', 'k', 'dave');
"""


def filled(url: str) -> None:
    assert run("migrate", DATABASE_URL=url).returncode == 0
    statements(url, FILL)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "INSERT INTO langgraph_server.runs (id, thread_id, status, metadata, kwargs, worker_id, error) VALUES"
            " (%s, %s, 'error', jsonb_build_object('owner', %s::text), jsonb_build_object('k', %s::text), %s, to_jsonb(%s::text))",
            (EVIL, EVIL, EVIL, EVIL, EVIL, EVIL),
        )
        for sequence, kind, data, end in (
            (1, "values", bytes(range(256)) * 4, None),
            (2, EVIL, b"\xff\xfe", None),
            (3, "end", b"", "success"),
        ):
            conn.execute(
                "INSERT INTO langgraph_server.run_events (run_id, sequence, thread_id, type, data, attempt, end_status)"
                " VALUES (%s, %s, 't1', %s, %s, 2, %s)",
                (LEASED, sequence, kind, data, end),
            )


@pytest.fixture
def database(postgres_server: PostgresServer) -> str:
    """A database with rows of several owners, which all tests read."""
    return postgres_server.url(postgres_server.template("lookup", filled))


def looked_up(database: str, *commands: Sequence[str]) -> list[Ended]:
    """How commands on the database end."""
    return run_each(*((arguments, {"DATABASE_URL": database}) for arguments in commands))


def found(database: str, *commands: str) -> list[str]:
    """What each command line prints."""
    outputs = []
    for status, output, errors in looked_up(database, *map(str.split, commands)):
        assert (status, errors) == (0, "")
        assert not NOT_PRINTED.search(output), output.encode("unicode_escape")
        outputs.append(output)
    return outputs


def as_json(database: str, *commands: str) -> list[Any]:
    """What each command line says as JSON."""
    return [json.loads(output) for output in found(database, *(f"{command} --json" for command in commands))]


def rows(text: str) -> dict[str, list[str]]:
    """The cells of a table by the first of a row."""
    _, *lines = text.splitlines()
    return {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in lines)}


def test_the_words_are_those_of_the_service() -> None:
    assert set(RUN_STATUSES) == set(RUN_STATUS.values())
    assert set(THREAD_STATUSES) == set(THREAD_STATUS.values())


def test_runs(database: str) -> None:
    text, listed = found(database, "runs", "runs --json")
    assert text.split("\n")[0].split() == ["run", "owner", "thread", "status", "try", "age", "note"]
    table = rows(text)
    assert len(table) == 6
    assert table[LEASED][:4] == ["alice", "t1", "running", "2"]
    assert re.fullmatch(r"3\.\d min", table[LEASED][4])
    assert re.fullmatch(r"worker-1, lease (60|59) min left, asked to stop: interrupt", table[LEASED][5])
    assert (table["later"][2], table["later"][-1]) == ("pending", "due in 2.0 h")
    assert re.fullmatch(r"worker-2, lease lapsed [12]\.\d min ago", table["lapsed"][-1])
    assert table["strange"] == ["bob", "t2", "paused", "0", "infinity"]
    assert table["nobodys"][:3] == ["-", "-", "success"]
    # The newest comes first, and one that was made at no time before it.
    ids = [row["run_id"] for row in json.loads(listed)]
    assert ids == ["strange", EVIL, "lapsed", "later", LEASED, "nobodys"]


def test_runs_that_match(database: str) -> None:
    matches = {
        "--owner alice": ["later", LEASED],
        "--thread t2": ["strange", "lapsed"],
        "--status pending --status running": ["lapsed", "later", LEASED],
        "--status running --owner bob --thread t2 --limit 1": ["lapsed"],
        "--owner nobody": [],
    }
    listed = as_json(database, *(f"runs {options}" for options in matches))
    assert [[row["run_id"] for row in found] for found in listed] == list(matches.values())
    none, some = found(database, "runs --owner nobody", "runs --owner alice --limit 1")
    assert none == "no runs\n"
    assert some.endswith("there are more runs: see --limit\n")


def test_one_run(database: str) -> None:
    text, content = found(database, f"runs {LEASED}", f"runs {LEASED} --json")
    fields = dict(re.findall(r"^(\w+) +(.*)$", text, re.MULTILINE))
    assert (fields["run_id"], fields["owner_id"], fields["status"]) == (LEASED, "alice", "running")
    assert re.fullmatch(r"worker-1, token 7, lease (60|59) min left, until [-\d]+ [:.\d]+ UTC", fields["lease"])
    assert (fields["cancel"], fields["finished_at"], fields["error"]) == ("interrupt", "-", "-")
    assert re.fullmatch(r"[-\d]+ [:.\d]+ UTC \(3\.\d min ago\)", fields["created_at"])
    # Documents on lines of their own, so that they can be read.
    assert re.search(r'^kwargs\n  \{\n +"input": \{\n +"q": \[', text, re.MULTILINE)
    assert "sequence  type" not in text
    row = json.loads(content)
    assert row["kwargs"] == {"input": {"q": [1, {}]}}
    assert (row["worker_id"], row["lease_token"], row["attempt"], row["cancel"]) == ("worker-1", 7, 2, "interrupt")
    assert "events" not in row


def test_the_events_of_a_run(database: str) -> None:
    text, content, last, none, empty = found(
        database,
        f"runs {LEASED} --events",
        f"runs {LEASED} --events --json",
        f"runs {LEASED} --events --limit 2",
        "runs later --events",
        "runs later --events --json",
    )
    listed = text.split("\n\n")[1].splitlines()
    assert listed[0].split() == ["sequence", "type", "bytes", "try", "time"]
    assert [line.split()[0] for line in listed[1:]] == ["1", "2", "3"]
    assert listed[1].split()[1:4] == ["values", "1024", "2"]
    assert re.search(r"end \(success\) +0 +2 +[-\d]+ [:.\d]+ UTC$", listed[3])
    events = json.loads(content)["events"]
    assert [(event["sequence"], event["type"], event["bytes"]) for event in events] == [
        (1, "values", 1024),
        (2, EVIL, 2),
        (3, "end", 0),
    ]
    assert events[2]["end_status"] == "success"
    listed = last.split("\n\n")[1].splitlines()
    assert listed[0] == "the last 2 events, more are before them: see --limit"
    assert [line.split()[0] for line in listed[2:]] == ["2", "3"]
    assert none.endswith("\n\nno events\n")
    assert json.loads(empty)["events"] == []


def test_what_a_row_holds_commands_nothing(database: str) -> None:
    shown = "e\\u001b]0;owned\\u0007\\u001b[2J\\u009b31m\\u202e\\u000a\\u007fvil"
    listed, owners = found(database, "runs", "owners")
    assert shown in listed
    assert shown in owners
    one, content, absent = looked_up(database, ["runs", EVIL], ["runs", EVIL, "--json"], ["runs", f"{EVIL}{EVIL}"])
    # Its ids, its owner, its worker and its error; in its documents a new line is as JSON has it.
    assert one[1].count(shown) == 5
    assert one[1].count(shown.replace("\\u000a", "\\n")) == 2
    assert content[1].isascii()
    row = json.loads(content[1])
    assert {row["run_id"], row["thread_id"], row["owner_id"], row["worker_id"], row["error"], row["kwargs"]["k"]} == {
        EVIL
    }
    assert absent[::2] == (1, f"Error: no run has the id {shown}{shown}\n")
    assert not NOT_PRINTED.search(one[1] + content[1])


def test_threads(database: str) -> None:
    text, one, content = found(database, "threads", "threads t1", "threads t1 --json")
    assert text.split("\n")[0].split() == ["thread", "owner", "status", "in", "flight", "age", "changed", "expires"]
    table = rows(text)
    assert table["t1"][:3] == ["alice", "busy", "2"]
    assert table["t3"][:3] == ["-", "idle", "0"]
    # No digit of a number is lost, letters stay what they are.
    assert DIGITS in one
    assert DIGITS in content
    assert "sch\u00f6n" in one
    assert json.loads(content)["values"]["text"] == "sch\u00f6n"
    assert re.search(r"^config +\{\}$", one, re.MULTILINE)
    listed = as_json(database, "threads --owner bob", "threads --status busy", "threads --limit 1")
    assert [[row["thread_id"] for row in found] for found in listed][:2] == [["t2"], ["t1"]]
    assert len(listed[2]) == 1


def test_owners(database: str) -> None:
    listed, part, last = as_json(database, "owners", "owners --after dave --limit 1", "owners --after zzz")
    assert {row["owner_id"]: (row["threads"], row["runs_in_flight"]) for row in listed} == {
        "alice": (1, 2),
        "bob": (1, 1),
        "carol": (0, 0),
        "dave": (0, 0),
        EVIL: (0, 0),
        None: (1, 0),
    }
    assert [row["owner_id"] for row in listed] == ["alice", "bob", "carol", "dave", EVIL, None]
    assert [row["owner_id"] for row in part] == [EVIL]
    # The rows of nobody come behind all.
    assert [row["owner_id"] for row in last] == [None]
    text, some = found(database, "owners", "owners --limit 2 --after alice")
    table = rows(text)
    assert table["alice"][:2] == ["1", "2"]
    assert table["(none)"][:2] == ["1", "0"]
    assert re.fullmatch(r"[\d.]+ (ms|s|min) ago", table["carol"][2])
    assert [line.split()[0] for line in some.splitlines()[1:3]] == ["bob", "carol"]
    assert some.endswith("there are more owners: see --limit and --after\n")


NOT_THERE: dict[str, tuple[str, ...]] = {
    "no run has the id absent": ("runs", "absent"),
    "no run of this owner has the id later": ("runs", "later", "--owner", "bob"),
    "no run on this thread has the id later": ("runs", "later", "--thread", "t2"),
    "no run of this owner has the id nobodys": ("runs", "nobodys", "--owner", "alice", "--json", "--events"),
    "no thread of this owner has the id t1": ("threads", "t1", "--owner", "bob"),
    "THREAD_ID must not be empty": ("threads", ""),
    "--owner must not be empty": ("threads", "t1", "--owner", ""),
    "--owner holds a control character": ("runs", "--owner", "a\x1b"),
    # As Python has an argument that is not UTF-8.
    "RUN_ID is no text in UTF-8": ("runs", "\udcff"),
    "--thread is no text in UTF-8": ("runs", "--thread", "\udcff"),
}


def test_what_is_not_there(database: str) -> None:
    for says, result in zip(NOT_THERE, looked_up(database, *NOT_THERE.values()), strict=True):
        assert result == (1, "", f"Error: {says}\n")


def test_what_does_not_go_together() -> None:
    commands = (
        "runs --events",
        "runs x --limit 3",
        "runs x --status idle",
        "threads x --status idle",
        "owners --limit 0",
    )
    for status, output, errors in looked_up("", *map(str.split, commands)):
        assert (status, output) == (2, "")
        assert "Error: " in errors


def test_without_a_database() -> None:
    for result in looked_up("", ["runs"], ["runs", "x"], ["threads"], ["threads", "x"], ["owners"]):
        assert result == (
            1,
            "",
            "Error: DATABASE_URL is not set: this command needs a database; serve --embedded shows the one that it has when it starts\n",
        )


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("nonsense", "DATABASE_URL is not a connection string"),
        ("postgresql://app:hunter2@127.0.0.1:1/app", "nothing listens at that address"),
    ],
)
def test_with_a_wrong_database(url: str, says: str) -> None:
    result = run("runs", DATABASE_URL=url)
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert result.stderr.startswith("Error: ")
    assert says in result.stderr
    assert "hunter2" not in result.stderr


def test_with_a_database_of_another_revision(make_database: MakeDatabase) -> None:
    result = run("owners", DATABASE_URL=make_database())
    assert (result.returncode, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
    assert "storage-service migrate" in result.stderr


def test_a_narrow_terminal(database: str) -> None:
    """Every line fits, and the ids are whole."""
    terminal, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    with os.fdopen(terminal, "rb", buffering=0) as reader, os.fdopen(side, "wb", buffering=0) as writer:
        subprocess.run(
            [sys.executable, "-m", "storage_service", "runs", "--owner", "alice"],
            env={"PATH": "/usr/bin:/bin", "DATABASE_URL": database, "COLUMNS": "80"},
            stdout=writer,
            timeout=30,
            check=True,
        )
        lines = reader.read(65536).decode().splitlines()
    assert max(map(len, lines)) == 80
    assert any(line.startswith(f"{LEASED}  ") and line.endswith("..") for line in lines)


ROWS, OWNERS = 6_000, 20


def many(url: str) -> None:
    filled(url)
    owner = f"jsonb_build_object('owner', 'owner-' || n % {OWNERS})"
    statements(
        url,
        *(
            f"INSERT INTO langgraph_server.{table} (id, metadata{more}) SELECT 'id-' || n, {owner}{values}"
            f" FROM generate_series(1, {ROWS}) AS n"
            for table, more, values in (
                ("threads", "", ""),
                ("runs", ", status", ", CASE n % 100 WHEN 0 THEN 'pending' ELSE 'success' END"),
                ("assistants", ", graph_id", ", 'g'"),
                ("crons", ", schedule", ", '@daily'"),
            )
        ),
        "INSERT INTO langgraph_server.store_items (namespace, key, owner_id)"
        f" SELECT 'n', 'key-' || n, 'owner-' || n % {OWNERS} FROM generate_series(1, {ROWS}) AS n",
        "ANALYZE",
    )


def test_many_rows_are_not_read_for_a_few_owners(postgres_server: PostgresServer) -> None:
    url = postgres_server.url(postgres_server.template("lookup of many", many))

    def read(statement: str, *values: Any) -> tuple[int, set[str]]:
        """How many rows the plan of a statement read in tables and their indexes, and how it read them."""
        explained = conn.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), values).fetchone()
        assert explained is not None
        nodes = [node for node in plan_nodes(explained[0][0]["Plan"]) if "Relation Name" in node]
        return round(sum(node["Actual Rows"] * node["Actual Loops"] for node in nodes)), {
            node["Node Type"] for node in nodes
        }

    with psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor) as conn:
        for after in ([], ["owner-2"]):
            count, kinds = read(lookups.owners_statement("".join(after)), 6, *after)
            assert count <= 6 * 5
            assert kinds == {"Index Only Scan"}
        with conn.transaction():
            conn.execute(lookups.BY_INDEX[0].encode())
            count, kinds = read(lookups.figures_statement(False), ["owner-1", "owner-2"])
        assert kinds <= {"Index Only Scan", "Index Scan"}
        assert count <= 2 * (ROWS // OWNERS + ROWS // OWNERS // 10 + 5)
    (listed,) = as_json(url, "owners --after dave --limit 3")
    assert [row["threads"] for row in listed] == [0, ROWS // OWNERS, ROWS // OWNERS]


def plan_nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for inner in plan.get("Plans", ()) for node in plan_nodes(inner))]


def test_a_count_ends_somewhere(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "owner_id": "o",
        "threads": lookups.MOST_COUNTED + 1,
        "runs_in_flight": lookups.MOST_COUNTED,
        "updated_at": "",
    }
    cells = owner_row(row, datetime.now(UTC))
    assert (cells["threads"], cells["in flight"]) == ("100,000+", "100,000")
    monkeypatch.setattr(lookups, "MOST_COUNTED", 0)
    with psycopg.connect(database, cursor_factory=psycopg.RawCursor) as conn:
        found = conn.execute(lookups.figures_statement(False).encode(), [["alice"]]).fetchone()
    assert found is not None
    assert json.loads(found[0])["runs_in_flight"] == 1
