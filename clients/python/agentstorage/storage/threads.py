"""Threads and their states, as the runtimes see them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from agentstorage.errors import InvalidRequest, NotFound
from agentstorage.identifiers import new_id
from agentstorage.storage import fields
from agentstorage.storage.resource import Resource, paged
from agentstorage.storage.rows import THREAD_STATUS, THREAD_VISIBILITY, Thread, ThreadState
from agentstorage.v1 import common_pb2, threads_pb2, threads_pb2_grpc

_CREATED: dict[str, fields.Writer] = {
    "metadata": fields.json_object,
    "config": fields.json_object,
    "status": fields.word(THREAD_STATUS),
    "values": fields.json_value,
    "interrupts": fields.json_value,
    "visibility": fields.word(THREAD_VISIBILITY),
}
_STATE: dict[str, fields.Writer] = {
    "values": fields.json_value,
    "next": fields.texts,
    "tasks": fields.json_array,
    "metadata": fields.json_object,
    "interrupts": fields.json_value,
    "parent_checkpoint": fields.json_object,
}


class Threads(Resource[Thread]):
    """Threads, with the snapshots of their states."""

    _messages: ClassVar[ModuleType] = threads_pb2
    _stub_class: ClassVar[Any] = threads_pb2_grpc.ThreadServiceStub
    _noun: ClassVar[str] = "Thread"
    _row = Thread
    _resource = common_pb2.RESOURCE_THREADS
    _id_fields: ClassVar[frozenset[str]] = frozenset({"thread_id"})
    _created: ClassVar[dict[str, fields.Writer]] = {"thread_id": fields.text, **_CREATED, "if_exists": fields.if_exists}
    _updated: ClassVar[dict[str, fields.Writer]] = {**_CREATED, "error": fields.json_value}
    _pushed: ClassVar[dict[str, fields.Pusher]] = {
        "thread_id": fields.push_one("thread_ids"),
        "status": fields.push_word("statuses", THREAD_STATUS),
    }

    async def update(self, id: str, data: Mapping[str, Any], owner_id: str | None = None) -> Thread | None:
        """Change a thread and return it; None when the owner has none with this id.

        ``data`` holds metadata, config, status, values, interrupts, error or visibility. The keys of metadata are set
        and the others stay; the rest is replaced. Keys whose value is None, and other keys, are ignored.
        """
        return await self._update(id, data, owner_id)

    async def get_state(self, thread_id: str, owner_id: str | None = None) -> ThreadState | None:
        """Return the newest snapshot, or the values with checkpoint_id None; None when there is no such thread."""
        request = threads_pb2.GetThreadStateRequest(
            owner_id=self._owner(owner_id), thread_id=fields.checked_text(thread_id, "thread_id")
        )
        reply = await self._or_none(self._stub().GetThreadState(request))
        return None if reply is None else ThreadState.of(reply.state)

    async def add_state_snapshot(self, thread_id: str, state: Mapping[str, Any], owner_id: str | None = None) -> bool:
        """Add a snapshot and make its values the thread's values; False when the owner has no such thread.

        ``state`` holds values, next, tasks, metadata, interrupts and parent_checkpoint (the newest snapshot by
        default). A state without ``"values"`` is itself the values. The id of the snapshot is made here.
        """
        if "values" not in fields.checked_dict(state, "state"):
            state = {"values": dict(state)}
        request = threads_pb2.AddThreadStateRequest(checkpoint_id=new_id())
        fields.fill(request, state, _STATE, self._owner(owner_id))
        request.thread_id = fields.checked_text(thread_id, "thread_id")
        return await self._or_none(self._stub().AddThreadState(request)) is not None

    async def get_history(
        self, thread_id: str, owner_id: str | None = None, limit: int = 10, before: Any = None
    ) -> list[ThreadState] | None:
        """Return the snapshots of a thread, newest first; None when there is no such thread.

        Args:
            thread_id: The thread.
            owner_id: The owner.
            limit: The most snapshots; a number below 1 counts as 1.
            before: A checkpoint id, or a dict that has one: only snapshots that are strictly older. An unknown one has
                none.
        """
        request = threads_pb2.ListThreadStatesRequest(
            owner_id=self._owner(owner_id),
            thread_id=fields.checked_text(thread_id, "thread_id"),
            before=_checkpoint_id(before),
        )
        limit = max(1, fields.checked_count(limit, "limit"))
        if request.before and not fields.is_id(request.before):
            return None if await self.get(thread_id, owner_id) is None else []
        try:
            return await paged(self._stub().ListThreadStates, request, "states", ThreadState.of, limit)
        except NotFound as error:
            return [] if request.before and error.metadata.get("resource") != "thread" else None
        except InvalidRequest as error:
            if self._is_absence(error):
                return None
            raise


def _checkpoint_id(before: Any) -> str:
    if before is None:
        return ""
    if isinstance(before, Mapping):
        inner = before.get("configurable")
        before = (inner if isinstance(inner, Mapping) else before).get("checkpoint_id")
        if before is None:
            return ""
    return fields.checked_text(before, "before")
