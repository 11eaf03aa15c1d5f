"""The methods of the API, one module for each service of the protos. They import neither grpc nor SQL."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from storage_service import jsontext
from storage_service.caller import Caller, Scope
from storage_service.errors import AlreadyExists, InvalidRequest
from storage_service.settings import Limits
from storage_service.store import Handle, Inserted, Store
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

    def seconds(self) -> float:
        """The seconds that are left to answer."""
        return self.deadline - time.monotonic()

    @property
    def rows(self) -> Handle:
        """The rows that the call may see and change."""
        return self.store.seen_by(self.scope)


def keep_or_raise(table: Table[M], request: Any, inserted: Inserted[M], sent: M) -> M:
    """The row that a create answers: the new one, or the existing one where the request allows it.

    A retry is told from another create by its request_id, or, without one on either side, by the same content.
    """
    if inserted.created or request.if_exists == 2:
        return inserted.row
    if request.request_id or inserted.request_id:
        same = request.request_id == inserted.request_id
    else:
        same = _same_content(table, sent, inserted.row)
    if not same:
        raise AlreadyExists(table.resource, getattr(sent, table.id))
    return inserted.row


def _same_content(table: Table[M], sent: M, row: M) -> bool:
    for name, column in table.columns.items():
        mine, theirs = getattr(sent, name), getattr(row, name)
        if name in ("created_at", "updated_at", "next_run_date", "version"):
            continue
        if column.is_json:
            mine, theirs = (jsontext.canonical(text or column.default) for text in (mine, theirs))
            if name == "metadata":
                mine, theirs = (jsontext.merge(text, "{}", ("owner",)) for text in (mine, theirs))
        if mine != theirs:
            return False
    return True


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


def changes(table: Table[Any], request: Any, *fields: str) -> list[Change]:
    """What an update changes: the named fields that are present, and metadata. JSON that is "" stays as it is."""
    found: list[Change] = []
    if request.metadata or request.remove_metadata_keys:
        found.append(Merge(request.metadata, tuple(request.remove_metadata_keys)))
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
