"""Runs, as the runtimes that manage runs themselves see them, and as those do that leave them to the queue."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from datetime import datetime
from types import ModuleType
from typing import Any, ClassVar

from agentstorage.errors import RunEnded
from agentstorage.identifiers import new_id
from agentstorage.queue.following import follow_run, wait_run
from agentstorage.queue.records import CANCEL_ACTION, IF_NOT_EXISTS, Cancelled, Event, QueuedRun
from agentstorage.storage import fields
from agentstorage.storage.resource import Resource
from agentstorage.storage.rows import MULTITASK_STRATEGY, RUN_STATUS, Run
from agentstorage.v1 import common_pb2, runs_pb2, runs_pb2_grpc

_status = fields.word(RUN_STATUS)
_cancel = fields.word(CANCEL_ACTION)


class Runs(Resource[Run]):
    """Runs. ``create`` wants ``thread_id`` and ``assistant_id``, which need not exist, and only writes the row.

    By default a run is pending and its multitask strategy is reject. ``submit`` queues a run for the workers; see
    ``agentstorage.queue``.
    """

    _messages: ClassVar[ModuleType] = runs_pb2
    _stub_class: ClassVar[Any] = runs_pb2_grpc.RunServiceStub
    _noun: ClassVar[str] = "Run"
    _row = Run
    _resource = common_pb2.RESOURCE_RUNS
    _id_fields: ClassVar[frozenset[str]] = frozenset({"run_id", "thread_id"})
    _required: ClassVar[tuple[str, ...]] = ("thread_id", "assistant_id")
    _always: ClassVar[dict[str, Any]] = {"record_only": True}
    _created: ClassVar[dict[str, fields.Writer]] = {
        "run_id": fields.text,
        "thread_id": fields.text,
        "assistant_id": fields.text,
        "status": _status,
        "metadata": fields.json_object,
        "kwargs": fields.json_object,
        "multitask_strategy": fields.word(MULTITASK_STRATEGY),
        "if_exists": fields.if_exists,
    }
    _submitted: ClassVar[dict[str, fields.Writer]] = {
        **{name: write for name, write in _created.items() if name != "status"},
        "request_id": fields.text,
        "run_after": fields.time,
        "if_not_exists": fields.word(IF_NOT_EXISTS),
    }
    _updated: ClassVar[dict[str, fields.Writer]] = {
        "status": _status,
        "metadata": fields.json_object,
        "kwargs": fields.json_object,
        "error": fields.json_value,
    }
    _pushed: ClassVar[dict[str, fields.Pusher]] = {
        "run_id": fields.push_one("run_ids"),
        "thread_id": fields.push_id("thread_id"),
        "assistant_id": fields.push_id("assistant_id"),
        "status": fields.push_word("statuses", RUN_STATUS),
    }

    async def update(self, id: str, data: Mapping[str, Any], owner_id: str | None = None) -> Run | None:
        """Change a run and return it; None when the owner has none with this id.

        ``data`` holds status, metadata, kwargs or error. The keys of metadata are set and the others stay; the rest is
        replaced. A run whose status is final keeps it, without an error. Keys whose value is None, and other keys, are
        ignored.
        """
        try:
            return await self._update(id, data, owner_id)
        except RunEnded:
            rest = {name: value for name, value in data.items() if name in self._updated and name != "status"}
            return await (self._update(id, rest, owner_id) if rest else self.get(id, owner_id))

    async def update_status(self, run_id: str, status: str, owner_id: str | None = None) -> Run | None:
        """Set the status and return the run; a run whose status is final comes back unchanged; None without it."""
        return await self.update(run_id, {"status": fields.checked_text(status, "status")}, owner_id)

    async def list_by_thread(
        self,
        thread_id: str,
        owner_id: str | None = None,
        limit: int = 10,
        offset: int = 0,
        status: str | None = None,
    ) -> list[Run]:
        """Return runs of a thread, newest first.

        Args:
            thread_id: The thread.
            owner_id: The owner.
            limit: The most runs; a number below 1 counts as 1.
            offset: Runs to leave out first; a negative number counts as 0.
            status: Only runs with this status.
        """
        limit = max(1, fields.checked_count(limit, "limit"))
        offset = max(0, fields.checked_count(offset, "offset"))
        request = runs_pb2.SearchRunsRequest(owner_id=self._owner(owner_id))
        wanted = {"thread_id": fields.checked_text(thread_id, "thread_id")}
        if status is not None:
            wanted["status"] = fields.checked_text(status, "status")
        if self._push(request, wanted):
            return []
        return await self._search(request, limit, offset)

    async def get_by_thread(self, thread_id: str, run_id: str, owner_id: str | None = None) -> Run | None:
        """Return a run of this thread; None when the thread has no such run."""
        request = runs_pb2.GetRunRequest(
            owner_id=self._owner(owner_id),
            run_id=fields.checked_text(run_id, "run_id"),
            thread_id=fields.checked_text(thread_id, "thread_id"),
        )
        if not thread_id:
            return None
        reply = await self._or_none(self._stub().GetRun(request))
        return None if reply is None else Run.of(reply.run)

    async def delete_by_thread(self, thread_id: str, run_id: str, owner_id: str | None = None) -> bool:
        """Delete a run of this thread; False when the thread has no such run."""
        request = runs_pb2.DeleteRunRequest(
            owner_id=self._owner(owner_id),
            run_id=fields.checked_text(run_id, "run_id"),
            thread_id=fields.checked_text(thread_id, "thread_id"),
        )
        if not thread_id:
            return False
        return await self._or_none(self._stub().DeleteRun(request)) is not None

    async def get_active_run(self, thread_id: str, owner_id: str | None = None) -> Run | None:
        """Return the newest run of a thread that is pending or running; None when there is none."""
        request = runs_pb2.GetActiveRunRequest(
            owner_id=self._owner(owner_id), thread_id=fields.checked_text(thread_id, "thread_id")
        )
        reply = await self._or_none(self._stub().GetActiveRun(request))
        return Run.of(reply.run) if reply is not None and reply.HasField("run") else None

    async def count_by_thread(self, thread_id: str, owner_id: str | None = None) -> int:
        """Count the runs of a thread."""
        return await self.count(owner_id, thread_id=fields.checked_text(thread_id, "thread_id"))

    async def submit(
        self,
        thread_id: str,
        assistant_id: str,
        kwargs: Mapping[str, Any] | None = None,
        *,
        owner_id: str | None = None,
        run_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        multitask_strategy: str = "reject",
        if_not_exists: str = "reject",
        if_exists: str = "raise",
        run_after: datetime | str | None = None,
        request_id: str | None = None,
    ) -> QueuedRun:
        """Queue a run, which a worker claims and executes, and return it.

        Args:
            thread_id: The thread. It becomes busy.
            assistant_id: The assistant.
            kwargs: What the worker needs: input, config and the like.
            owner_id: The owner.
            run_id: The id; made when there is none.
            metadata: Labels.
            multitask_strategy: What happens while the thread has another run in flight: ``"reject"`` this one, ``"enqueue"`` it,
                or also ``"interrupt"`` or ``"rollback"`` the others.
            if_not_exists: What happens when there is no such thread: ``"reject"`` or ``"create"`` it.
            if_exists: What happens when the id is taken: ``"raise"`` or ``"do_nothing"``, which returns the owner's run.
            run_after: When it may be claimed at the earliest, a datetime with a time zone or ISO-8601 text; at once by default.
            request_id: Makes a second call with the same content return the run of the first.

        Raises:
            ValueError: ``run_after`` has no time zone.
            NotFound: The thread or the assistant is absent.
            ThreadBusy: The strategy is to reject, and the thread has a run in flight.
            AlreadyExists: The id is taken. It is a ValueError too.
        """
        if isinstance(run_after, datetime) and run_after.tzinfo is None:
            raise ValueError("run_after needs a time zone, as datetime.now(UTC) has one")
        request = runs_pb2.CreateRunRequest()
        data = {
            "thread_id": thread_id,
            "assistant_id": assistant_id,
            "kwargs": kwargs,
            "run_id": run_id,
            "metadata": metadata,
            "multitask_strategy": multitask_strategy,
            "if_not_exists": if_not_exists,
            "if_exists": if_exists,
            "run_after": run_after,
            "request_id": request_id,
        }
        fields.fill(request, data, self._submitted, self._owner(owner_id))
        if not request.request_id:
            # As of every create: it tells a call that is sent again from a second one with the same id.
            request.request_id = new_id()
            request.run_id = request.run_id or new_id()
        return QueuedRun.of((await self._stub().CreateRun(request)).run)

    async def cancel(
        self,
        *run_ids: str,
        thread_id: str | None = None,
        action: str = "interrupt",
        owner_id: str | None = None,
    ) -> Cancelled:
        """Stop runs that are pending or running, and return what became of them. Absent ones are passed over.

        Args:
            run_ids: The runs; all of the thread when there are none.
            thread_id: The thread; any when runs are named.
            action: ``"interrupt"``, or ``"rollback"``, which deletes them with their events and checkpoints.
            owner_id: The owner.
        """
        request = runs_pb2.CancelRunsRequest(
            owner_id=self._owner(owner_id), run_ids=[fields.checked_text(id, "run_ids") for id in run_ids]
        )
        if thread_id is not None:
            request.thread_id = fields.checked_text(thread_id, "thread_id")
        _cancel(request, "action", action)
        reply = await self._or_none(self._stub().CancelRuns(request))
        return Cancelled([], []) if reply is None else Cancelled([*reply.stopped_run_ids], [*reply.asked_run_ids])

    def events(self, run_id: str, owner_id: str | None = None, after: int = 0) -> AsyncGenerator[Event, None]:
        """Give the events of a run, up to its end marker; see :func:`agentstorage.queue.follow_run`."""
        return follow_run(self._connection, fields.checked_text(run_id, "run_id"), self._owner(owner_id), after)

    async def wait(
        self,
        run_id: str,
        owner_id: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - it tells the service how long to wait, and bears an absent answer
    ) -> QueuedRun | None:
        """Wait until the status of a run is final, and return it; None when it is absent, or deleted meanwhile.

        Args:
            run_id: The run.
            owner_id: The owner.
            timeout: The most seconds to wait; None for as long as it takes. TimeoutError when they are over.
        """
        waiting = wait_run(self._connection, fields.checked_text(run_id, "run_id"), self._owner(owner_id), timeout)
        run: QueuedRun | None = await self._or_none(waiting)
        return run
