"""The queue, the logs and the ticks of crons, in dictionaries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import crons_pb2
from agentstorage.v1.runs_pb2 import (
    CANCEL_ACTION_ROLLBACK,
    RUN_STATUS_ERROR,
    RUN_STATUS_INTERRUPTED,
    RUN_STATUS_PENDING,
    RUN_STATUS_RUNNING,
    ClaimedRun,
    GetRunStatsResponse,
    HeartbeatRunResponse,
    NewRunEvent,
    Run,
    RunEvent,
    RunsOfStatus,
    RunStatus,
)
from agentstorage.v1.threads_pb2 import THREAD_STATUS_BUSY, THREAD_STATUS_ERROR, THREAD_STATUS_IDLE, ThreadStatus
from storage_service.errors import LeaseLost, NotFound, SequenceMismatch, ThreadBusy
from storage_service.store import LAPSED, Access, DueCron, Finished, Lapsed, Log
from storage_service.store.change import Change, Put, Stamp
from storage_service.store.memory.resources import Runs
from storage_service.store.memory.rows import Record, copy
from storage_service.store.tables import CRONS, RUNS, THREADS
from storage_service.store.where import Where

_FINAL = frozenset(RunStatus.values()) - {0, RUN_STATUS_PENDING, RUN_STATUS_RUNNING}
_MOST_EVENTS = 500


def _micros(time: Timestamp) -> int:
    return time.ToMicroseconds()


def _place(record: Record[Run]) -> tuple[int, str]:
    return _micros(record.row.run_after), record.row.run_id


class Queue(Runs):
    """The named operations of the queue."""

    def _later(self, seconds: float) -> Timestamp:
        found = Timestamp()
        found.FromMicroseconds(_micros(self.tables.now()) + round(seconds * 1_000_000))
        return found

    def _waiting(self) -> list[Record[Run]]:
        """The runs that are queued, in the order in which they are due."""
        runs = self.tables.of(RUNS).values()
        return sorted((run for run in runs if _is_waiting(run.row)), key=_place)

    async def claim_runs(self, worker_id: str, limit: int, lease_seconds: float) -> list[ClaimedRun]:
        taken = {
            (run.row.thread_id, run.owner)
            for run in self.tables.of(RUNS).values()
            if run.row.status == RUN_STATUS_RUNNING
        }
        claimed: list[ClaimedRun] = []
        for record in self._waiting():
            place = (record.row.thread_id, record.owner)
            if len(claimed) == limit or _micros(record.row.run_after) > _micros(self.tables.now()):
                break
            if place not in taken and self.visible(RUNS, record, Access.OWN):
                self._lease(record, worker_id, lease_seconds)
                run = copy(record.row)
                claimed.append(ClaimedRun(run=run, owner_id=record.owner or "", lease_token=record.token))
            # The thread's first one is its only one, whoever may have it.
            taken.add(place)
        return claimed

    def _lease(self, record: Record[Run], worker_id: str, seconds: float) -> None:
        self.tables.claims += 1
        # As the seconds of the clock and what counts the claims.
        counted = (_micros(self.tables.now()) // 1_000_000) << 24 | (self.tables.claims & 0xFFFFFF)
        record.token = max(record.token + 1, counted)
        self.change(RUNS, record, [Put("status", RUN_STATUS_RUNNING), Put("attempt", record.row.attempt + 1)])
        record.row.lease.worker_id = worker_id
        record.row.lease.expires_at.CopyFrom(self._later(seconds))
        record.row.ClearField("cancel")

    def _own_run(self, run_id: str) -> Record[Run]:
        record = self.one(RUNS, run_id, Access.OWN)
        if record is None:
            raise NotFound("run", run_id)
        return record

    def _is_held(self, record: Record[Run], token: int) -> bool:
        return _is_leased(record.row) and record.token == token and not self._is_lapsed(record.row)

    def _is_lapsed(self, run: Run) -> bool:
        return _is_leased(run) and _micros(run.lease.expires_at) <= _micros(self.tables.now())

    def _held(self, run_id: str, token: int) -> Record[Run]:
        record = self._own_run(run_id)
        if not self._is_held(record, token):
            raise LeaseLost()
        return record

    async def heartbeat_run(self, run_id: str, token: int, lease_seconds: float) -> HeartbeatRunResponse:
        record = self._held(run_id, token)
        record.row.lease.expires_at.CopyFrom(self._later(lease_seconds))
        return HeartbeatRunResponse(expires_at=record.row.lease.expires_at, cancel=record.row.cancel)

    async def finish_run(
        self,
        run_id: str,
        token: int,
        status: RunStatus,
        error: str,
        thread_status: ThreadStatus,
        changes: Sequence[Change],
    ) -> Finished:
        record = self._own_run(run_id)
        if not self._is_held(record, token):
            if record.settled_token == token and record.row.status == status:
                return Finished(record.row.thread_id, copy(record.row))
            raise LeaseLost()
        if record.row.cancel == CANCEL_ACTION_ROLLBACK:
            self.undo_runs([record])
            return Finished(record.row.thread_id, None)
        record.settled_token = token
        return self._end_run(record, status, error, thread_status, changes)

    async def release_run(self, run_id: str, token: int, delay_seconds: float) -> Finished:
        record = self._own_run(run_id)
        if not self._is_held(record, token):
            if record.settled_token == token and record.row.status in (RUN_STATUS_PENDING, RUN_STATUS_INTERRUPTED):
                return Finished(record.row.thread_id, copy(record.row))
            raise LeaseLost()
        if record.row.cancel:
            return self._stop(record, settled=token)
        later = self._later(delay_seconds)
        if not delay_seconds or _micros(later) < _micros(record.row.run_after):
            later.CopyFrom(record.row.run_after)
        record.settled_token = token
        self.change(RUNS, record, [Put("status", RUN_STATUS_PENDING), Put("run_after", later)])
        return Finished(record.row.thread_id, copy(record.row))

    async def sweep_runs(self, limit: int, most_attempts: int) -> Lapsed:
        found = Lapsed()

        def ends(record: Record[Run]) -> bool:
            return bool(record.row.cancel) or record.lapses + 1 >= most_attempts

        lapsed = [run for run in self.records(RUNS, (), Access.OWN) if self._is_lapsed(run.row)]
        lapsed.sort(key=lambda run: (ends(run), _micros(run.row.lease.expires_at), run.token))
        for record in lapsed[:limit]:
            run = record.row
            place = (run.run_id, run.thread_id)
            if not ends(record):
                record.lapses += 1
                self.change(RUNS, record, [Put("status", RUN_STATUS_PENDING)])
                found.requeued.append(place)
            else:
                (found.stopped if run.cancel else found.failed).append(place)
                self._stop(record)
        return found

    def _stop(self, record: Record[Run], *, settled: int = 0) -> Finished:
        """End a run that is to stop, or whose attempts are over."""
        record.settled_token = settled
        if record.row.cancel == CANCEL_ACTION_ROLLBACK:
            self.undo_runs([record])
            return Finished(record.row.thread_id, None)
        if record.row.cancel:
            return self._end_run(record, RUN_STATUS_INTERRUPTED, "", THREAD_STATUS_IDLE, ())
        return self._end_run(record, RUN_STATUS_ERROR, LAPSED, THREAD_STATUS_ERROR, [Put("error", LAPSED)])

    def _end_run(
        self,
        record: Record[Run],
        status: RunStatus,
        error: str,
        thread_status: ThreadStatus,
        changes: Sequence[Change],
    ) -> Finished:
        self.change(RUNS, record, [Put("status", status), Put("error", error), Stamp("finished_at")])
        thread = self.tables.of(THREADS).get((record.row.thread_id,))
        if thread is not None and (record.owner or thread.owner) == thread.owner:
            reached = THREAD_STATUS_BUSY if self.in_flight(thread) else thread_status
            self.change(THREADS, thread, [*changes, Put("status", reached), Stamp("state_updated_at")])
        return Finished(record.row.thread_id, copy(record.row))

    async def cancel_runs(self, where: Sequence[Where], action: int) -> tuple[list[str], list[str]]:
        return self.stop_runs(self.records(RUNS, where, Access.OWN), action)

    async def run_stats(self) -> GetRunStatsResponse:
        runs = [record.row for record in self.records(RUNS, (), Access.OWN)]
        now = _micros(self.tables.now())
        times = sorted(_micros(run.run_after) for run in runs if _is_waiting(run))
        due = [time for time in times if time <= now]
        crons = [record.row for record in self.records(CRONS, (), Access.OWN)]
        return GetRunStatsResponse(
            runs=[
                RunsOfStatus(status=status, count=count)
                for status, count in sorted(Counter(run.status for run in runs).items())
            ],
            due=len(due),
            delayed=len(times) - len(due),
            leased=sum(map(_is_leased, runs)),
            oldest_wait_seconds=(now - due[0]) / 1_000_000 if due else 0,
            crons_due=sum(_is_due(cron, now) for cron in crons),
            claims=self.tables.claims,
        )

    # Logs.

    async def append_events(
        self, run_id: str, token: int, first_sequence: int, events: Sequence[NewRunEvent]
    ) -> tuple[str, int]:
        record = self._held(run_id, token)
        run = record.row
        last = first_sequence + len(events) - 1
        if run.last_sequence == last and len(record.events) >= len(events):
            there = [(event.type, event.data, event.end) for event in record.events[-len(events) :]]
            if there == [(event.type, event.data, 0) for event in events]:
                return run.thread_id, last
        if run.last_sequence != first_sequence - 1:
            raise SequenceMismatch(run.last_sequence)
        for event in events:
            self.note_event(record, type=event.type, data=event.data)
        return run.thread_id, last

    async def read_run_events(self, run_id: str, after: int, most_bytes: int) -> Log | None:
        record = self.one(RUNS, run_id, Access.BY_ID)
        if record is None:
            return None
        events = [event for event in record.events if event.sequence > after]
        run = record.row
        return Log(_part(events, most_bytes), run.last_sequence, record.deleted_sequence, run.status, run.cancel)

    async def read_thread_events(self, thread_id: str, after: int, most_bytes: int) -> Log | None:
        thread = self.one(THREADS, thread_id, Access.BY_ID)
        if thread is None:
            return None
        runs = [
            run
            for run in self.tables.of(RUNS).values()
            if run.row.thread_id == thread_id and (run.owner or thread.owner) == thread.owner
        ]
        events = sorted((event for run in runs for event in run.events), key=lambda event: event.position)
        deleted = max((run.deleted_position for run in runs), default=0)
        last = max(events[-1].position if events else 0, deleted)
        return Log(_part([event for event in events if event.position > after], most_bytes), last, deleted)

    async def sweep_events(self, limit: int, seconds: float) -> int:
        before = _micros(self.tables.now()) - round(seconds * 1_000_000)
        ended = [
            run
            for run in self.records(RUNS, (), Access.OWN)
            if run.row.status in _FINAL
            and run.events
            and run.events[-1].end
            and _micros(run.events[-1].created_at) < before
        ]
        deleted = 0
        for run in ended[:limit]:
            deleted += len(run.events)
            run.deleted_sequence, run.deleted_position = run.events[-1].sequence, run.events[-1].position
            run.events.clear()
        return deleted

    # Ticks.

    async def due_crons(self, limit: int, but: Sequence[str] = ()) -> list[DueCron]:
        now = self.tables.now()
        due = [
            record
            for record in self.records(CRONS, (), Access.OWN)
            if _is_due(record.row, _micros(now)) and record.row.cron_id not in but
        ]
        due.sort(key=lambda record: _micros(record.row.next_run_date))
        return [DueCron(copy(record.row), record.owner, now) for record in due[:limit]]

    async def sweep_threads_of_crons(self, limit: int, seconds: float) -> int:
        before = _micros(self.tables.now()) - round(seconds * 1_000_000)
        ended = [
            thread
            for thread in self.records(THREADS, (), Access.OWN)
            if thread.ends_with_runs and not self.in_flight(thread) and _micros(thread.row.updated_at) < before
        ]
        for thread in ended[:limit]:
            self.drop_thread(thread)
        return len(ended[:limit])

    async def fire_cron(
        self, cron: crons_pb2.Cron, next_run: Timestamp | None, run: Run | None
    ) -> crons_pb2.FiredCron | None:
        record = self.one(CRONS, cron.cron_id, Access.OWN)
        if record is None or record.row != cron:
            return None
        self.change(CRONS, record, [Put("next_run_date", next_run)])
        fired = crons_pb2.FiredCron(cron_id=cron.cron_id, tick=cron.next_run_date)
        if run is None or self._has_fired(cron):
            fired.outcome = crons_pb2.TICK_OUTCOME_SKIPPED
            return fired
        try:
            if not run.assistant_id:
                raise NotFound("assistant", "")
            await self.create_run(run, "", admit=True, makes_thread=not cron.thread_id)
        except ThreadBusy:
            fired.outcome = crons_pb2.TICK_OUTCOME_REJECTED
            return fired
        except NotFound:
            self.change(CRONS, record, [Put("enabled", False), Put("next_run_date", None)])
            fired.outcome = crons_pb2.TICK_OUTCOME_DISABLED
            return fired
        # A thread that is made for the run goes with it; the cron's thread stays.
        if not cron.thread_id and cron.on_run_completed == crons_pb2.ON_RUN_COMPLETED_DELETE:
            self.tables.of(THREADS)[(run.thread_id,)].ends_with_runs = True
        fired.outcome = crons_pb2.TICK_OUTCOME_FIRED
        fired.run_id, fired.thread_id = run.run_id, run.thread_id
        return fired

    def _has_fired(self, cron: crons_pb2.Cron) -> bool:
        return any(
            run.row.cron_id == cron.cron_id and run.row.cron_tick == cron.next_run_date
            for run in self.tables.of(RUNS).values()
        )


def _is_waiting(run: Run) -> bool:
    return run.status == RUN_STATUS_PENDING and run.HasField("run_after")


def _is_leased(run: Run) -> bool:
    return run.status == RUN_STATUS_RUNNING and run.HasField("lease")


def _is_due(cron: crons_pb2.Cron, now: int) -> bool:
    return cron.enabled and cron.HasField("next_run_date") and _micros(cron.next_run_date) <= now


def _part(events: Sequence[RunEvent], most_bytes: int) -> list[RunEvent]:
    """The first of some events: one, and more as long as they have no more than so many bytes."""
    found: list[RunEvent] = []
    size = 0
    for event in events[:_MOST_EVENTS]:
        if size and size + len(event.data) > most_bytes:
            break
        size += len(event.data)
        found.append(copy(event))
    return found
