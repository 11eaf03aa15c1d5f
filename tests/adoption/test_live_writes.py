"""A runtime that goes on writing directly after adoption is seen as if the service had written."""

from __future__ import annotations

import json
from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb

from storage_service.store.postgres.doctor import examine
from storage_service.store.postgres.migrate import MigrationError, migrate
from tests.adoption import runtimes
from tests.adoption.runtimes import row, rows, statements
from tests.postgres_server import MakeDatabase, PostgresServer

ROOT = Path(__file__).parents[2]
PUT = (
    "INSERT INTO langgraph_server.store_items (namespace, key, value, owner_id) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (namespace, key, owner_id) DO UPDATE SET value = EXCLUDED.value, updated_at = now()"
)


@pytest.fixture
async def adopted(empty: str) -> str:
    await migrate(empty)
    return empty


def item(url: str, key: str) -> dict[str, object]:
    (found,) = rows(url, "SELECT * FROM langgraph_server.store_items WHERE key = %s", key)
    return found


async def test_both_runtimes_fill_an_adopted_database(adopted: str) -> None:
    runtimes.both(adopted)
    assert row(adopted, "threads", runtimes.TS_THREAD_ENCODED)["owner_id"] == "bob"
    assert row(adopted, "runs", runtimes.TS_RUN)["owner_id"] == "bob"
    assert row(adopted, "assistants", runtimes.PY_ASSISTANT)["last_version"] == 4
    assert not row(adopted, "crons", runtimes.PY_CRON_SECONDS)["enabled"]
    codes = {finding.code for finding in (await examine(adopted)).findings}
    assert not [code for code in codes if code.startswith(("double_encoded", "parent", "items_not"))]
    assert codes >= {"ownerless_assistants", "ownerless_runs", "runs_without_thread", "checkpoints_without_thread"}


async def test_inserting_directly_ends_where_adoption_ends(
    postgres_server: PostgresServer, make_database: MakeDatabase
) -> None:
    first, second = make_database(), make_database(postgres_server.template("legacy", runtimes.both))
    await migrate(first)
    runtimes.both(first)
    await migrate(second)
    for table, key in (("threads", "id"), ("assistants", "id"), ("runs", "id"), ("crons", "id")):
        query = f"SELECT {key}, owner_id, metadata FROM langgraph_server.{table} ORDER BY {key}"
        assert rows(first, query) == rows(second, query)


async def test_every_spelling_of_a_namespace_is_the_same_item(adopted: str) -> None:
    with psycopg.connect(adopted, autocommit=True) as conn:
        for number, namespace in enumerate((["a.b"], ["a", "b"], "a.b", "{a,b}"), 1):
            conn.execute(PUT, (namespace, "k", Jsonb({"n": number}), "o"))
            found = item(adopted, "k")
            assert (found["namespace"], found["value"], found["version"]) == ("a.b", {"n": number}, number)


async def test_a_runtimes_value_is_unwrapped_and_the_services_is_not(adopted: str) -> None:
    text = json.dumps({"a": 1})
    with psycopg.connect(adopted, autocommit=True) as conn:
        conn.execute(PUT, ("n", "runtime", Jsonb(text), "o"))
        runtimes.insert(conn, "store_items", namespace="{n}", key="service", value=Jsonb(text), owner_id="o", version=1)
        conn.execute(
            "UPDATE langgraph_server.store_items SET value = %s, version = 2, updated_at = now() WHERE key = 'service'",
            (Jsonb("[1]"),),
        )
    assert item(adopted, "runtime")["value"] == {"a": 1}
    service = item(adopted, "service")
    assert (service["namespace"], service["value"], service["version"]) == ("{n}", "[1]", 2)


async def test_a_refresh_of_the_time_to_live_is_no_put(adopted: str) -> None:
    with psycopg.connect(adopted, autocommit=True) as conn:
        runtimes.insert(
            conn, "store_items", namespace="n", key="k", value=Jsonb("[1]"), owner_id="o", version=7, ttl_minutes=5
        )
        conn.execute("UPDATE langgraph_server.store_items SET expires_at = now() + interval '5 minutes'")
    found = item(adopted, "k")
    assert (found["version"], found["value"], found["ttl_minutes"]) == (7, "[1]", 5)


async def test_a_runtimes_put_revives_an_item_that_has_ended(adopted: str) -> None:
    with psycopg.connect(adopted, autocommit=True) as conn:
        runtimes.insert(
            conn,
            "store_items",
            namespace="n",
            key="k",
            owner_id="o",
            version=3,
            ttl_minutes=1,
            expires_at="2020-01-01 00:00+00",
        )
        conn.execute(PUT, (["n"], "k", Jsonb({"v": "new"}), "o"))
    found = item(adopted, "k")
    assert (found["version"], found["value"], found["expires_at"], found["ttl_minutes"]) == (
        4,
        {"v": "new"},
        None,
        None,
    )


