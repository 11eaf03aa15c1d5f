"""How values come out of Postgres: JSON as text, times as Timestamp messages; and how arrays get in: in binary."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from google.protobuf.timestamp_pb2 import Timestamp
from psycopg import pq
from psycopg.abc import Transformer
from psycopg.adapt import Buffer, Dumper, Loader, PyFormat

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


class Array(list[Any]):
    """A value that travels as an array, in binary; one of the kinds below."""


class Texts(Array):
    """``text[]``."""


class Blobs(Array):
    """``bytea[]``, None for NULL. As text every byte would be two digits."""


class Integers(Array):
    """``int4[]``."""


def dumped(transformer: Transformer, values: Sequence[Any]) -> Sequence[Buffer | None]:
    """Values as they travel: arrays in binary, all else as text, which Postgres reads as whatever type the statement has there."""
    formats = [PyFormat.BINARY if isinstance(value, Array) else PyFormat.TEXT for value in values]
    return transformer.dump_sequence(values, formats)


# Dimensions, whether there are NULLs, the type of the elements; then, for each dimension, its length and its first index.
_EMPTY_HEAD, _HEAD = struct.Struct("!iii").pack, struct.Struct("!iiiii").pack
_length = struct.Struct("!i").pack
_NULL: Final = _length(-1)


def _array(element: int, items: Sequence[bytes | None]) -> bytes:
    """An array in the binary format of ``array_send``: each element with its length before it."""
    if not items:
        return _EMPTY_HEAD(0, 0, element)
    parts = [_HEAD(1, int(None in items), element, len(items), 1)]
    for item in items:
        parts += (_NULL,) if item is None else (_length(len(item)), item)
    return b"".join(parts)


class _TextsDumper(Dumper):
    format, oid = pq.Format.BINARY, 1009

    def dump(self, obj: Texts) -> bytes:
        """UTF-8, as every connection of the pool has it."""
        return _array(25, [item.encode() for item in obj])


class _BlobsDumper(Dumper):
    format, oid = pq.Format.BINARY, 1001

    def dump(self, obj: Blobs) -> bytes:
        """The bytes as they are."""
        return _array(17, obj)


class _IntegersDumper(Dumper):
    format, oid = pq.Format.BINARY, 1007

    def dump(self, obj: Integers) -> bytes:
        """Four bytes each."""
        return _array(23, [_length(item) for item in obj])


def register(connection: psycopg.AsyncConnection[Any]) -> None:
    """Make a connection load and dump so."""
    connection.adapters.register_dumper(Texts, _TextsDumper)
    connection.adapters.register_dumper(Blobs, _BlobsDumper)
    connection.adapters.register_dumper(Integers, _IntegersDumper)
    connection.adapters.register_loader("jsonb", JsonbText)
    connection.adapters.register_loader("timestamptz", TimestampLoader)
