"""The triggers that put a runtime's rows right leave alone what the service writes, and nobody's row loses its owner."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb

from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.store.postgres.assign_owner import assign_owner
from storage_service.store.postgres.connect import connection_string
from storage_service.store.postgres.migrate import migrate
from tests.adoption import runtimes
from tests.adoption.runtimes import row, rows
from tests.postgres_server import MakeDatabase
from tests.service import Api, DirectApi

# JSON of a string whose text is JSON: what a client sends that means the text.
TEXTS = [json.dumps(text) for text in ('{"a":1}', "[1]", '"{}"', '{"owner":"x"}')]


@pytest.fixture(params=[False, True], ids=["direct", "pooler"])
async def service(request: pytest.FixtureRequest, empty: str) -> AsyncIterator[Api]:
    """The service on the database ``empty``, with settings of its sessions and, as behind a pooler, without any."""
    await migrate(empty)
    store = PostgresStore(DatabaseSettings(empty, transaction_pooler=request.param))
    await store.start(30)
    assert not store.trouble()
    yield DirectApi(build_pipeline(Settings(anonymous_rights="unscoped,admin"), store), "postgres")
    await store.close()


@pytest.mark.parametrize("text", TEXTS)
async def test_a_string_that_holds_json_stays_a_string(service: Api, owner: str, text: str) -> None:
    at: dict[str, Any] = {"owner_id": owner, "thread_id": "t"}
    created = (await service.call("CreateThread", **at, values=text, interrupts=text)).thread
    assert (created.values, created.interrupts) == (text, text)
    await service.call("UpdateThread", **at, values="{}", interrupts="{}")
    updated = (await service.call("UpdateThread", **at, values=text, interrupts=text)).thread
    assert (updated.values, updated.interrupts) == (text, text)
    await service.call("UpdateThread", **at, values="{}", interrupts="{}")
    stopped = (await service.call("SetThreadStatus", **at, values=text, interrupts=text)).thread
    assert (stopped.values, stopped.interrupts) == (text, text)
    state = (await service.call("AddThreadState", **at, checkpoint_id="c", values=text, interrupts=text)).state
    assert (state.values, state.interrupts) == (text, text)
    copy = (await service.call("CopyThread", **at, new_thread_id="copy")).thread
    assert (copy.values, copy.interrupts) == (text, text)
    read = (await service.call("GetThreadState", owner_id=owner, thread_id="copy")).state
    assert (read.values, read.interrupts) == (text, text)


@pytest.mark.parametrize("text", TEXTS)
async def test_a_string_stays_a_string_when_others_change_the_rest_of_its_row(
    service: Api, empty: str, owner: str, text: str
) -> None:
    at: dict[str, Any] = {"owner_id": owner, "thread_id": "t"}
    await service.call("CreateThread", **at, values=text, interrupts=text)
    await service.call("AddThreadState", **at, checkpoint_id="c", values=text, interrupts=text, tasks=f"[{text}]")
    await service.call("CreateThread", thread_id="nobodys", values=text, interrupts=text)
    # The service itself.
    await service.call("UpdateThread", **at, status="THREAD_STATUS_BUSY", metadata='{"a": 1}', config='{"b": 2}')
    await service.call("SetThreadStatus", **at)
    # A runtime, and the operator's command.
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("UPDATE langgraph_server.threads SET status = 'busy', updated_at = now()")
        conn.execute("UPDATE langgraph_server.threads SET metadata = metadata || %s", (Jsonb({"title": "new"}),))
        conn.execute("UPDATE langgraph_server.thread_states SET metadata = %s, tasks = tasks", (Jsonb({"a": 1}),))
    assert await assign_owner(empty, owner, resources=["threads"], all_ownerless=True) == {"threads": 1}
    for thread_id in ("t", "nobodys"):
        thread = row(empty, "threads", thread_id)
        assert [json.dumps(thread[name]) for name in ("values", "interrupts")] == [json.dumps(json.loads(text))] * 2
    [state] = rows(empty, "SELECT * FROM langgraph_server.thread_states")
    assert (state["values"], state["interrupts"], state["tasks"]) == (json.loads(text),) * 2 + ([json.loads(text)],)


async def test_a_server_behind_a_pooler_leaves_the_migration_to_others(make_database: MakeDatabase) -> None:
    store = PostgresStore(DatabaseSettings(make_database(), transaction_pooler=True))
    await store.start(30)
    assert "run storage-service migrate" in store.trouble()
    await store.close()


async def test_every_row_is_stored_as_it_is_with_settings_of_the_session(
    make_database: MakeDatabase, owner: str
) -> None:
    stored = []
    ways: tuple[dict[str, Any], ...] = ({}, {"transaction_pooler": True}, {"prepared_statements": False})
    for settings in ways:
        url = make_database()
        await migrate(url)
        store = PostgresStore(DatabaseSettings(url, **settings))
        await store.start(30)
        try:
            api = DirectApi(build_pipeline(Settings(anonymous_rights="unscoped,admin"), store), "postgres")
            for text in (*TEXTS, '"plain"', "null", "7", "[1]", '{"a": "{}"}'):
                await _write_everything(api, owner, f"{TEXTS.index(text) if text in TEXTS else text!r}", text)
        finally:
            await store.close()
        stored.append(
            {
                table: rows(url, _CONTENT.format(table=table))
                for table in (*runtimes.KEYS, "assistant_versions", "run_events")
            }
        )
    assert all(len(found) > 8 for found in stored[0].values())
    assert stored[0] == stored[1] == stored[2]


# Everything in a row but its times, and what follows from them.
_CONTENT = (
    "SELECT to_jsonb(t) - ARRAY['created_at', 'updated_at', 'state_updated_at', 'finished_at', 'expires_at', 'run_after',"
    " 'lease_token', 'settled_token', 'position'] AS content FROM langgraph_server.{table} AS t ORDER BY 1"
)


async def _write_everything(api: Api, owner: str, id: str, text: str) -> None:
    """A row of each kind, written in each way, with ids from ``id`` and the JSON ``text`` wherever it may stand."""
    scope: dict[str, Any] = {"owner_id": owner}
    document = f'{{"a": {text}}}'
    thread: dict[str, Any] = {**scope, "thread_id": f"t{id}"}
    assistant: dict[str, Any] = {**scope, "assistant_id": f"a{id}"}
    objects: dict[str, Any] = {"metadata": document, "config": document}
    await api.call(
        "CreateAssistant", **assistant, **objects, context=document, graph_id="g", name="n", description=text
    )
    await api.call("UpdateAssistant", **assistant, **objects, context=document, name=text)
    await api.call("SetLatestAssistantVersion", **assistant, version=1)
    await api.call("CreateThread", **thread, **objects, values=text, interrupts=text)
    await api.call("UpdateThread", **thread, **objects, values=text, interrupts=text, error=text)
    state: dict[str, Any] = {"values": text, "interrupts": text, "metadata": document, "tasks": f"[{text}]"}
    await api.call("AddThreadState", **thread, **state, checkpoint_id="1", next=["n"], parent_checkpoint=document)
    await api.call("AddThreadState", **thread, **state, checkpoint_id="2", parent_checkpoint="null")
    await api.call("SetThreadStatus", **thread, values=text, interrupts=text, error=text)
    await api.call("CopyThread", **thread, new_thread_id=f"c{id}")
    run: dict[str, Any] = {**thread, "assistant_id": f"a{id}", "metadata": document, "kwargs": document}
    await api.call("CreateRun", **run, run_id=f"r{id}")
    await api.call("CreateRun", **run, run_id=f"recorded{id}", record_only=True)
    await api.call("UpdateRun", **scope, run_id=f"r{id}", status="RUN_STATUS_ERROR", kwargs=document, error=text)
    await api.call(
        "CreateRun", **run | {"thread_id": f"q{id}", "run_id": f"q{id}"}, if_not_exists="IF_NOT_EXISTS_CREATE"
    )
    [claimed] = (await api.call("ClaimRuns", **scope, worker_id="w")).runs
    held: dict[str, Any] = {**scope, "run_id": f"q{id}", "lease_token": claimed.lease_token}
    await api.call("AppendRunEvents", **held, first_sequence=1, events=[{"type": text}])
    left: dict[str, Any] = {"values": document, "interrupts": document, "error": text}
    await api.call("FinishRun", **held, status="RUN_STATUS_ERROR", **left)
    cron: dict[str, Any] = {"schedule": "0 0 1 1 *", "payload": document, "metadata": document, "enabled": False}
    await api.call("CreateCron", **thread, assistant_id=f"a{id}", cron_id=f"k{id}", **cron)
    await api.call("UpdateCron", **scope, cron_id=f"k{id}", **cron)
    item: dict[str, Any] = {"namespace": ["{a,b}"], "key": f"i{id}", "value": text, "metadata": document}
    await api.call("PutItem", **scope, **item, ttl_minutes=5)
    await api.call("PutItem", **scope, **item)


async def test_a_runtimes_string_beside_the_service_is_unwrapped(service: Api, empty: str, owner: str) -> None:
    await service.call("CreateThread", owner_id=owner, thread_id="t", values=TEXTS[0])
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("UPDATE langgraph_server.threads SET \"values\" = %s, status = 'busy'", (Jsonb('{"b": 2}'),))
        runtimes.insert(conn, "thread_states", thread_id="t", checkpoint_id="c", values=runtimes.encoded({"c": 3}, 2))
    thread = (await service.call("GetThread", owner_id=owner, thread_id="t")).thread
    state = (await service.call("GetThreadState", owner_id=owner, thread_id="t")).state
    assert (json.loads(thread.values), json.loads(state.values)) == ({"b": 2}, {"c": 3})


async def test_the_other_rules_hold_for_the_service_too(service: Api, empty: str, owner: str) -> None:
    await service.call("CreateThread", owner_id=owner, thread_id="t", values=TEXTS[0])
    await service.call("CreateAssistant", owner_id=owner, assistant_id="a", graph_id="g")
    await service.call("CreateRun", run_id="r", thread_id="t", assistant_id="a", kwargs='{"text": "{}"}')
    run, assistant = row(empty, "runs", "r"), row(empty, "assistants", "a")
    assert (run["owner_id"], run["kwargs"]) == (owner, {"text": "{}"})
    assert (assistant["version"], assistant["last_version"]) == (1, 1)


async def test_the_service_adopts_what_the_runtimes_left(legacy: str) -> None:
    await migrate(connection_string(DatabaseSettings(legacy)))
    thread = row(legacy, "threads", runtimes.TS_THREAD_ENCODED)
    assert (thread["owner_id"], thread["interrupts"]) == ("bob", {})
    assert thread["values"] == {"messages": [{"content": '{"nested": "text"}'}]}
    found = rows(legacy, "SELECT jsonb_typeof(tasks) AS tasks FROM langgraph_server.thread_states")
    assert {state["tasks"] for state in found} == {"array"}


@pytest.mark.parametrize("table", ["assistants", "threads", "runs", "crons"])
@pytest.mark.parametrize(
    ("replacement", "kept"),
    [
        (Jsonb({"a": 1}), {"a": 1, "owner": "alice"}),
        (runtimes.encoded({"a": 1}, 2), {"a": 1, "owner": "alice"}),
        (Jsonb({"owner": None}), {"owner": "alice"}),
        (Jsonb(None), {"owner": "alice"}),
        (Jsonb({"owner": "bob"}), {"owner": "bob"}),
        (runtimes.encoded({"owner": "bob"}), {"owner": "bob"}),
    ],
    ids=["object", "encoded", "null-owner", "null", "another", "another-encoded"],
)
async def test_a_row_keeps_its_owner_when_its_metadata_is_replaced(
    empty: str, table: str, replacement: Jsonb, kept: dict[str, object]
) -> None:
    await migrate(empty)
    needed: dict[str, dict[str, object]] = {"assistants": {"graph_id": "g"}, "crons": {"schedule": "@daily"}}
    with psycopg.connect(empty, autocommit=True) as conn:
        runtimes.insert(conn, table, id="mine", metadata={"owner": "alice", "b": 2}, **needed.get(table, {}))
        runtimes.insert(conn, table, id="nobodys", metadata={"b": 2}, **needed.get(table, {}))
        conn.execute(f"UPDATE langgraph_server.{table} SET metadata = %s WHERE id = 'mine'", (replacement,))
        conn.execute(f"UPDATE langgraph_server.{table} SET metadata = %s WHERE id = 'nobodys'", (Jsonb({"a": 1}),))
    assert (row(empty, table, "mine")["metadata"], row(empty, table, "mine")["owner_id"]) == (kept, kept["owner"])
    assert (row(empty, table, "nobodys")["metadata"], row(empty, table, "nobodys")["owner_id"]) == ({"a": 1}, None)


async def test_an_upsert_keeps_the_owner(empty: str) -> None:
    await migrate(empty)
    upsert = (
        "INSERT INTO langgraph_server.threads (id, metadata) VALUES ('t', %s)"
        " ON CONFLICT (id) DO UPDATE SET metadata = EXCLUDED.metadata"
    )
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute(upsert, (Jsonb({"owner": "alice"}),))
        conn.execute(upsert, (Jsonb({"a": 1}),))
    assert row(empty, "threads", "t")["metadata"] == {"a": 1, "owner": "alice"}


async def test_the_owner_still_finds_what_a_runtime_wrote(service: Api, empty: str, owner: str) -> None:
    await service.call("CreateThread", owner_id=owner, thread_id="t")
    await service.call("CreateAssistant", owner_id=owner, assistant_id="a", graph_id="g")
    with psycopg.connect(empty, autocommit=True) as conn:
        conn.execute("UPDATE langgraph_server.threads SET metadata = %s", (Jsonb({"title": "new"}),))
        conn.execute("UPDATE langgraph_server.assistants SET metadata = %s", (Jsonb({"title": "new"}),))
    thread = (await service.call("GetThread", owner_id=owner, thread_id="t")).thread
    assistant = (await service.call("GetAssistant", owner_id=owner, assistant_id="a")).assistant
    assert json.loads(thread.metadata) == json.loads(assistant.metadata) == {"title": "new", "owner": owner}
