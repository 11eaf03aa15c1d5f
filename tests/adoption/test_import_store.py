"""Items of LangGraph's own store become items of the service, with their times, their time to live and their vectors."""

from __future__ import annotations

from typing import Any

import pytest
from langgraph.store.postgres import PostgresStore

from agentstorage.v1 import store_pb2 as pb
from storage_service.server import build_pipeline
from storage_service.settings import Limits, Settings
from storage_service.store.postgres import DatabaseSettings
from storage_service.store.postgres import PostgresStore as ServiceStore
from storage_service.store.postgres.doctor import examine
from storage_service.store.postgres.imports.report import Report, SourceError
from storage_service.store.postgres.imports.store_items import import_store
from storage_service.store.postgres.migrate import MigrationError
from tests.adoption.imported import counted
from tests.adoption.runtimes import rows, statements
from tests.service import CallFailed, DirectApi

ITEM = "namespace, key, owner_id, value, version, created_at, updated_at, expires_at, ttl_minutes"


def embed(texts: list[str]) -> list[list[float]]:
    """A vector that tells how often each of two letters is in a text."""
    return [[float(text.count("a")), float(text.count("b")), 1.0] for text in texts]


@pytest.fixture
def store(migrated: str) -> str:
    """A database in which LangGraph's store keeps memories of two users."""
    index: Any = {"dims": 3, "embed": embed, "fields": ["text", "tags[*]"]}
    with PostgresStore.from_conn_string(migrated, index=index, ttl={"refresh_on_read": True}) as own:
        own.setup()
        for user in ("alice", "bob"):
            own.put(("memories", user), "k", {"text": "aab", "of": user})
            own.put(
                ("memories", user, "deep"),
                "k",
                {"text": "b", "tags": ["a", "bb"], "n": 10**20, "s": '{"a": 1}'},
                ttl=90,
            )
        own.put(("alice",), "plain", {"text": "no"}, index=False)
    # Longer ago than this moment.
    statements(
        migrated,
        "UPDATE store SET created_at = '2025-01-02 03:04:05.678901+00', updated_at = '2025-02-03 04:05:06.789012+00'",
    )
    return migrated


async def imported(url: str, *, owner: str = "", label: int = 0, **options: Any) -> tuple[Report, list[str]]:
    told: list[str] = []
    report = await import_store(url, owner=owner, owner_label=label, limits=Limits(), tell=told.append, **options)
    return report, told


async def test_each_owner_gets_its_own(store: str) -> None:
    report, told = await imported(store, label=2)
    counted(report, items=(5, 4, 0, 0, 1))
    assert told == ["refused: items: alice / plain: its namespace has no label 2"]
    found = rows(store, f"SELECT {ITEM} FROM langgraph_server.store_items ORDER BY 1, 2, 3")
    assert [(item["namespace"], item["owner_id"]) for item in found] == [
        ("memories.alice", "alice"),
        ("memories.alice.deep", "alice"),
        ("memories.bob", "bob"),
        ("memories.bob.deep", "bob"),
    ]
    kept = rows(store, "SELECT * FROM store WHERE prefix <> 'alice' ORDER BY prefix, key")
    for item, source in zip(found, kept, strict=True):
        for name in ("key", "value", "created_at", "updated_at", "expires_at", "ttl_minutes"):
            assert item[name] == source[name]
    assert {item["ttl_minutes"] for item in found} == {None, 90}
    assert [item["version"] for item in found] == [1] * 4
    # The first label names another owner of the same items.
    report, _ = await imported(store, label=1)
    counted(report, items=(5, 5, 0, 0, 0))
    assert rows(store, "SELECT owner_id, count(*) FROM langgraph_server.store_items GROUP BY 1 ORDER BY 1") == [
        {"owner_id": "alice", "count": 3},
        {"owner_id": "bob", "count": 2},
        {"owner_id": "memories", "count": 4},
    ]


