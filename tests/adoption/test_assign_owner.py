"""Rows without an owner get one; others never change theirs."""

from __future__ import annotations

from typing import Any

import pytest

from storage_service.store.postgres.assign_owner import RESOURCES, assign_owner
from storage_service.store.postgres.doctor import examine
from storage_service.store.postgres.migrate import MigrationError, migrate
from tests.adoption import runtimes
from tests.adoption.runtimes import row, rows, statements


@pytest.fixture
async def adopted(legacy: str) -> str:
    await migrate(legacy)
    return legacy


def owners(url: str) -> dict[str, Any]:
    query = "SELECT id, owner_id, updated_at FROM langgraph_server.{}"
    return {
        table: rows(url, query.format(table) + " ORDER BY id") for table in ("assistants", "threads", "runs", "crons")
    }


async def test_all_rows_without_an_owner(adopted: str) -> None:
    before = owners(adopted)
    expected = {"assistants": 1, "threads": 0, "runs": 1, "crons": 0, "checkpoints": 1}
    assert await assign_owner(adopted, "carol", all_ownerless=True, dry_run=True) == expected
    assert owners(adopted) == before
    assert await assign_owner(adopted, "carol", all_ownerless=True) == expected
    after = owners(adopted)
    for table, old_rows in before.items():
        for old in old_rows:
            assert {**old, "owner_id": old["owner_id"] or "carol"} in after[table]
    assert row(adopted, "threads", runtimes.CHECKPOINT_THREAD)["owner_id"] == "carol"
    assert not [
        finding
        for finding in (await examine(adopted)).findings
        if finding.code.startswith(("ownerless", "checkpoints"))
    ]
    assert await assign_owner(adopted, "dave", all_ownerless=True) == dict.fromkeys(RESOURCES, 0)


async def test_named_rows_of_one_kind(adopted: str) -> None:
    counts = await assign_owner(
        adopted, "system", resources=["assistants"], ids=[runtimes.TS_ASSISTANT, runtimes.PY_ASSISTANT, "absent"]
    )
    assert counts == {"assistants": 1}
    assert row(adopted, "assistants", runtimes.TS_ASSISTANT)["metadata"] == {"created_by": "ui", "owner": "system"}
    assert row(adopted, "assistants", runtimes.PY_ASSISTANT)["owner_id"] == "alice"


async def test_a_threads_runs_get_its_owner(adopted: str) -> None:
    statements(
        adopted,
        "INSERT INTO langgraph_server.threads (id) SELECT 't' || n FROM generate_series(1, 1200) n",
        "INSERT INTO langgraph_server.runs (id, thread_id) SELECT 'r' || n, 't' || n FROM generate_series(1, 1200) n",
        "UPDATE public.checkpoints SET thread_id = 'dead0000dead0000dead0000dead0000' WHERE thread_id = 'only-in-checkpoints'",
    )
    expected = {"assistants": 1, "threads": 1200, "runs": 1201, "crons": 0, "checkpoints": 1}
    assert await assign_owner(adopted, "carol", all_ownerless=True, dry_run=True) == expected
    assert await assign_owner(adopted, "carol", resources=["threads"], ids=["t7"]) == {"threads": 1, "runs": 1}
    assert row(adopted, "runs", "r7")["owner_id"] == "carol"
    counts = await assign_owner(adopted, "dave", resources=["checkpoints", "threads"], all_ownerless=True)
    assert counts == {"threads": 1199, "runs": 1200, "checkpoints": 1}
    assert row(adopted, "runs", "r7")["owner_id"] == "carol"
    assert row(adopted, "runs", runtimes.TS_RUN_ORPHAN)["owner_id"] == "dave"


@pytest.mark.parametrize(
    "arguments",
    [
        {"owner": "", "all_ownerless": True},
        {"owner": "x" * 256, "all_ownerless": True},
        {"owner": "a\nb", "all_ownerless": True},
        {"owner": "o"},
        {"owner": "o", "ids": ["a"], "all_ownerless": True},
        {"owner": "o", "resources": ["store_items"], "all_ownerless": True},
    ],
)
async def test_bad_arguments(empty: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        await assign_owner(empty, **arguments)


async def test_a_database_that_is_not_migrated(legacy: str) -> None:
    with pytest.raises(MigrationError, match="storage-service migrate"):
        await assign_owner(legacy, "carol", all_ownerless=True)
