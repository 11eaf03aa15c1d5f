"""The matrix can fail: with the owner's condition taken out of any one place that states it, some check of it does.

Every place is taken out by hand, one at a time, of a service in this process, on both backends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from storage_service.caller import AllOwners, Scope
from storage_service.paging import Paging
from storage_service.server import build_pipeline
from storage_service.settings import Settings
from storage_service.store import Access, Store
from storage_service.store.memory import items as memory_items
from storage_service.store.memory import resources as memory_resources
from storage_service.store.memory import rows as memory_rows
from storage_service.store.postgres import PostgresHandle, checkpoint_reads, checkpoints, stopping
from storage_service.store.postgres import assistants as postgres_assistants
from storage_service.store.postgres import items as postgres_items
from storage_service.store.postgres import queue as postgres_queue
from storage_service.store.postgres import rows as postgres_rows
from storage_service.store.postgres import runs as postgres_runs
from storage_service.store.postgres import threads as postgres_threads
from storage_service.store.postgres.rows import Values
from storage_service.store.tables import ASSISTANTS, CRONS, ITEMS, RUNS, THREADS, Table
from tests.service import Api, CallFailed, DirectApi
from tests.tenants.matrix import check, forget
from tests.tenants.queue_scenarios import QUEUE_SCENARIOS
from tests.tenants.scenarios import SCENARIOS
from tests.tenants.test_tenants import ENTRIES

Patch = pytest.MonkeyPatch
TABLES: dict[str, Table[Any]] = {
    "assistants": ASSISTANTS,
    "threads": THREADS,
    "runs": RUNS,
    "items": ITEMS,
    "crons": CRONS,
}
_OWN_CHILD = " AND coalesce({0}.owner_id, gone.owner_id) IS NOT DISTINCT FROM gone.owner_id"


def memory_visible(table: Table[Any]) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        visible = memory_rows.Rows.visible
        monkeypatch.setattr(
            memory_rows.Rows, "visible", lambda self, of, *rest: of is table or visible(self, of, *rest)
        )

    return patch


def postgres_visible(table: Table[Any]) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        visible = postgres_rows.Rows.visible
        monkeypatch.setattr(
            postgres_rows.Rows, "visible", lambda self, of, *rest: "true" if of is table else visible(self, of, *rest)
        )

    return patch


def token_of_anybody(monkeypatch: Patch) -> None:
    made: Callable[..., None] = Paging.__init__

    def init(self: Paging, table: Table[Any], order: Any, request: Any, scope: Scope) -> None:
        anybody = type(request)()
        anybody.CopyFrom(request)
        anybody.ClearField("owner_id")
        made(self, table, order, anybody, AllOwners())

    monkeypatch.setattr(Paging, "__init__", init)


def postgres_item_key(monkeypatch: Patch) -> None:
    # Every statement about one item is a constant, and all of them name the item alike.
    checked = {name: text for name, text in vars(postgres_items).items() if '"owner_id" = $3' in str(text)}
    assert len(checked) > 3
    for name, text in checked.items():
        monkeypatch.setattr(postgres_items, name, text.replace('"owner_id" = $3', "$3::text IS NOT NULL"))


def memory_item_key(monkeypatch: Patch) -> None:
    def key(self: Any, operation: Any) -> Any:
        place = (tuple(operation.namespace), operation.key)
        return next((known for known in self.tables.of(ITEMS) if known[:2] == place), (*place, self.owner_id or ""))

    monkeypatch.setattr(memory_items.Items, "_key", key)


def postgres_children(name: str) -> Callable[[Patch], None]:
    def patch(monkeypatch: Patch) -> None:
        statement = postgres_threads.DELETE_THREAD_ROWS
        less = statement.replace(_OWN_CHILD.format(name), "", 1)
        assert less != statement
        for module in (postgres_threads, postgres_assistants):
            monkeypatch.setattr(module, "DELETE_THREAD_ROWS", less)

    return patch


def postgres_in_flight(monkeypatch: Patch) -> None:
    condition = ' AND coalesce(r.owner_id, "threads".owner_id) IS NOT DISTINCT FROM "threads".owner_id'
    statement: str = postgres_threads.RUN_IN_FLIGHT
    assert condition in statement
    monkeypatch.setattr(postgres_threads, "RUN_IN_FLIGHT", statement.replace(condition, ""))


def postgres_beside(monkeypatch: Patch) -> None:
    condition = " AND o.owner_id IS NOT DISTINCT FROM r.owner_id"
    statement: str = postgres_queue._IS_FREE
    assert statement.count(condition) == 2
    monkeypatch.setattr(postgres_queue, "_IS_FREE", statement.replace(condition, ""))


def postgres_freed(monkeypatch: Patch) -> None:
    condition = ' AND coalesce(ended.owner_id, "threads".owner_id) IS NOT DISTINCT FROM "threads".owner_id'
    statement: str = postgres_threads.FREE_THREADS
    assert condition in statement
    for module in (postgres_threads, postgres_runs, stopping, postgres_assistants):
        monkeypatch.setattr(module, "FREE_THREADS", statement.replace(condition, ""))


def memory_freed(monkeypatch: Patch) -> None:
    free = memory_resources.Assistants.free_threads

    def free_threads(self: Any, ended: Any) -> None:
        # A run without an owner is its thread's.
        free(self, [replace(run, owner=None) for run in ended])

    monkeypatch.setattr(memory_resources.Assistants, "free_threads", free_threads)


def postgres_checkpoints(module: Any, name: str) -> Callable[[Patch], None]:
    """One of the statements about checkpoints, without whose the thread is."""

    def patch(monkeypatch: Patch) -> None:
        build = getattr(module, name)
        monkeypatch.setattr(module, name, lambda own, arg, *how: build("$1::text IS NOT NULL", arg, *how))
        # Statements are written once.
        monkeypatch.setattr(checkpoint_reads, "_WRITTEN", {})

    return patch


def postgres_listing(monkeypatch: Patch) -> None:
    class Blind(PostgresHandle):
        def visible(self, table: Table[Any], access: Access, values: Values) -> str:
            return f"{values(self.owner_id)}::text IS NOT NULL"

    listing = checkpoint_reads.CheckpointReads.list_checkpoints

    async def list_checkpoints(self: Any, *where: Any, **how: Any) -> Any:
        return await listing(Blind(self.database, self.scope, self.most_bytes), *where, **how)

    monkeypatch.setattr(checkpoint_reads.CheckpointReads, "list_checkpoints", list_checkpoints)


def postgres_undone(monkeypatch: Patch) -> None:
    condition = ' AND coalesce(r."owner_id", t."owner_id") IS NOT DISTINCT FROM t."owner_id"'
    statement = checkpoints.undoing("$1")
    assert condition in statement
    monkeypatch.setattr(stopping, "undoing", lambda _: statement.replace(condition, ""))


def memory_undone(monkeypatch: Patch) -> None:
    undo = memory_resources.Runs.undo_runs

    def undo_runs(self: Any, runs: Any) -> None:
        # A run without an owner is its thread's.
        undo(self, [replace(run, owner=None) for run in runs])

    monkeypatch.setattr(memory_resources.Runs, "undo_runs", undo_runs)


def memory_in_flight(monkeypatch: Patch) -> None:
    def in_flight(self: Any, thread: Any) -> list[Any]:
        runs = [record.row for record in self.tables.of(RUNS).values() if record.row.thread_id == thread.row.thread_id]
        return [run for run in runs if run.status in (1, 2)]

    monkeypatch.setattr(memory_resources.Runs, "in_flight", in_flight)


PLACES: dict[str, tuple[str, Callable[[Patch], None]]] = {
    **{f"memory-{name}": ("memory", memory_visible(table)) for name, table in TABLES.items()},
    **{f"postgres-{name}": ("postgres", postgres_visible(table)) for name, table in TABLES.items()},
    "memory-token": ("memory", token_of_anybody),
    "postgres-token": ("postgres", token_of_anybody),
    "memory-item-key": ("memory", memory_item_key),
    "postgres-item-key": ("postgres", postgres_item_key),
    "memory-run-in-flight": ("memory", memory_in_flight),
    "postgres-run-in-flight": ("postgres", postgres_in_flight),
    "postgres-runs-beside-a-claimed-one": ("postgres", postgres_beside),
    "memory-checkpoints-of-undone-runs": ("memory", memory_undone),
    "postgres-checkpoints-of-undone-runs": ("postgres", postgres_undone),
    "memory-threads-that-are-freed": ("memory", memory_freed),
    "postgres-threads-that-are-freed": ("postgres", postgres_freed),
    "postgres-runs-of-a-deleted-thread": ("postgres", postgres_children("r")),
    "postgres-crons-of-a-deleted-thread": ("postgres", postgres_children("c")),
    "postgres-listing": ("postgres", postgres_listing),
    **{
        f"{module.__name__.rpartition('.')[2]}-{name.strip('_')}": ("postgres", postgres_checkpoints(module, name))
        for module, names in (
            (checkpoint_reads, ("_getting", "_reading_history")),
            (checkpoints, ("_own_thread", "_copying", "_deleting", "deleting_runs", "pruning")),
        )
        for name in names
    },
}


async def found(api: Api) -> str:
    """The first check that fails, by its name, or ""."""
    for scenario in (*SCENARIOS, *QUEUE_SCENARIOS):
        try:
            await scenario(api)
        except (AssertionError, CallFailed, pytest.fail.Exception):
            return scenario.__name__
    for method, field in ENTRIES:
        try:
            await check(api, method, field)
        except (AssertionError, CallFailed, pytest.fail.Exception):
            return f"{method}.{field}"
    return ""


def direct(stores: dict[str, Store], backend: str) -> Api:
    """The service in this process."""
    return DirectApi(build_pipeline(Settings(), stores[backend]), backend)


@pytest.mark.parametrize("backend", ["memory", "postgres"])
async def test_nothing_is_found_where_every_place_states_it(stores: dict[str, Store], backend: str) -> None:
    forget()
    assert await found(direct(stores, backend)) == ""


@pytest.mark.parametrize("place", PLACES)
async def test_a_place_without_the_owner_is_found(
    stores: dict[str, Store], monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    backend, patch = PLACES[place]
    forget()
    patch(monkeypatch)
    try:
        assert await found(direct(stores, backend)), "every check passed without the owner's condition"
    finally:
        forget()