async def test_clients_find_what_they_put(store: str) -> None:
    assert (await imported(store, owner="team"))[0].is_complete
    service = ServiceStore(DatabaseSettings(store))
    await service.start(30)
    api = DirectApi(build_pipeline(Settings(), service), "postgres")
    item = (await api.call("GetItem", owner_id="team", namespace=["memories", "bob"], key="k")).item
    assert (item.value, item.created_at.ToJsonString()) == (
        '{"of": "bob", "text": "aab"}',
        "2025-01-02T03:04:05.678901Z",
    )
    with pytest.raises(CallFailed, match="NOT_FOUND"):
        await api.call("GetItem", owner_id="bob", namespace=["memories", "bob"], key="k")
    # By the vectors that LangGraph's store had: each of an item with several.
    for vector, best in (([0, 1, 0], "memories.alice.deep"), ([2, 1, 1], "memories.alice")):
        found = await api.call(
            "SearchItems",
            owner_id="team",
            namespace_prefix=["memories", "alice"],
            vector=vector,
            distance=pb.VECTOR_DISTANCE_COSINE,
        )
        assert ".".join(found.items[0].namespace) == best
    assert [len(item["vectors"]) for item in _vectors(store)] == [1, 3]
    await service.close()
    report = await examine(store)
    assert report.findings == []


def _vectors(url: str) -> list[dict[str, Any]]:
    query = "SELECT vectors::text[] AS vectors FROM langgraph_server.store_items WHERE namespace LIKE 'memories.a%' ORDER BY namespace"
    return rows(url, query)


async def test_a_second_run_finds_everything_there(store: str) -> None:
    tried, _ = await imported(store, owner="team", dry_run=True)
    assert rows(store, "SELECT * FROM langgraph_server.store_items") == []
    done, _ = await imported(store, owner="team")
    assert tried.counts == done.counts
    # What a client reads lives on.
    statements(store, "UPDATE langgraph_server.store_items SET expires_at = expires_at + interval '1 hour'")
    before = rows(store, "SELECT * FROM langgraph_server.store_items ORDER BY 1, 2, 3")
    again, told = await imported(store, owner="team")
    counted(again, items=(5, 0, 5, 0, 0))
    assert (told, again.is_complete) == ([], True)
    assert rows(store, "SELECT * FROM langgraph_server.store_items ORDER BY 1, 2, 3") == before


@pytest.mark.parametrize("newest", [False, True])
async def test_items_that_are_there(store: str, newest: bool) -> None:
    times = "'2020-01-01', '2025-02-03 04:05:06'"
    statements(
        store,
        "INSERT INTO langgraph_server.store_items (namespace, key, owner_id, value, metadata, version, created_at, updated_at)"
        f" VALUES ('memories.alice', 'k', 'team', '1', '{{\"my\": \"own\"}}', 7, {times}),"
        f" ('memories.bob', 'k', 'team', '2', '{{}}', 7, now(), now()), ('memories.bob', 'k', 'other', '3', '{{}}', 7, {times})",
    )
    tried, _ = await imported(store, owner="team", newest=newest, dry_run=True)
    report, told = await imported(store, owner="team", newest=newest)
    assert tried.counts == report.counts
    clash = "clash: items: memories.{} / k: other content is there, and stays"
    assert told == ([] if newest else [clash.format("alice")]) + [clash.format("bob")]
    counted(report, items=(5, 4, 0, 1, 0) if newest else (5, 3, 0, 2, 0))
    query = "SELECT value, version, metadata FROM langgraph_server.store_items WHERE key = 'k' AND namespace = %s AND owner_id = %s"
    assert rows(store, query, "memories.bob", "team") == [{"value": 2, "version": 7, "metadata": {}}]
    assert rows(store, query, "memories.bob", "other") == [{"value": 3, "version": 7, "metadata": {}}]
    (mine,) = rows(store, query, "memories.alice", "team")
    assert mine["metadata"] == {"my": "own"}
    assert (mine["value"], mine["version"]) == (({"text": "aab", "of": "alice"}, 8) if newest else (1, 7))
    if newest:
        counted((await imported(store, owner="team", newest=True))[0], items=(5, 0, 4, 1, 0))


