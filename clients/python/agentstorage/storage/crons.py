"""Crons, as the runtimes see them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from google.protobuf.message import Message

from agentstorage.storage import fields
from agentstorage.storage.resource import Resource
from agentstorage.storage.rows import MISFIRE_POLICY, ON_RUN_COMPLETED, Cron
from agentstorage.v1 import common_pb2, crons_pb2, crons_pb2_grpc


def _end_time(request: Message, name: str, value: Any) -> None:
    if value == "":
        request.clear_end_time = True  # type: ignore[attr-defined]  # an UpdateCronRequest
    else:
        fields.time(request, name, value)


_CHANGEABLE: dict[str, fields.Writer] = {
    "schedule": fields.text,
    "timezone": fields.text,
    "enabled": fields.flag,
    "user_id": fields.text,
    "payload": fields.json_object,
    "metadata": fields.json_object,
    "on_run_completed": fields.word(ON_RUN_COMPLETED),
    "misfire_policy": fields.word(MISFIRE_POLICY),
}


class Crons(Resource[Cron]):
    """Crons. ``create`` wants ``assistant_id`` and ``schedule``: neither the assistant nor a thread has to exist.

    ``end_time`` is a datetime or ISO-8601 text. The service computes ``next_run_date``. A bad schedule, timezone or
    end_time is ``InvalidRequest``, which is a ValueError.
    """

    _messages: ClassVar[ModuleType] = crons_pb2
    _stub_class: ClassVar[Any] = crons_pb2_grpc.CronServiceStub
    _noun: ClassVar[str] = "Cron"
    _row = Cron
    _resource = common_pb2.RESOURCE_CRONS
    _id_fields: ClassVar[frozenset[str]] = frozenset({"cron_id"})
    _required: ClassVar[tuple[str, ...]] = ("assistant_id", "schedule")
    _always: ClassVar[dict[str, Any]] = {"record_only": True}
    _created: ClassVar[dict[str, fields.Writer]] = {
        "cron_id": fields.text,
        "assistant_id": fields.text,
        "thread_id": fields.text,
        "end_time": fields.time,
        **_CHANGEABLE,
        "if_exists": fields.if_exists,
    }
    _updated: ClassVar[dict[str, fields.Writer]] = {**_CHANGEABLE, "end_time": _end_time}
    _pushed: ClassVar[dict[str, fields.Pusher]] = {
        "cron_id": fields.push_one("cron_ids"),
        "assistant_id": fields.push_id("assistant_id"),
        "thread_id": fields.push_id("thread_id"),
        "enabled": fields.push_flag("enabled"),
    }

    async def update(self, cron_id: str, owner_id: str | None, updates: Mapping[str, Any]) -> Cron | None:
        """Change a cron and return it; None when the owner has none with this id.

        ``updates`` holds schedule, timezone, enabled, end_time (``""`` removes it), user_id, payload, metadata,
        on_run_completed or misfire_policy. The keys of metadata are set and the others stay; the rest is replaced. Keys
        whose value is None, and other keys, are ignored.
        """
        return await self._update(cron_id, updates, owner_id)

    async def list(self, owner_id: str | None = None, assistant_id: str | None = None, **filters: Any) -> list[Cron]:
        """Return all crons, of one assistant if given, whose attributes equal the filters; see ``Resource.list``."""
        return await super().list(owner_id, **_with_assistant(assistant_id, filters))

    async def count(self, owner_id: str | None = None, assistant_id: str | None = None, **filters: Any) -> int:
        """Count the crons that ``list`` would return."""
        return await super().count(owner_id, **_with_assistant(assistant_id, filters))


def _with_assistant(assistant_id: str | None, filters: dict[str, Any]) -> dict[str, Any]:
    return filters if assistant_id is None else {**filters, "assistant_id": assistant_id}
