"""Sources of imports, and what a reader finds in them and in what was made of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import ormsgpack
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from langgraph.checkpoint.sqlite import SqliteSaver

from storage_service.settings import Limits
from storage_service.store.postgres.imports import checkpoints, other_database, sqlite_file
from storage_service.store.postgres.imports.report import Counts, Report

#: What langgraph-checkpoint-sqlite makes, before it knew the paths of tasks.
OLD_WRITES = """CREATE TABLE writes (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '', checkpoint_id TEXT NOT NULL,
    task_id TEXT NOT NULL, idx INTEGER NOT NULL, channel TEXT NOT NULL, type TEXT, value BLOB,
    PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx))"""
CHECKPOINTS = """CREATE TABLE checkpoints (thread_id TEXT NOT NULL, checkpoint_ns TEXT NOT NULL DEFAULT '', checkpoint_id TEXT NOT NULL,
    parent_checkpoint_id TEXT, type TEXT, checkpoint BLOB, metadata BLOB, PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id))"""


@contextmanager
def sqlite_saver(file: Path) -> Iterator[SqliteSaver]:
    """LangGraph's saver on a file."""
    with closing(sqlite3.connect(file, check_same_thread=False)) as conn:
        saver = SqliteSaver(conn)
        saver.setup()
        yield saver


async def from_sqlite(
    url: str, file: Path, owner: str = "alice", *, dry_run: bool = False, limits: Limits | None = None
) -> tuple[Report, list[str]]:
    """Import a file; give the report, and what was told of single rows."""
    told: list[str] = []
    with sqlite_file.opened(str(file)) as source:
        report = await checkpoints.import_checkpoints(
            url, source, owner=owner, dry_run=dry_run, limits=limits or Limits(), tell=told.append
        )
    return report, told


async def from_postgres(
    url: str, source_url: str, owner: str = "alice", *, dry_run: bool = False
) -> tuple[Report, list[str]]:
    """Import from another database; give the report, and what was told of single rows."""
    told: list[str] = []
    async with other_database.opened(source_url) as source:
        report = await checkpoints.import_checkpoints(
            url, source, owner=owner, dry_run=dry_run, limits=Limits(), tell=told.append
        )
    return report, told


def counted(report: Report, **kinds: tuple[int, ...]) -> None:
    """Assert the counts of each kind: read, written, the same, clashing, refused."""
    assert {kind: report.counts[kind] for kind in kinds} == {kind: Counts(*counts) for kind, counts in kinds.items()}


def unchanged(report: Report) -> None:
    """Assert that an import found everything there already."""
    assert report.is_complete
    assert report.counts["checkpoints"].read > 0
    assert all(counts.read == counts.same for counts in report.counts.values())


async def tuples(url: str, thread: str) -> list[CheckpointTuple]:
    """What LangGraph's own saver reads of a thread."""
    async with AsyncPostgresSaver.from_conn_string(url) as saver:
        return [found async for found in saver.alist(_of(thread))]


def listed(saver: BaseCheckpointSaver[Any], thread: str) -> list[CheckpointTuple]:
    """What a saver without an event loop reads of a thread."""
    return list(saver.list(_of(thread)))


def _of(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}}


def raw(
    file: Path,
    thread: Any,
    id: str,
    made: Any,
    kind: str | None = "msgpack",
    parent: str | None = None,
    about: Any = "{}",
) -> None:
    """Put a checkpoint into a file, as bytes or as what makes them."""
    data = made
    if isinstance(made, dict):
        data = ormsgpack.packb(made, default=_encoded, option=ormsgpack.OPT_NON_STR_KEYS)
    with sqlite_saver(file) as saver:
        saver.conn.execute(
            "INSERT INTO checkpoints VALUES (?, '', ?, ?, ?, ?, ?)", (thread, id, parent, kind, data, about)
        )
        saver.conn.commit()


def _encoded(value: Any) -> Any:
    """An object within bytes, as LangGraph makes it."""
    return JsonPlusSerializer(__unpack_ext_hook__=ormsgpack.Ext).loads_typed(JsonPlusSerializer().dumps_typed(value))