# Rows that no item can be, and what is said of each.
STRANGE = {
    ("", "k"): "namespace[0]: must not be empty",
    ("a..b", "k"): "namespace[1]: must not be empty",
    ("a.b.", "k"): "namespace[2]: must not be empty",
    ("a\tb", "k"): "namespace[0]: holds a control character",
    (".".join("a" * 33), "k"): "namespace: has more than 32 entries",
    ("l" * 256, "k"): "namespace[0]: is longer than 255 bytes",
    ("a", ""): "key: must not be empty",
    ("a", "k" * 1025): "key: is longer than 1024 bytes",
}


async def test_rows_that_no_item_can_be(store: str) -> None:
    for prefix, key in STRANGE:
        assert rows(store, "INSERT INTO store (prefix, key, value) VALUES (%s, %s, '{}') RETURNING 1", prefix, key)
    statements(
        store,
        "INSERT INTO store (prefix, key, value, expires_at) VALUES ('a', 'ever', '{}', 'infinity')",
        "INSERT INTO store (prefix, key, value, created_at) VALUES ('a', 'old', '{}', '0044-03-15 BC')",
        "INSERT INTO store (prefix, key, value, created_at, updated_at) VALUES ('a', 'timeless', '{}', NULL, NULL)",
        "INSERT INTO store (prefix, key, value) VALUES ('{a', 'b}', 'null')",
    )
    report, told = await imported(store, owner="team")
    counted(report, items=(17, 7, 0, 0, 10))
    assert len(told) == 10
    for (prefix, key), reason in STRANGE.items():
        shown = f"{prefix} / {key}" if f"{prefix}{key}".isprintable() else ascii(f"{prefix} / {key}")
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        assert f"refused: items: {shown}: {reason}" in told
    timeless = "a time of it is infinite, or not from year 1 to year 9999"
    assert {f"refused: items: a / {key}: {timeless}" for key in ("ever", "old")} <= set(told)
    assert rows(store, "SELECT value FROM langgraph_server.store_items WHERE namespace = '{a'") == [{"value": None}]
    counted((await imported(store, owner="team"))[0], items=(17, 0, 7, 0, 10))
    # An owner, too, may be none.
    report, told = await imported(store, label=1)
    assert "refused: items:  / k: owner_id: must not be empty" in " ".join(told)


async def test_many_rows(store: str) -> None:
    statements(
        store,
        "INSERT INTO store (prefix, key, value) SELECT 'many.u' || n % 7, 'k' || n, jsonb_build_object('n', n)"
        " FROM generate_series(1, 2200) n",
    )
    report, _ = await imported(store, label=2)
    counted(report, items=(2205, 2204, 0, 0, 1))
    counts = rows(
        store,
        "SELECT owner_id, count(*) FROM langgraph_server.store_items WHERE starts_with(namespace, 'many') GROUP BY 1",
    )
    assert len(counts) == 7
    assert sum(owner["count"] for owner in counts) == 2200
    counted((await imported(store, label=2))[0], items=(2205, 0, 2204, 0, 1))


async def test_the_table_of_an_older_store(migrated: str) -> None:
    statements(
        migrated,
        "CREATE TABLE store (prefix text NOT NULL, key text NOT NULL, value jsonb NOT NULL, created_at timestamptz,"
        " updated_at timestamptz, PRIMARY KEY (prefix, key))",
        "INSERT INTO store (prefix, key, value, updated_at) VALUES ('a', 'k', '1', '2025-01-02')",
    )
    assert (await imported(migrated, owner="team"))[0].is_complete
    (item,) = rows(migrated, f"SELECT {ITEM} FROM langgraph_server.store_items")
    assert item["created_at"] == item["updated_at"]
    assert (item["expires_at"], item["ttl_minutes"]) == (None, None)
    counted((await imported(migrated, owner="team"))[0], items=(1, 0, 1, 0, 0))


async def test_no_store_and_another_store(empty: str, migrated: str) -> None:
    with pytest.raises(MigrationError, match="storage-service migrate"):
        await imported(empty, owner="team")
    with pytest.raises(SourceError, match=r"no table public\.store: no store of LangGraph has been used there"):
        await imported(migrated, owner="team")
    # As LangGraph.js has it.
    statements(migrated, "CREATE TABLE store (namespace_path text, key text, value jsonb, created_at timestamptz)")
    with pytest.raises(SourceError, match="not the table of LangGraph's store for Python: it has no column"):
        await imported(migrated, owner="team")
