"""The named operations on assistants, threads, runs and crons, in dictionaries."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from agentstorage.v1.assistants_pb2 import Assistant
from agentstorage.v1.crons_pb2 import Cron
from agentstorage.v1.runs_pb2 import (
    CANCEL_ACTION_INTERRUPT,
    CANCEL_ACTION_ROLLBACK,
    MULTITASK_STRATEGY_INTERRUPT,
    MULTITASK_STRATEGY_REJECT,
    MULTITASK_STRATEGY_ROLLBACK,
    RUN_STATUS_INTERRUPTED,
    RUN_STATUS_PENDING,
    RUN_STATUS_RUNNING,
    Run,
)
from agentstorage.v1.threads_pb2 import (
    THREAD_STATUS_BUSY,
    THREAD_STATUS_IDLE,
    THREAD_VISIBILITY_PRIVATE,
    Thread,
    ThreadState,
)
from storage_service import jsontext
from storage_service.caller import SYSTEM_OWNER
from storage_service.errors import NotFound, ThreadBusy
from storage_service.store import Access, Inserted, Order, Page
from storage_service.store.change import Change, Merge, Put, Stamp
from storage_service.store.memory.histories import History
from storage_service.store.memory.rows import Record, Rows, copy
from storage_service.store.tables import ASSISTANT_VERSIONS, ASSISTANTS, CRONS, RUNS, THREAD_STATES, THREADS, Table
from storage_service.store.where import Contains, OneOf, Where

IN_FLIGHT = OneOf("status", (RUN_STATUS_PENDING, RUN_STATUS_RUNNING))
_NEWEST = Order(("sequence",), True)
# How a strategy stops the runs in flight.
_STOPPING = {MULTITASK_STRATEGY_INTERRUPT: CANCEL_ACTION_INTERRUPT, MULTITASK_STRATEGY_ROLLBACK: CANCEL_ACTION_ROLLBACK}


class Assistants(Rows):
    """The named operations on assistants."""

    def _keep(self, record: Record[Assistant]) -> None:
        key = (record.row.assistant_id, record.row.version)
        self.tables.of(ASSISTANT_VERSIONS).setdefault(key, Record(copy(record.row), record.owner))

    async def update_assistant(
        self, assistant_id: str, changes: Sequence[Change], expected_version: int | None
    ) -> Assistant | None:
        record = self.one(ASSISTANTS, assistant_id, Access.OWN)
        if record is None or expected_version not in (None, record.row.version):
            return None
        former = Record(record.row, record.owner)
        version = max(record.last_version, record.row.version) + 1
        changed = self.change(ASSISTANTS, record, [*changes, Put("version", version)])
        self._keep(former)
        record.last_version = version
        return copy(changed)

    async def set_latest_version(self, assistant_id: str, version: int) -> Assistant | None:
        record = self.one(ASSISTANTS, assistant_id, Access.OWN)
        if record is None:
            return None
        self._keep(record)
        kept = self.tables.of(ASSISTANT_VERSIONS).get((assistant_id, version))
        if kept is None:
            return None
        changes: list[Change] = [
            Put(name, getattr(kept.row, name))
            for name in ("graph_id", "name", "description", "config", "context", "version")
        ]
        keys = tuple(json.loads(record.row.metadata))
        # Merge removes after it sets, so the old keys go first.
        return copy(self.change(ASSISTANTS, record, [*changes, Merge("{}", keys), Merge(kept.row.metadata)]))

    async def list_versions(
        self, assistant_id: str, where: Sequence[Where], limit: int, offset: int, before: int | None
    ) -> list[Assistant]:
        record = self.one(ASSISTANTS, assistant_id, Access.SEARCH)
        if record is None:
            return []
        rows = [
            kept.row
            for key, kept in self.tables.of(ASSISTANT_VERSIONS).items()
            if key[0] == assistant_id and key[1] != record.row.version
        ]
        rows = [row for row in [record.row, *rows] if all(term.test(row) for term in where)]
        after = None if before is None else (before,)
        page = Page(limit, offset, after)
        return self.page(ASSISTANT_VERSIONS, rows, Order(("version",), True), page, self.most_bytes)

    async def delete_assistant(self, assistant_id: str, delete_threads: bool) -> bool:
        record = self.one(ASSISTANTS, assistant_id, Access.OWN)
        if record is None:
            return False
        del self.tables.of(ASSISTANTS)[(assistant_id,)]
        self.drop_versions(assistant_id)
        owner = record.owner

        def concerned(table: Table[Any]) -> list[Record[Any]]:
            # Of the system's assistants everybody may have crons and runs: they go, or end, with it.
            return [
                other
                for other in self.tables.of(table).values()
                if other.row.assistant_id == assistant_id and owner in (other.owner, SYSTEM_OWNER)
            ]

        self.drop(CRONS, concerned(CRONS))
        if delete_threads:
            naming = [Contains("metadata", jsontext.single("assistant_id", assistant_id))]
            for thread in self.records(THREADS, naming, Access.OWN):
                if thread.owner == owner:
                    self.drop_thread(thread)
        ended = [run for run in concerned(RUNS) if IN_FLIGHT.test(run.row)]
        for run in ended:
            self.change(RUNS, run, [Put("status", RUN_STATUS_INTERRUPTED), Stamp("finished_at")])
        self.free_threads(ended)
        return True

    def free_threads(self, ended: Iterable[Record[Run]]) -> None:
        """Make the threads IDLE that are BUSY without a run in flight, now that these have ended or are gone."""
        for run in ended:
            thread = self.tables.of(THREADS).get((run.row.thread_id,))
            if (
                thread is not None
                and thread.row.status == THREAD_STATUS_BUSY
                and (run.owner or thread.owner) == thread.owner
                and not self.in_flight(thread)
            ):
                self.change(THREADS, thread, [Put("status", THREAD_STATUS_IDLE), Stamp("state_updated_at")])

    def in_flight(self, thread: Record[Thread]) -> list[Run]:
        """The thread's runs that are pending or running, oldest first."""
        runs = [
            record.row
            for record in self.tables.of(RUNS).values()
            if record.row.thread_id == thread.row.thread_id
            and IN_FLIGHT.test(record.row)
            and (record.owner or thread.owner) == thread.owner
        ]
        return sorted(runs, key=lambda run: (run.created_at.ToMicroseconds(), run.run_id))

    def drop_versions(self, assistant_id: str) -> None:
        """Delete the kept versions of an assistant."""
        versions = self.tables.of(ASSISTANT_VERSIONS)
        for key in [key for key in versions if key[0] == assistant_id]:
            del versions[key]

    def drop_thread(self, thread: Record[Thread]) -> None:
        """Delete a thread with all that hangs on it."""
        thread_id = thread.row.thread_id
        del self.tables.of(THREADS)[(thread_id,)]
        self.tables.histories.pop(thread_id, None)
        states = self.tables.of(THREAD_STATES)
        for key in [key for key, record in states.items() if record.row.thread_id == thread_id]:
            del states[key]
        hanging: tuple[Table[Any], ...] = (RUNS, CRONS)
        for table in hanging:
            rows = self.tables.of(table)
            for key, record in list(rows.items()):
                if record.row.thread_id == thread_id and (record.owner or thread.owner) == thread.owner:
                    del rows[key]


