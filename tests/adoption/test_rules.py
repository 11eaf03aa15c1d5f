"""Every numbered rule of adoption, on rows of both runtimes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from storage_service.schedule import next_tick
from storage_service.store.postgres.doctor import examine
from storage_service.store.postgres.migrate import LATEST, MIGRATIONS, migrate, revision
from tests.adoption import runtimes
from tests.adoption.runtimes import row, rows, statements
from tests.postgres_server import MakeDatabase

NAMES = [migration.name for migration in MIGRATIONS]


async def test_an_empty_database_gets_everything(empty: str) -> None:
    applied = await migrate(empty)
    assert applied[0].startswith("langgraph-checkpoint-postgres ")
    assert applied[1:] == NAMES
    async with await psycopg.AsyncConnection.connect(empty) as conn:
        assert await revision(conn) == LATEST == len(MIGRATIONS)
    assert rows(empty, "SELECT max(v) AS v FROM checkpoint_migrations") == [{"v": 9}]
    report = await examine(empty)
    assert report.findings == []
    assert report.lines()[-1] == "nothing to report"


async def test_the_revision_of_an_untouched_database_is_0(either: str) -> None:
    async with await psycopg.AsyncConnection.connect(either) as conn:
        assert await revision(conn) == 0


async def test_the_second_time_changes_nothing(legacy: str) -> None:
    await migrate(legacy)
    before = dump(legacy)
    assert await migrate(legacy) == []
    assert dump(legacy) == before


async def test_adopting_again_changes_nothing(legacy: str) -> None:
    await migrate(legacy)
    before = dump(legacy)
    statements(legacy, "DELETE FROM langgraph_server.storage_service_migrations WHERE revision > 0")
    assert await migrate(legacy) == NAMES
    assert dump(legacy) == before


async def test_no_row_is_lost_and_no_content_changes(legacy: str) -> None:
    before = runtimes.contents(legacy)
    checkpoints = {name: rows(legacy, f"SELECT * FROM {name}") for name in ("checkpoints", "checkpoint_blobs", "store")}
    await migrate(legacy)
    after = runtimes.contents(legacy)
    for table in set(before) - {"store_items"}:
        assert after[table].keys() == before[table].keys()
        for key, old in before[table].items():
            assert after[table][key] == whole(table, old, after), (table, key)
    kept = [(item["value"], item["updated_at"]) for item in after["store_items"].values()]
    kept += [
        (item["value"], item["updated_at"])
        for item in rows(legacy, "SELECT * FROM langgraph_server.store_items_displaced")
    ]
    assert len(kept) == len(before["store_items"])
    for item in before["store_items"].values():
        assert (runtimes.unwrapped(item["value"]), item["updated_at"]) in kept
    for name, old_rows in checkpoints.items():
        assert rows(legacy, f"SELECT * FROM {name}") == old_rows


def whole(table: str, old: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """A row as adoption has to leave it."""
    new = {column: runtimes.unwrapped(value) for column, value in old.items()}
    if table == "runs" and "owner" not in new["metadata"]:
        thread = after["threads"].get((new["thread_id"],))
        new["metadata"] |= {"owner": thread["metadata"]["owner"]} if thread else {}
    return new


def dump(url: str) -> dict[str, Any]:
    tables = [*runtimes.KEYS, "store_items_displaced"]
    return {table: rows(url, f"SELECT t.*, xmin FROM langgraph_server.{table} t ORDER BY 1, 2") for table in tables}


async def test_1_documents_in_strings_are_unwrapped(legacy: str) -> None:
    assert (await examine(legacy)).find("double_encoded_threads")
    await migrate(legacy)
    thread = row(legacy, "threads", runtimes.TS_THREAD_ENCODED)
    assert thread["owner_id"] == "bob"
    assert thread["metadata"] == {"owner": "bob", "title": 'ä "q" \\ 🎈'}
    # Encoded three times; a text within the document stays text.
    assert thread["values"] == {"messages": [{"content": '{"nested": "text"}'}]}
    (state,) = rows(
        legacy, "SELECT * FROM langgraph_server.thread_states WHERE thread_id = %s", runtimes.TS_THREAD_ENCODED
    )
    assert state["parent_checkpoint"] == {"checkpoint_id": "checkpoint_1717999999999_aaaaaa"}
    assert (state["values"], state["metadata"], state["tasks"], state["interrupts"]) == (
        {"messages": []},
        {"step": 1},
        [],
        [],
    )
    assert row(legacy, "assistants", runtimes.TS_ASSISTANT)["context"] == {}
    report = await examine(legacy)
    assert not [finding for finding in report.findings if finding.code.startswith("double_encoded")]


async def test_2_namespaces_get_one_spelling(legacy: str) -> None:
    spelled = (await examine(legacy)).find("namespace_spelling")
    assert spelled
    assert spelled.count == 12
    clash = (await examine(legacy)).find("namespace_clash")
    assert clash
    assert clash.count == 3
    await migrate(legacy)
    items = rows(legacy, "SELECT * FROM langgraph_server.store_items WHERE owner_id = 'alice' ORDER BY namespace, key")
    found = {(item["namespace"], item["key"]): item["value"] for item in items}
    assert found == {
        ("a b.c", "k3"): {"v": 1},
        ("clash.one", "k"): {"v": "newer"},
        ("clash.two", "k"): {"v": "newer"},
        ("org.user", "k1"): {"v": "py"},
        ("org.user", "k2"): {"v": "py list"},
        ("org.user", "t1"): {"v": "ts"},
        ("texts", "null"): None,
        ("texts", "number"): 123,
        ("texts", "string"): "just text",
        ("three.way", "k"): {"v": "newest"},
        ("{broken", "k"): {"v": 0},
        ('{"",a}', "k"): {"v": 0},
    }
    assert all(item["version"] >= 1 for item in items)
    displaced = rows(legacy, "SELECT * FROM langgraph_server.store_items_displaced ORDER BY namespace, value")
    assert {(item["namespace"], item["value"]["v"]) for item in displaced} == {
        ("{clash.one}", "older"),
        ("clash.two", "older"),
        ("{three.way}", "oldest"),
        ("{three,way}", "middle"),
    }
    report = await examine(legacy)
    assert report.find("items_displaced")
    unreachable = report.find("namespace_unreachable")
    assert unreachable
    assert unreachable.count == 2


@pytest.mark.parametrize(
    ("spelling", "canonical"),
    [
        ("a", "a"),
        ("a.b", "a.b"),
        ("{a}", "a"),
        ("{a.b}", "a.b"),
        ("{a,b}", "a.b"),
        ("{a.b,c}", "a.b.c"),
        ('{"a b",c}', "a b.c"),
        ('{"with \\"quotes\\"","back\\\\slash"}', 'with "quotes".back\\slash'),
        ('{"NULL"}', "NULL"),
        ('{"{x}"}', "{x}"),
        ("{ä,🎈}", "ä.🎈"),
        ("{}", ""),
        ("{NULL}", "{NULL}"),
        ("{{a},{b}}", "{{a},{b}}"),
        ('{"",a}', '{"",a}'),
        ("{a", "{a"),
        ("{a}b", "{a}b"),
        ('{"a}', '{"a}'),
        ("{a,}", "{a,}"),
        ("[0:1]={a,b}", "[0:1]={a,b}"),
    ],
)
async def test_2_every_spelling(empty: str, spelling: str, canonical: str) -> None:
    await migrate(empty)
    (found,) = rows(empty, "SELECT langgraph_server.canonical_namespace(%s) AS namespace", spelling)
    assert found["namespace"] == canonical


async def test_3_ids_stay_as_they_are(legacy: str) -> None:
    await migrate(legacy)
    for table, id in (
        ("assistants", runtimes.PY_ASSISTANT),
        ("assistants", runtimes.TS_ASSISTANT),
        ("threads", runtimes.PY_THREAD),
        ("threads", runtimes.TS_THREAD),
        ("runs", runtimes.PY_RUN),
        ("runs", runtimes.TS_RUN),
    ):
        assert row(legacy, table, id)["id"] == id
    assert rows(legacy, "SELECT 1 FROM langgraph_server.thread_states WHERE checkpoint_id = %s", runtimes.TS_CHECKPOINT)


async def test_4_runs_inherit_the_owner_and_the_rest_is_listed(legacy: str) -> None:
    await migrate(legacy)
    assert row(legacy, "runs", runtimes.TS_RUN)["owner_id"] == "bob"
    # Its thread's metadata had to be unwrapped first.
    encoded = row(legacy, "runs", runtimes.TS_RUN_ENCODED)
    assert encoded["metadata"] == {"source": "ui", "owner": "bob"}
    assert encoded["kwargs"] == {"input": {"x": [1, 2]}}
    assert row(legacy, "runs", runtimes.TS_RUN_ORPHAN)["owner_id"] is None
    assert row(legacy, "assistants", runtimes.TS_ASSISTANT)["owner_id"] is None
    report = await examine(legacy)
    assert {finding.code: finding.ids for finding in report.findings if finding.code.startswith("ownerless")} == {
        "ownerless_assistants": (runtimes.TS_ASSISTANT,),
        "ownerless_runs": (runtimes.TS_RUN_ORPHAN,),
    }


async def test_5_no_parent_is_null_and_lost_threads_are_reported(legacy: str) -> None:
    assert (await examine(legacy)).find("parent_json_null")
    await migrate(legacy)
    states = rows(
        legacy, "SELECT * FROM langgraph_server.thread_states WHERE thread_id = %s ORDER BY id", runtimes.PY_THREAD
    )
    assert [state["parent_checkpoint"] for state in states] == [None, {"checkpoint_id": f"{1:032x}"}, None]
    assert not rows(legacy, "SELECT 1 FROM langgraph_server.thread_states WHERE parent_checkpoint = 'null'")
    finding = (await examine(legacy)).find("runs_without_thread")
    assert finding
    assert finding.ids == (runtimes.TS_RUN_ORPHAN,)


async def test_6_checkpoints_without_a_thread_are_reported(legacy: str) -> None:
    for _ in ("before", "after"):
        finding = (await examine(legacy)).find("checkpoints_without_thread")
        assert finding
        assert finding.ids == (runtimes.CHECKPOINT_THREAD,)
        await migrate(legacy)


async def test_what_the_service_adds_is_filled(legacy: str) -> None:
    await migrate(legacy)
    assistant = row(legacy, "assistants", runtimes.PY_ASSISTANT)
    assert (assistant["version"], assistant["last_version"], assistant["owner_id"]) == (4, 4, "alice")
    thread = row(legacy, "threads", runtimes.PY_THREAD)
    assert str(thread["state_updated_at"].isoformat()) == "2024-03-02T10:00:03+00:00"
    assert thread["visibility"] == "private"
    assert row(legacy, "crons", runtimes.PY_CRON)["enabled"]
    assert not row(legacy, "crons", runtimes.PY_CRON_SECONDS)["enabled"]
    finding = (await examine(legacy)).find("crons_without_schedule")
    assert finding
    assert finding.ids == (runtimes.PY_CRON_SECONDS,)


async def test_a_cron_without_a_next_tick_gets_one(empty: str) -> None:
    runtimes.tables(empty)
    crons: dict[str, dict[str, Any]] = {
        "daily": {"schedule": "30 9 * * *"},
        "alias": {"schedule": "@Daily", "end_time": "infinity"},
        "until": {"schedule": "0 0 1 1 *", "end_time": "10000-01-01"},
        "dated": {"schedule": "30 9 * * *", "next_run_date": "2024-01-01 00:00+00"},
        "ended": {"schedule": "30 9 * * *", "end_time": "2024-01-01 00:00+00"},
        "seconds": {"schedule": "0 30 9 * * *"},
        "broken": {"schedule": "61 9 * * *"},
        "unknown": {"schedule": "@reboot"},
        "never": {"schedule": "0 0 30 2 *"},
    }
    early = "2024-05-06 07:08:09+00"
    with psycopg.connect(empty, autocommit=True) as conn:
        for id, columns in crons.items():
            runtimes.insert(conn, "crons", id=id, metadata={"owner": "alice"}, updated_at=early, **columns)
        conn.execute(
            "INSERT INTO langgraph_server.crons (id, schedule) SELECT 'many-' || n, '@daily' FROM generate_series(1, 450) AS n"
        )
    await migrate(empty)
    ticks = "SELECT id, next_run_date, updated_at = %s AS kept FROM langgraph_server.crons WHERE NOT id LIKE 'many-%%' ORDER BY id"
    with psycopg.connect(empty, autocommit=True) as conn:
        now = datetime.now(UTC)
        found = {id: tick for id, tick, kept in conn.execute(ticks, [early]) if kept}
        assert found == {
            "daily": next_tick("30 9 * * *", "UTC", now),
            "alias": next_tick("@daily", "UTC", now),
            "until": next_tick("0 0 1 1 *", "UTC", now),
            "dated": datetime(2024, 1, 1, tzinfo=UTC),
            **dict.fromkeys(("ended", "seconds", "broken", "unknown", "never")),
        }
        many = "SELECT count(*), min(next_run_date) FROM langgraph_server.crons WHERE id LIKE 'many-%' AND next_run_date > now()"
        assert conn.execute(many).fetchone() == (450, next_tick("@daily", "UTC", now))
        # What a runtime adds later has its tick from the next start, in its own zone and not after its end.
        for id, end in (("later", None), ("short", now + timedelta(seconds=1))):
            conn.execute(
                "INSERT INTO langgraph_server.crons (id, schedule, timezone, end_time) VALUES (%s, '0 0 1 1 *', 'Asia/Tokyo', %s)",
                [id, end],
            )
        assert await migrate(empty) == []
        assert row(empty, "crons", "later")["next_run_date"] == next_tick("0 0 1 1 *", "Asia/Tokyo", now)
        assert row(empty, "crons", "short")["next_run_date"] is None


async def test_a_database_of_one_table(empty: str) -> None:
    statements(
        empty,
        "CREATE SCHEMA langgraph_server",
        "CREATE TABLE langgraph_server.runs (id TEXT PRIMARY KEY, metadata JSONB, status TEXT)",
        "INSERT INTO langgraph_server.runs VALUES ('r', NULL, NULL), ('s', 'null', 'success')",
    )
    await migrate(empty)
    run = row(empty, "runs", "r")
    assert (run["metadata"], run["kwargs"], run["status"], run["multitask_strategy"]) == ({}, {}, "pending", "reject")
    assert row(empty, "runs", "s")["metadata"] == {}


async def test_columns_that_hold_null(make_database: MakeDatabase) -> None:
    url = make_database()
    runtimes.tables(url)
    with psycopg.connect(url, autocommit=True) as conn:
        for table, columns in runtimes.COLUMNS.items():
            for column in set(columns.split()) - {
                *runtimes.KEYS[table],
                "thread_id",
                "graph_id",
                "checkpoint_id",
                "schedule",
            }:
                conn.execute(
                    f'ALTER TABLE langgraph_server.{table} ALTER "{column}" DROP NOT NULL, ALTER "{column}" DROP DEFAULT'
                )
        conn.execute("INSERT INTO langgraph_server.assistants (id, graph_id) VALUES ('a', 'g')")
        conn.execute("INSERT INTO langgraph_server.threads (id) VALUES ('t')")
        conn.execute("INSERT INTO langgraph_server.thread_states (thread_id, checkpoint_id) VALUES ('t', 'c')")
        conn.execute("INSERT INTO langgraph_server.runs (id) VALUES ('r')")
        conn.execute("INSERT INTO langgraph_server.store_items (namespace, key, owner_id) VALUES ('{n}', 'k', 'o')")
        conn.execute("INSERT INTO langgraph_server.crons (id, schedule) VALUES ('c', '@daily')")
    await migrate(url)
    assert (await examine(url)).needs_attention is False
    for table, found in runtimes.contents(url).items():
        (only,) = found.values()
        nullable = {
            "name",
            "description",
            "thread_id",
            "assistant_id",
            "parent_checkpoint",
            "end_time",
            "user_id",
            "next_run_date",
        }
        assert not [column for column, value in only.items() if value is None and column not in nullable], table


async def test_rows_that_no_client_can_read_are_kept_and_reported(legacy: str) -> None:
    with psycopg.connect(legacy, autocommit=True) as conn:
        conn.execute("UPDATE langgraph_server.threads SET updated_at = 'infinity' WHERE id = %s", (runtimes.TS_THREAD,))
        conn.execute(
            "UPDATE langgraph_server.thread_states SET created_at = 'infinity' WHERE checkpoint_id = %s", (f"{3:032x}",)
        )
        conn.execute("UPDATE langgraph_server.crons SET end_time = '10000-01-01' WHERE id = %s", (runtimes.PY_CRON,))
        runtimes.insert(conn, "assistants", id="strange", graph_id="g", metadata=Jsonb("{not json"))
        runtimes.insert(conn, "threads", id="bell\a", metadata={"owner": "o"}, status="sleeping")
    await migrate(legacy)
    report = await examine(legacy)
    for code, id in (
        ("time_out_of_range_threads", runtimes.TS_THREAD),
        ("time_out_of_range_crons", runtimes.PY_CRON),
        ("not_an_object_assistants", "strange"),
        ("unreachable_id_threads", "bell\a"),
        ("unknown_status_threads", "bell\a"),
    ):
        finding = report.find(code)
        assert finding, code
        assert finding.ids == (id,)
    assert report.needs_attention
    assert report.find("time_out_of_range_thread_states")
    # The newest of the other states.
    (thread,) = rows(legacy, "SELECT state_updated_at FROM langgraph_server.threads WHERE id = %s", runtimes.PY_THREAD)
    assert thread["state_updated_at"].isoformat() == "2024-03-02T10:00:02+00:00"


async def test_many_rows_are_walked_to_the_end(make_database: MakeDatabase) -> None:
    url = make_database()
    runtimes.tables(url)
    statements(
        url,
        "INSERT INTO langgraph_server.threads (id, metadata)"
        """ SELECT 't' || n, to_jsonb('{"owner": "o' || n % 3 || '"}') FROM generate_series(1, 2500) n""",
        "INSERT INTO langgraph_server.runs (id, thread_id) SELECT 'r' || n, 't' || n FROM generate_series(1, 2500) n",
        "INSERT INTO langgraph_server.store_items (namespace, key, owner_id, updated_at)"
        " SELECT s, 'k' || n, 'o', now() FROM generate_series(1, 1500) n, unnest(ARRAY['{a.b}', '{a,b}', 'a.b']) s",
        "INSERT INTO langgraph_server.crons (id, schedule)"
        " SELECT 'c' || n, '* * * * * *' FROM generate_series(1, 1100) n",
    )
    await migrate(url)
    assert rows(url, "SELECT count(*) FROM langgraph_server.runs WHERE owner_id IS NOT NULL") == [{"count": 2500}]
    assert rows(url, "SELECT DISTINCT namespace, count(*) FROM langgraph_server.store_items GROUP BY 1") == [
        {"namespace": "a.b", "count": 1500}
    ]
    assert rows(url, "SELECT count(*) FROM langgraph_server.store_items_displaced") == [{"count": 3000}]
    assert rows(url, "SELECT count(*) FROM langgraph_server.crons WHERE enabled") == [{"count": 0}]
