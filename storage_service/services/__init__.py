"""The methods of the API, one module for each service of the protos. They import neither grpc nor SQL."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from agentstorage.v1 import common_pb2
from storage_service import jsontext
from storage_service.caller import Caller, Owner, Scope
from storage_service.errors import AlreadyExists, InvalidRequest
from storage_service.ids import new_id
from storage_service.settings import Limits
from storage_service.store import Handle, Inserted, Store, key_of_request, repeated
from storage_service.store.change import Change, Merge, Put
from storage_service.store.tables import M, Table
from storage_service.store.where import Contains, Equals, OneOf, Where


@dataclass(slots=True)
class Call:
    """What a method knows of its call beside the request."""

    caller: Caller
    scope: Scope
    # When it must be answered, by time.monotonic().
    deadline: float
    store: Store
    limits: Limits

    @property
    def owner_id(self) -> str | None:
        """The owner, or None for all."""
        return self.scope.id if isinstance(self.scope, Owner) else None

    def seconds(self) -> float:
        """The seconds that are left to answer."""
        return self.deadline - time.monotonic()

    @property
    def rows(self) -> Handle:
        """The rows that the call may see and change."""
        return self.store.seen_by(self.scope, self.limits.message_bytes)


def request_key(request: Any, call: Call) -> str:
    """What stands for a request_id of one method and owner, in hexadecimal digits; "" without one."""
    if not request.request_id:
        return ""
    owner = call.scope.id if isinstance(call.scope, Owner) else ""
    parts = "\0".join((request.DESCRIPTOR.name, owner, request.request_id))
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()


def stamp(request: Any, call: Call) -> str:
    """What a create leaves on its row, so that a retry of it is known: its request_id's key, or ":", and a digest of its content."""
    given = {name: getattr(request, name) for name in ("request_id", "if_exists") if hasattr(request, name)}
    for name in given:
        request.ClearField(name)
    content = request.SerializeToString(deterministic=True)
    for name, value in given.items():
        setattr(request, name, value)
    return (request_key(request, call) or ":") + hashlib.blake2b(content, digest_size=8).hexdigest()


def id_for(request: Any, call: Call, given: str) -> str:
    """The id of a new row: the given one, or a new one, which with a request_id is the same for each sending."""
    return given or request_key(request, call) or new_id()


def keep_or_raise(table: Table[M], request: Any, call: Call, inserted: Inserted[M], id: str) -> M:
    """The row that a create answers: the new one, or the existing one where the request allows it.

    A retry is told from another create by its stamp. Raises AlreadyExists, and InvalidRequest for a request_id that came with another
    content before.
    """
    if inserted.created or getattr(request, "if_exists", 0) == common_pb2.IF_EXISTS_DO_NOTHING:
        return inserted.row
    if inserted.request_id == stamp(request, call):
        return inserted.row
    if request.request_id and key_of_request(inserted.request_id) == request_key(request, call):
        raise repeated()
    raise AlreadyExists(table.resource, id)


def contains(call: Call, field: str, json: str) -> Contains:
    """The condition that a field contains an object. Raises InvalidRequest for one with too many keys."""
    if len(json) > call.limits.filter_keys and jsontext.count_keys(json) > call.limits.filter_keys:
        raise InvalidRequest(violations={field: f"has more than {call.limits.filter_keys} keys"})
    return Contains(field, json)


def filters(call: Call, request: Any, **fields: str) -> list[Where]:
    """Conditions for the filters of a search that are set: ``fields`` maps a field of the request to the row's."""
    where: list[Where] = []
    for name, field in fields.items():
        value = getattr(request, name)
        if not value:
            continue
        if field in ("metadata", "values"):
            where.append(contains(call, field, value))
        elif isinstance(value, str):
            where.append(Equals(field, value))
        else:
            where.append(OneOf(field, tuple(value)))
    return where


def changes(call: Call, table: Table[Any], request: Any, *fields: str) -> list[Change]:
    """What an update changes: the named fields that are present, and metadata. JSON that is "" stays as it is."""
    found: list[Change] = []
    if request.metadata or request.remove_metadata_keys:
        # What only removes keys makes room, also where a runtime left more than the limit.
        most = call.limits.json_bytes if request.metadata else None
        found.append(Merge(request.metadata, tuple(request.remove_metadata_keys), most))
    for name in fields:
        value = getattr(request, name)
        if request.HasField(name) and (value or not table.columns[name].is_json):
            found.append(Put(name, value))
    return found


def known_statuses(field: str, numbers: Any) -> tuple[int, ...]:
    """The statuses of a request's list. Raises InvalidRequest for UNSPECIFIED among them."""
    if 0 in numbers:
        raise InvalidRequest(violations={field: "must not hold UNSPECIFIED"})
    return tuple(numbers)
