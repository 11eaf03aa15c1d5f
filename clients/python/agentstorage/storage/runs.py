"""Runs, as the runtimes that manage runs themselves see them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from agentstorage.errors import RunEnded
from agentstorage.storage import fields
from agentstorage.storage.resource import Resource
from agentstorage.storage.rows import MULTITASK_STRATEGY, RUN_STATUS, Run
from agentstorage.v1 import common_pb2, runs_pb2, runs_pb2_grpc

_status = fields.word(RUN_STATUS)


class Runs(Resource[Run]):
    """Runs. ``create`` wants ``thread_id`` and ``assistant_id``, which need not exist, and only writes the row.

    By default a run is pending and its multitask strategy is reject.
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