class Threads(Assistants):
    """The named operations on threads."""

    async def delete_threads(self, thread_ids: Sequence[str]) -> int:
        threads = self.records(THREADS, [OneOf("thread_id", tuple(thread_ids))], Access.OWN)
        for thread in threads:
            self.drop_thread(thread)
        return len(threads)

    def states(self, thread_id: str) -> list[ThreadState]:
        """The states of a thread, newest first."""
        rows = [record.row for record in self.tables.of(THREAD_STATES).values() if record.row.thread_id == thread_id]
        return sorted(rows, key=lambda state: state.sequence, reverse=True)

    def _append(self, state: ThreadState) -> ThreadState:
        self.tables.sequence += 1
        state.sequence = self.tables.sequence
        self.tables.of(THREAD_STATES)[(state.sequence,)] = Record(state, None)
        return copy(state)

    async def copy_thread(self, thread_id: str, new_id: str, request_id: str) -> Inserted[Thread] | None:
        source = self.one(THREADS, thread_id, Access.BY_ID)
        if source is None:
            return None
        new = copy(source.row)
        new.thread_id, new.status, new.visibility, new.error = new_id, THREAD_STATUS_IDLE, THREAD_VISIBILITY_PRIVATE, ""
        new.ClearField("ttl")
        if self.tables.thread_ttl is not None:
            new.ttl.CopyFrom(self.tables.thread_ttl)
        if new.HasField("state_updated_at"):
            new.state_updated_at.CopyFrom(self.tables.now())
        inserted = self.insert_now(THREADS, new, request_id)
        if inserted.created:
            for state in reversed(self.states(thread_id)):
                added = copy(state)
                added.thread_id = new_id
                if json.loads(added.parent_checkpoint or "{}").get("thread_id") == thread_id:
                    added.parent_checkpoint = jsontext.merge(
                        added.parent_checkpoint, jsontext.single("thread_id", new_id)
                    )
                self._append(added)
            # What a reader of a shared thread may read are its states and runs, not its checkpoints.
            if thread_id in self.tables.histories and self.one(THREADS, thread_id, Access.OWN) is not None:
                self.tables.histories[thread_id].copy_to(self.tables.histories.setdefault(new_id, History()), new_id)
        return inserted

    async def set_thread_status(
        self, thread_id: str, status: int, expected: Sequence[Where], changes: Sequence[Change]
    ) -> Thread | None:
        record = self.one(THREADS, thread_id, Access.OWN)
        if record is None or not all(term.test(record.row) for term in expected):
            return None
        reached = THREAD_STATUS_BUSY if self.in_flight(record) else status
        return copy(self.change(THREADS, record, [*changes, Put("status", reached), Stamp("state_updated_at")]))

    async def thread_state(self, thread_id: str) -> ThreadState | None:
        record = self.one(THREADS, thread_id, Access.BY_ID)
        if record is None:
            return None
        states, thread = self.states(thread_id), record.row
        if states:
            return copy(states[0])
        changed = thread.state_updated_at if thread.HasField("state_updated_at") else thread.created_at
        return ThreadState(
            thread_id=thread_id,
            values=thread.values,
            tasks="[]",
            metadata=thread.metadata,
            interrupts=thread.interrupts,
            created_at=changed,
        )

    async def add_thread_state(self, state: ThreadState) -> Inserted[ThreadState] | None:
        record = self.one(THREADS, state.thread_id, Access.OWN)
        if record is None:
            return None
        states = self.states(state.thread_id)
        for existing in states:
            if existing.checkpoint_id == state.checkpoint_id:
                return Inserted(copy(existing), False)
        new = copy(state)
        if not new.parent_checkpoint and states:
            parent = {"thread_id": state.thread_id, "checkpoint_ns": "", "checkpoint_id": states[0].checkpoint_id}
            new.parent_checkpoint = json.dumps(parent, ensure_ascii=False)
        now = self.tables.now()
        for name, column in THREAD_STATES.columns.items():
            if column.is_json:
                Put(name, getattr(new, name)).apply(THREAD_STATES, new, now)
        new.created_at.CopyFrom(now)
        self.change(THREADS, record, [Put("values", new.values), Stamp("state_updated_at")])
        return Inserted(self._append(new), True)

    async def list_thread_states(
        self, thread_id: str, where: Sequence[Where], before: str, page: Page
    ) -> list[ThreadState] | None:
        if self.one(THREADS, thread_id, Access.BY_ID) is None:
            return None
        states = self.states(thread_id)
        if before:
            marks = [state.sequence for state in states if state.checkpoint_id == before]
            if not marks:
                return None
            states = [state for state in states if state.sequence < max(marks)]
        rows = (state for state in states if all(term.test(state) for term in where))
        return self.page(THREAD_STATES, rows, _NEWEST, page, self.most_bytes)

    async def prune_thread_states(self, thread_ids: Sequence[str]) -> int:
        threads = self.records(THREADS, [OneOf("thread_id", tuple(thread_ids))], Access.OWN)
        for thread in threads:
            for state in self.states(thread.row.thread_id)[1:]:
                del self.tables.of(THREAD_STATES)[(state.sequence,)]
        return len(threads)


