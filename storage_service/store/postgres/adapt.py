"""How values come out of Postgres: JSON as text, times as Timestamp messages."""

from __future__ import annotations

from typing import Any, Final

import psycopg
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import pq
from psycopg.adapt import Buffer, Loader

# Microseconds from 1970 to 2000, where Postgres counts from, and the range of Timestamp, year 1 to 9999.
_EPOCH: Final = 946_684_800_000_000
_FIRST, _LAST = -62135596800 * 1_000_000, 253402300800 * 1_000_000


class JsonbText(Loader):
    """jsonb as its text, never parsed."""

    format = pq.Format.BINARY

    def load(self, data: Buffer) -> str:
        """The text behind the version byte."""
        return str(data[1:], "utf-8")


class TimestampLoader(Loader):
    """timestamptz as Timestamp; a time that a Timestamp cannot hold (infinity, year 10000) as absent."""

    format = pq.Format.BINARY

    def load(self, data: Buffer) -> Timestamp | None:
        """Microseconds since 2000 as seconds and nanoseconds since 1970."""
        microseconds = int.from_bytes(data, "big", signed=True) + _EPOCH
        if not _FIRST <= microseconds < _LAST:
            return None
        seconds, rest = divmod(microseconds, 1_000_000)
        return Timestamp(seconds=seconds, nanos=rest * 1000)


def register(connection: psycopg.AsyncConnection[Any]) -> None:
    """Make a connection load so."""
    connection.adapters.register_loader("jsonb", JsonbText)
    connection.adapters.register_loader("timestamptz", TimestampLoader)
