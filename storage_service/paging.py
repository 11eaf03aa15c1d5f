"""Pages of a search: size, offset and opaque tokens (Google AIP-158), and read masks (AIP-157).

A token holds the place of the last row and a digest of it together with the method, the scope and the filters, so that it serves only the
search it came from. It is no secret and gives no right: the rows behind it are always those of the scope that presents it.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from agentstorage.v1 import common_pb2
from storage_service.caller import Owner, Scope
from storage_service.errors import InvalidPageToken, InvalidRequest
from storage_service.store import Order, Page
from storage_service.store.items import limit_of
from storage_service.store.tables import M, Table
from storage_service.validate import FIRST_SECOND, LAST_SECOND

_DIGEST_BYTES: Final = 12
# What may differ between the pages of one search.
_PAGING = ("page_size", "page_token", "offset", "fields")


def order_by(request: Any, fields: Sequence[str], id: str) -> Order:
    """The order that a request asks for: ``fields`` are what its ``sort_by`` numbers mean, from 1; ties by ``id``."""
    field = fields[max(request.sort_by - 1, 0)]
    descending = request.sort_order != common_pb2.SORT_ORDER_ASC
    return Order((field,) if field == id else (field, id), descending)


class Paging:
    """The page that a request asks for, and the token for the next one."""

    def __init__(self, table: Table[Any], order: Order, request: Any, scope: Scope) -> None:
        self._table = table
        self.order = order
        self._request = request
        self._scope = scope
        self._fields = read_mask(table, request)
        if request.page_token and request.offset:
            raise InvalidRequest(violations={"offset": "can't go together with page_token"})
        self.size = limit_of(request.page_size)
        needed = None if self._fields is None else self._fields | set(order.fields)
        # One row more than asked tells whether there are more.
        self.page = Page(self.size + 1, request.offset, self._decode() if request.page_token else None, needed)

    def cut(self, rows: list[M]) -> tuple[list[M], str]:
        """The rows of the page and the token for the next, "" at the end."""
        token = ""
        if len(rows) > self.size:
            rows = rows[: self.size]
            token = self._encode(rows[-1])
        if self._fields is not None:
            for row in rows:
                for name in self.page.fields or ():
                    if name not in self._fields:
                        row.ClearField(name)
        return rows, token

    def _encode(self, row: Any) -> str:
        place: list[Any] = []
        for name in self.order.fields:
            value = getattr(row, name)
            if isinstance(value, Timestamp):
                place.append(value.ToMicroseconds() if row.HasField(name) else None)
            else:
                place.append(value)
        text = json.dumps(place, ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(self._digest(text) + text).decode()

    def _decode(self) -> tuple[Any, ...]:
        try:
            data = base64.b64decode(self._request.page_token, altchars=b"-_", validate=True)
        except ValueError as error:
            raise InvalidPageToken() from error
        digest, text = data[:_DIGEST_BYTES], data[_DIGEST_BYTES:]
        if digest != self._digest(text):
            raise InvalidPageToken()
        # The digest is no secret, so what it covers may still be anything.
        try:
            given = json.loads(text)
            if not isinstance(given, list) or len(given) != len(self.order.fields):
                raise InvalidPageToken()
            return tuple(self._bound(name, value) for name, value in zip(self.order.fields, given, strict=True))
        except (ValueError, OverflowError, RecursionError) as error:
            raise InvalidPageToken() from error

    def _bound(self, name: str, value: Any) -> Any:
        """A value of a place as the row's field has it. Raises InvalidPageToken for one that it can't have."""
        if self._table.columns[name].is_time:
            if value is None:
                return None
            if type(value) is not int or not FIRST_SECOND <= value // 1_000_000 <= LAST_SECOND:
                raise InvalidPageToken()
            time = Timestamp()
            time.FromMicroseconds(value)
            return time
        wanted = type(getattr(self._table.message(), name))
        if type(value) is not wanted or (wanted is int and abs(value) >= 2**31):
            raise InvalidPageToken()
        if wanted is str and not value.isprintable() and ("\0" in value or _is_broken(value)):
            raise InvalidPageToken()
        return value

    def _digest(self, text: bytes) -> bytes:
        search = type(self._request)()
        search.CopyFrom(self._request)
        for name in _PAGING:
            if name in search.DESCRIPTOR.fields_by_name:
                search.ClearField(name)
        scope = self._scope.id if isinstance(self._scope, Owner) else None
        parts = [search.DESCRIPTOR.full_name, repr(scope)]
        return hashlib.blake2b(
            b"\0".join([text, *(part.encode() for part in parts), search.SerializeToString(deterministic=True)]),
            digest_size=_DIGEST_BYTES,
        ).digest()


def _is_broken(text: str) -> bool:
    """Whether a text holds half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def read_mask(table: Table[Any], request: Message) -> frozenset[str] | None:
    """The fields that a request asks for, always with the id, or None for all. Raises InvalidRequest for an unknown one."""
    if "fields" not in request.DESCRIPTOR.fields_by_name:
        return None
    paths = getattr(request, "fields").paths  # noqa: B009 - only requests with a mask come here
    if not paths:
        return None
    if not table.columns.keys() >= set(paths):
        raise InvalidRequest(violations={"fields": f"names something that is no field of a {table.resource}"})
    return frozenset(paths) | set(table.key)