class Runs(Threads):
    """The named operations on runs and crons."""

    async def create_run(self, run: Run, request_id: str, *, admit: bool, makes_thread: bool = False) -> Inserted[Run]:
        taken = self.is_taken(RUNS, run.run_id, request_id)
        makes_thread = makes_thread and (run.thread_id,) not in self.tables.of(THREADS)
        self._check_references("" if makes_thread else run.thread_id, run.assistant_id, must_exist=admit)
        makes_thread = makes_thread and not taken
        if makes_thread:
            self._make_thread(run.thread_id)
        thread = self.tables.of(THREADS).get((run.thread_id,))
        others: list[Record[Run]] = []
        if admit and thread is not None and not taken:
            flight = self.in_flight(thread)
            if flight and run.multitask_strategy == MULTITASK_STRATEGY_REJECT:
                if makes_thread:
                    self.drop(THREADS, [thread])
                raise ThreadBusy([other.run_id for other in flight])
            others = [self.tables.of(RUNS)[(other.run_id,)] for other in flight]
            self.change(THREADS, thread, [Put("status", THREAD_STATUS_BUSY), Stamp("state_updated_at")])
            run = copy(run)
            if not run.HasField("run_after"):
                run.run_after.CopyFrom(self.tables.now())
        # A run without an owner takes its thread's.
        owner = thread.owner if thread is not None else None
        inserted = self.insert_now(RUNS, run, request_id, owner)
        if inserted.created and self.owner_id is None and owner is not None:
            record = self.tables.of(RUNS)[(run.run_id,)]
            record.row.metadata = jsontext.merge(record.row.metadata, jsontext.single("owner", owner))
            inserted = Inserted(copy(record.row), True)
        if action := _STOPPING.get(run.multitask_strategy):
            self.stop_runs(others, action)
        return inserted

    def _make_thread(self, thread_id: str) -> None:
        thread = Thread(thread_id=thread_id, status=THREAD_STATUS_IDLE, visibility=THREAD_VISIBILITY_PRIVATE)
        if self.tables.thread_ttl is not None:
            thread.ttl.CopyFrom(self.tables.thread_ttl)
        self.insert_now(THREADS, thread, "")

    def stop_runs(self, records: Iterable[Record[Run]], action: int) -> tuple[list[str], list[str]]:
        """Stop those of runs that are in flight; gives those that are stopped, and those whose workers are asked to."""
        flight = [record for record in records if IN_FLIGHT.test(record.row)]
        leased = [record for record in flight if record.row.HasField("lease")]
        others = [record for record in flight if not record.row.HasField("lease")]
        if action == CANCEL_ACTION_ROLLBACK:
            self.undo_runs(others)
        else:
            for record in others:
                self.change(RUNS, record, [Put("status", RUN_STATUS_INTERRUPTED), Stamp("finished_at")])
            self.free_threads(others)
        for record in leased:
            self.change(RUNS, record, [Put("cancel", max(action, record.row.cancel))])
        return sorted(record.row.run_id for record in others), sorted(record.row.run_id for record in leased)

    def undo_runs(self, runs: Sequence[Record[Run]]) -> None:
        """Delete runs with their events and checkpoints, and free their threads."""
        self.drop(RUNS, runs)
        for run in runs:
            thread = self.tables.of(THREADS).get((run.row.thread_id,))
            # Those of a copy, and whatever else names the run, stay.
            if thread is not None and (run.owner or thread.owner) == thread.owner:
                self._drop_checkpoints(run.row.thread_id, [run.row.run_id])
        self.free_threads(runs)

    def drop_run_checkpoints(self, run_ids: Sequence[str]) -> int:
        """Delete the checkpoints of runs in own threads; says how many."""
        deleted = 0
        for thread in self.records(THREADS, (), Access.OWN):
            deleted += self._drop_checkpoints(thread.row.thread_id, run_ids)
        return deleted

    def _drop_checkpoints(self, thread_id: str, run_ids: Sequence[str]) -> int:
        history = self.tables.histories.get(thread_id)
        if history is None:
            return 0
        return history.drop(
            [id for id, row in history.checkpoints.items() if jsontext.text_at(row.metadata, "run_id") in run_ids]
        )

    async def delete_run(self, where: Sequence[Where]) -> int:
        runs = self.records(RUNS, where, Access.OWN)
        self.drop(RUNS, runs)
        self.free_threads(runs)
        return len(runs)

    async def create_cron(self, cron: Cron, request_id: str, *, must_exist: bool) -> Inserted[Cron]:
        self._check_references(cron.thread_id, cron.assistant_id, must_exist=must_exist)
        return self.insert_now(CRONS, cron, request_id)

    def _check_references(self, thread_id: str, assistant_id: str, *, must_exist: bool) -> None:
        # Threads are written to, assistants only read.
        references: tuple[tuple[Table[Any], str, Access], ...] = (
            (THREADS, thread_id, Access.OWN),
            (ASSISTANTS, assistant_id, Access.SEARCH),
        )
        for table, id, access in references:
            if id and self.one(table, id, access) is None and (must_exist or (id,) in self.tables.of(table)):
                raise NotFound(table.resource, id)
