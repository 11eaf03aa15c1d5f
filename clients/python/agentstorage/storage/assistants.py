"""Assistants, as the runtimes see them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, ClassVar

from agentstorage.storage import fields
from agentstorage.storage.resource import Resource
from agentstorage.storage.rows import Assistant
from agentstorage.v1 import assistants_pb2, assistants_pb2_grpc, common_pb2

_CHANGEABLE: dict[str, fields.Writer] = {
    "graph_id": fields.text,
    "name": fields.text,
    "description": fields.text,
    "config": fields.json_object,
    "context": fields.json_object,
    "metadata": fields.json_object,
}


class Assistants(Resource[Assistant]):
    """Assistants. ``create`` wants ``graph_id``. Those of the owner ``"system"`` are readable by every owner."""

    _messages: ClassVar[ModuleType] = assistants_pb2
    _stub_class: ClassVar[Any] = assistants_pb2_grpc.AssistantServiceStub
    _noun: ClassVar[str] = "Assistant"
    _row = Assistant
    _resource = common_pb2.RESOURCE_ASSISTANTS
    _id_fields: ClassVar[frozenset[str]] = frozenset({"assistant_id"})
    _required: ClassVar[tuple[str, ...]] = ("graph_id",)
    _created: ClassVar[dict[str, fields.Writer]] = {
        "assistant_id": fields.text,
        **_CHANGEABLE,
        "if_exists": fields.if_exists,
    }
    _updated: ClassVar[dict[str, fields.Writer]] = _CHANGEABLE
    _pushed: ClassVar[dict[str, fields.Pusher]] = {
        "assistant_id": fields.push_one("assistant_ids"),
        "graph_id": fields.push_id("graph_id"),
    }

    async def update(self, id: str, data: Mapping[str, Any], owner_id: str | None = None) -> Assistant | None:
        """Change an assistant, which adds a version, and return it; None when the owner has none with this id.

        ``data`` holds graph_id, name, description, config, context or metadata. config and context are replaced; the
        keys of metadata are set and the others stay. Keys whose value is None, and other keys, are ignored; ``""``
        removes a name or a description.
        """
        return await self._update(id, data, owner_id)
