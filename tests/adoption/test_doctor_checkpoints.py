"""What ``doctor`` says of LangGraph's checkpoint tables: what there is, beside what LangGraph makes."""

from __future__ import annotations

import pytest

from storage_service.store.postgres.checkpoint_tables import EXPECTED
from storage_service.store.postgres.doctor import Report, examine
from storage_service.store.postgres.migrate import migrate
from tests.adoption.runtimes import statements


def found(report: Report) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {
        finding.code: (finding.severity, finding.ids)
        for finding in report.findings
        if finding.code.startswith("checkpoint_")
    }


async def test_what_langgraph_makes_is_what_is_expected(empty: str) -> None:
    await migrate(empty)
    report = await examine(empty)
    assert report.findings == []
    assert [line.partition(":")[0] for line in report.tables] == [f"public.{table.name}" for table in EXPECTED]
    assert report.tables[0].startswith(
        "public.checkpoints: 7 of 7 columns (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata),"
        " 2 of 2 indexes (checkpoints_pkey, checkpoints_thread_id_idx)"
    )
    # What the service added, and nothing of LangGraph's.
    assert "ix_checkpoints_run" in report.tables[0].partition("; beside them ")[2]
    assert report.tables[2].startswith("public.checkpoint_writes: 9 of 9 columns (")
    assert (
        report.tables[3]
        == "public.checkpoint_migrations: 1 of 1 columns (v), 1 of 1 indexes (checkpoint_migrations_pkey)"
    )
    printed = report.lines()
    assert printed[2:7] == [
        "checkpoint tables, beside those of langgraph-checkpoint-postgres 3.2:",
        *(f"  {line}" for line in report.tables),
    ]


async def test_before_anybody_used_the_database(empty: str) -> None:
    report = await examine(empty)
    assert report.tables == [f"public.{table.name}: not there" for table in EXPECTED]
    assert found(report) == {"checkpoint_tables": ("repair", tuple(table.name for table in EXPECTED))}


async def test_tables_of_an_older_langgraph_are_brought_up_to_date(empty: str) -> None:
    await migrate(empty)
    statements(
        empty,
        "ALTER TABLE checkpoint_writes DROP COLUMN task_path",
        "DROP INDEX checkpoint_blobs_thread_id_idx",
        "DELETE FROM checkpoint_migrations WHERE v > 6",
        "DELETE FROM langgraph_server.storage_service_migrations WHERE revision = 0",
    )
    assert found(await examine(empty)) == {
        "checkpoint_columns": ("repair", ("checkpoint_writes.task_path (not there, and not text NOT NULL)",)),
        "checkpoint_indexes": ("repair", ("checkpoint_blobs_thread_id_idx on checkpoint_blobs (thread_id)",)),
    }
    await migrate(empty)
    assert found(await examine(empty)) == {}


@pytest.mark.parametrize(
    ("change", "code", "severity", "named"),
    [
        ("DROP TABLE checkpoint_blobs", "checkpoint_tables", "error", "checkpoint_blobs"),
        (
            "ALTER TABLE checkpoints ALTER metadata DROP DEFAULT, ALTER metadata TYPE json",
            "checkpoint_columns",
            "error",
            "checkpoints.metadata (json NOT NULL, and not jsonb NOT NULL)",
        ),
        (
            "ALTER TABLE checkpoint_writes DROP CONSTRAINT checkpoint_writes_pkey",
            "checkpoint_keys",
            "error",
            "checkpoint_writes_pkey on checkpoint_writes (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)",
        ),
        (
            "DROP INDEX checkpoints_thread_id_idx",
            "checkpoint_indexes",
            "warning",
            "checkpoints_thread_id_idx on checkpoints (thread_id)",
        ),
    ],
)
async def test_what_is_gone(empty: str, change: str, code: str, severity: str, named: str) -> None:
    await migrate(empty)
    statements(empty, "DROP INDEX ix_checkpoints_run", change)
    report = await examine(empty)
    assert found(report) == {code: (severity, (named,))}
    assert report.needs_attention == (severity == "error")
    assert "put them back by hand" in "".join(report.lines())


async def test_an_index_by_another_name_serves_as_well(empty: str) -> None:
    await migrate(empty)
    statements(empty, "ALTER INDEX checkpoints_thread_id_idx RENAME TO mine")
    report = await examine(empty)
    assert report.findings == []
    assert "2 of 2 indexes (checkpoints_pkey, mine)" in report.tables[0]


async def test_a_newer_langgraph(empty: str) -> None:
    await migrate(empty)
    statements(empty, "INSERT INTO checkpoint_migrations (v) VALUES (12)")
    assert found(await examine(empty)) == {"checkpoint_tables_newer": ("warning", ())}
