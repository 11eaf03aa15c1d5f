"""Changes to a row, each stating its meaning twice: ``apply`` for memory, ``sql`` for Postgres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from storage_service import jsontext
from storage_service.errors import InvalidRequest
from storage_service.store.tables import Table
from storage_service.store.where import Arg


class Change(Protocol):
    """One change to a row."""

    @property
    def field(self) -> str:
        """The field that it changes."""
        ...

    def apply(self, table: Table[Any], row: Any, now: Timestamp) -> None:
        """Change the row in place, at this time."""
        ...

    def sql(self, table: Table[Any], arg: Arg) -> str:
        """The change as a term of SET."""
        ...


@dataclass(frozen=True)
class Put:
    """The field gets this value; a message field is emptied by None."""

    field: str
    value: Any

    def apply(self, table: Table[Any], row: Any, now: Timestamp) -> None:
        column = table.columns[self.field]
        if column.is_time or column.load is not None:
            row.ClearField(self.field)
            if self.value is not None:
                getattr(row, self.field).CopyFrom(self.value)
        elif column.is_json:
            text = jsontext.canonical(self.value or column.default)
            # In an optional field null means none.
            setattr(row, self.field, "" if column.default == text == "null" else text)
        else:
            setattr(row, self.field, self.value)

    def sql(self, table: Table[Any], arg: Arg) -> str:
        column = table.columns[self.field]
        return f"{column.stored} = {column.write.format(arg(column.dump(self.value)))}"


@dataclass(frozen=True)
class Stamp:
    """The field gets the time of the change; with ``once`` only when it has none."""

    field: str
    once: bool = False

    def apply(self, table: Table[Any], row: Any, now: Timestamp) -> None:
        if not (self.once and row.HasField(self.field)):
            getattr(row, self.field).CopyFrom(now)

    def sql(self, table: Table[Any], arg: Arg) -> str:
        column = table.columns[self.field].stored
        return f"{column} = coalesce({column}, now())" if self.once else f"{column} = now()"


@dataclass(frozen=True)
class Merge:
    """The keys of an object are set in the metadata, then some are removed; the owner stays as it is.

    Raises InvalidRequest, or has the statement fail so, when that leaves more than ``most_bytes`` of text.
    """

    patch: str
    remove: tuple[str, ...] = ()
    most_bytes: int | None = None
    field: str = "metadata"

    def apply(self, table: Table[Any], row: Any, now: Timestamp) -> None:
        before = jsontext.pick(row.metadata, "owner")
        merged = jsontext.merge(jsontext.merge(row.metadata, self.patch or "{}", (*self.remove, "owner")), before)
        if self.most_bytes is not None and len(merged.encode()) > self.most_bytes:
            raise merged_too_large()
        row.metadata = merged

    def sql(self, table: Table[Any], arg: Arg) -> str:
        patch, remove = arg(self.patch or "{}"), arg([*self.remove, "owner"])
        merged = (
            f"((coalesce(\"metadata\", '{{}}') || {patch}::jsonb) - {remove}::text[])"
            " || CASE WHEN \"metadata\" ? 'owner' THEN jsonb_build_object('owner', \"metadata\" -> 'owner')"
            " ELSE '{}' END"
        )
        if self.most_bytes is None:
            return f'"metadata" = {merged}'
        # SQL can raise nothing that it is told to, but it fails where it is to divide by zero: no other statement does, so that faults.py
        # knows what it means.
        fits = f"(octet_length(m::text) <= {arg(self.most_bytes)}::int8)::int"
        return f'"metadata" = (SELECT CASE 1 / {fits} WHEN 1 THEN m END FROM (SELECT {merged} AS m OFFSET 0) AS merged)'  # noqa: S608 - values are bound


def merged_too_large() -> InvalidRequest:
    """The failure of an update that leaves more metadata than a JSON field may hold."""
    return InvalidRequest(violations={"metadata": "merged into what is there is larger than the limit of a JSON field"})