async def test_a_run_keeps_its_owner_when_its_metadata_is_replaced(adopted: str) -> None:
    with psycopg.connect(adopted, autocommit=True) as conn:
        runtimes.insert(conn, "runs", id="r", metadata={"owner": "alice"})
        runtimes.insert(conn, "crons", id="c", schedule="@daily", metadata={"owner": "alice"})
        conn.execute("UPDATE langgraph_server.runs SET metadata = %s", (Jsonb({"a": 1}),))
        conn.execute("UPDATE langgraph_server.crons SET metadata = %s", (runtimes.encoded({"a": 1}),))
    assert row(adopted, "runs", "r")["metadata"] == {"a": 1, "owner": "alice"}
    assert row(adopted, "crons", "c")["owner_id"] == "alice"


async def test_a_runtimes_updates_are_seen(adopted: str) -> None:
    with psycopg.connect(adopted, autocommit=True) as conn:
        runtimes.insert(conn, "threads", id="t", metadata={"owner": "o"})
        runtimes.insert(conn, "assistants", id="a", graph_id="g", metadata={"owner": "o"})
        conn.execute(
            "UPDATE langgraph_server.assistants SET version = version + 1, config = %s", (runtimes.encoded({"a": 1}),)
        )
        conn.execute(
            "UPDATE langgraph_server.threads SET metadata = %s, status = 'busy', values = %s",
            (runtimes.encoded({"owner": "p"}), runtimes.encoded({"v": 1}, 2)),
        )
        runtimes.insert(conn, "thread_states", thread_id="t", checkpoint_id="c", parent_checkpoint=Jsonb(None))
    thread = row(adopted, "threads", "t")
    assert (thread["owner_id"], thread["status"], thread["values"]) == ("p", "busy", {"v": 1})
    assert thread["state_updated_at"] is not None
    assistant = row(adopted, "assistants", "a")
    assert (assistant["version"], assistant["last_version"], assistant["config"]) == (2, 2, {"a": 1})
    assert rows(adopted, "SELECT parent_checkpoint FROM langgraph_server.thread_states") == [
        {"parent_checkpoint": None}
    ]


async def test_large_values_are_left_alone_by_other_updates(adopted: str) -> None:
    statements(
        adopted,
        "INSERT INTO langgraph_server.threads (id, values)"
        """ SELECT 't', jsonb_build_object('v', string_agg(md5(n::text), '')) FROM generate_series(1, 40000) n""",
        "UPDATE langgraph_server.threads SET status = 'busy'",
    )
    with psycopg.connect(adopted, autocommit=True) as conn:
        plan = conn.execute(
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) UPDATE langgraph_server.threads SET status = 'idle' WHERE id = 't'"
        ).fetchone()
    assert plan
    found = plan[0][0]
    # 1.3 MB in chunks of 2 kB: reading them would touch hundreds of pages.
    assert found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"] < 100
    assert found["Triggers"] == [] or {trigger["Calls"] for trigger in found["Triggers"]} == {0}


async def test_a_string_that_only_looks_like_json_stays(adopted: str) -> None:
    texts = ["{", "[1,", '{"a": NaN}', '"text"', "null", "12", "", '{"a": "\\u0000"}', "[" * 20000]
    with psycopg.connect(adopted, autocommit=True) as conn:
        for number, text in enumerate(texts):
            conn.execute(PUT, ("n", str(number), Jsonb(text), "o"))
            assert item(adopted, str(number))["value"] == text


LONG = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 500) n)"


async def test_long_texts_fit_the_indexes(adopted: str) -> None:
    statements(
        adopted,
        f"INSERT INTO langgraph_server.assistants (id, graph_id, name) VALUES ('a', 'g', {LONG})",
        f"INSERT INTO langgraph_server.threads (id, metadata) VALUES ('t', jsonb_build_object('assistant_id', {LONG}))",
        f"INSERT INTO langgraph_server.crons (id, schedule, assistant_id, thread_id) VALUES ('c', '@daily', 'a', {LONG}::varchar(2000))",
    )


async def test_an_owner_that_no_index_holds_is_a_clear_error(legacy: str) -> None:
    statements(
        legacy,
        f"UPDATE langgraph_server.threads SET metadata = jsonb_build_object('owner', {LONG}) WHERE id = '{runtimes.TS_THREAD}'",
    )
    with pytest.raises(MigrationError, match="too long for the index"):
        await migrate(legacy)
    finding = (await examine(legacy)).find("unreachable_owner_threads")
    assert finding
    assert finding.ids == (runtimes.TS_THREAD,)


async def test_going_back_and_coming_again(adopted: str) -> None:
    drops = (ROOT / "docs" / "adoption.md").read_text().split("```sql")[1].split("```")[0]
    statements(adopted, drops, "DELETE FROM langgraph_server.storage_service_migrations")
    assert rows(adopted, "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal") == []
    runtimes.both(adopted)
    assert {finding.code for finding in (await examine(adopted)).findings} >= {
        "double_encoded_threads",
        "items_not_adopted",
    }
    await migrate(adopted)
    assert row(adopted, "threads", runtimes.TS_THREAD_ENCODED)["owner_id"] == "bob"
    assert rows(adopted, "SELECT count(*) FROM langgraph_server.store_items WHERE namespace = 'three.way'") == [
        {"count": 1}
    ]
    assert not (await examine(adopted)).needs_attention
