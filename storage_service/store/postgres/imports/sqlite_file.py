"""Checkpoints in the SQLite file of LangGraph's savers, as the rows that LangGraph's Postgres savers keep.

There, a checkpoint is one blob with all its channels; here it is JSON, and each channel's value is kept once for its version. So the
blob is taken apart, with LangGraph's own serializer, and this is the only place of the service that does such a thing. Objects in it
stay the bytes that they are: no class is looked up and no constructor is called, whatever the file says.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import ormsgpack  # what LangGraph's serializer is made with, and comes with it
from langgraph.checkpoint.base import get_serializable_checkpoint_metadata
from langgraph.checkpoint.serde.jsonplus import EXT_DELTA_SNAPSHOT, JsonPlusSerializer
from langgraph.checkpoint.serde.types import TASKS, _DeltaSnapshot

from storage_service.store.postgres.imports.checkpoints import CHECKPOINTS, VALUES, WRITES, Row, Table
from storage_service.store.postgres.imports.report import Refused, SourceError, shown

_PLACE = ("thread_id", "checkpoint_ns", "checkpoint_id")
_COLUMNS: Final = {
    "checkpoints": {*_PLACE, "parent_checkpoint_id", "type", "checkpoint", "metadata"},
    "writes": {*_PLACE, "task_id", "idx", "channel", "type", "value"},
}
# What JSON and Postgres' numbers give back as it was: texts up to so many characters in a checkpoint, and floats up to here.
_INLINE_CHARACTERS, _INLINE_FLOAT = 262_144, 1e16


def _keep(code: int, data: bytes) -> Any:
    """An object in a checkpoint, as the bytes that it is; but a snapshot of a delta channel shows what it is."""
    if code == EXT_DELTA_SNAPSHOT:
        return _DeltaSnapshot(_SERIALIZER.loads_typed(("msgpack", data)))
    return ormsgpack.Ext(code, data)


_SERIALIZER: Final = JsonPlusSerializer(__unpack_ext_hook__=_keep)


class _UnreadableError(Exception):
    """A checkpoint can't be taken apart; the message says why."""


class SqliteFile:
    """An open file, read in one transaction: what a runtime writes meanwhile is not seen."""

    def __init__(self, path: Path, conn: sqlite3.Connection, *, has_task_path: bool) -> None:
        self._path = path
        self._conn = conn
        self._has_task_path = has_task_path

    async def rows(self, table: Table) -> AsyncGenerator[Row | Refused, None]:
        """See ``Source``."""
        kinds: dict[str, Callable[[], Iterator[Row | Refused]]] = {
            VALUES.name: self._values,
            WRITES.name: self._writes,
            CHECKPOINTS.name: self._checkpoints,
        }
        try:
            for row in kinds[table.name]():
                yield row
        except sqlite3.Error as error:
            raise SourceError(f"{self._path} can't be read: {error}") from error

    def _writes(self) -> Iterator[Row | Refused]:
        path = "task_path" if self._has_task_path else "''"
        query = (
            f"SELECT thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, value, {path}"
            " FROM writes ORDER BY thread_id, checkpoint_ns, checkpoint_id, task_id, idx"
        )
        for *place, value, task_path in self._conn.execute(query):
            data = _bytes(value)
            if data is None:
                yield Refused(shown(place[:5]), "it has no value")
            else:
                yield (*place, data, task_path)

    def _values(self) -> Iterator[Row | Refused]:
        for row in self._checkpoint_rows():
            if not isinstance(row, Refused):
                yield from row[1]

    def _checkpoints(self) -> Iterator[Row | Refused]:
        for row in self._checkpoint_rows():
            yield row if isinstance(row, Refused) else row[0]

    def _checkpoint_rows(self) -> Iterator[tuple[Row, list[Row]] | Refused]:
        """The row of each checkpoint, with those of the values that no row before it has."""
        query = (
            "SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata"
            " FROM checkpoints ORDER BY thread_id, checkpoint_ns, checkpoint_id"
        )
        digests: _Digests = {}
        before: tuple[str, str] | None = None
        for thread_id, ns, id, parent, kind, data, about in self._conn.execute(query):
            if before != (thread_id, ns):
                before, digests = (thread_id, ns), {}
            try:
                checkpoint, values = _divided(_loaded(kind, data), kind, digests)
                metadata = _metadata(about)
            except _UnreadableError as error:
                yield Refused(shown((thread_id, ns, id)), str(error))
                continue
            digests |= {value.place: value.digest for value in values}
            row = (thread_id, ns, id, parent or None, None, checkpoint, metadata)
            yield row, [(thread_id, ns, *value.place, value.type, value.data) for value in values]


@contextmanager
def opened(file: str) -> Iterator[SqliteFile]:
    """Opens a file to be read only. Raises SourceError for what is no file of LangGraph's checkpoints."""
    path = Path(file)
    try:
        is_file = path.is_file()
    except OSError as error:
        raise SourceError(f"{path} can't be read: {error.strerror}") from error
    if not is_file:
        raise SourceError(f"{path} is not there, or is no file")
    try:
        with closing(_connected(path)) as conn:
            found = {name: _columns(conn, name) for name in _COLUMNS}
            if missing := [name for name, columns in found.items() if not columns]:
                raise SourceError(
                    f"{path} has no table {' and no table '.join(missing)}: it holds no checkpoints of LangGraph"
                )
            for name, columns in _COLUMNS.items():
                if lacking := columns - found[name]:
                    told = ", ".join(sorted(lacking))
                    raise SourceError(f"the table {name} of {path} has no column {told}: it is not of this LangGraph")
            yield SqliteFile(path, conn, has_task_path="task_path" in found["writes"])
    except sqlite3.Error as error:
        raise SourceError(f"{path} can't be read: {error}") from error


def _connected(path: Path) -> sqlite3.Connection:
    """A connection within a transaction that has begun to read."""
    uri = path.absolute().as_uri() + "?mode=ro"
    try:
        return _reading(uri)
    except sqlite3.OperationalError as error:
        # In a directory that can't be written to, SQLite reads what has been used with a log only when told that nobody else is there;
        # which is so without a log.
        log = path.with_name(path.name + "-wal")
        is_closed = error.sqlite_errorname in ("SQLITE_READONLY_DIRECTORY", "SQLITE_CANTOPEN")
        if not is_closed or (log.exists() and log.stat().st_size):
            raise
        return _reading(uri + "&immutable=1")


def _reading(uri: str) -> sqlite3.Connection:
    conn = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        # A text that is no text is refused with its row, not with the file.
        conn.text_factory = lambda data: data.decode(errors="surrogateescape")
        conn.execute("BEGIN")
        conn.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        conn.close()
        raise
    return conn


def _columns(conn: sqlite3.Connection, table: str) -> set[str]:
    return {row[0] for row in conn.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def _bytes(value: Any) -> bytes | None:
    """A blob, which SQLite gives as a text where it was put in as one; None for a number, and for nothing."""
    data = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    return data if isinstance(data, bytes) else None


def _loaded(kind: Any, value: Any) -> dict[str, Any]:
    """The checkpoint, with its objects as they are."""
    data = _bytes(value)
    if data is None or kind not in ("msgpack", "json"):
        if isinstance(kind, str) and "+" in kind:
            raise _UnreadableError(f"it is encrypted ({shown((kind,))}), and only a program with the key can read it")
        raise _UnreadableError(f"it is neither msgpack nor JSON, but {shown((kind,))}")
    try:
        # What JSON holds of objects are objects of JSON.
        found = json.loads(data) if kind == "json" else _SERIALIZER.loads_typed((kind, data))
    except (ValueError, RecursionError) as error:
        raise _UnreadableError("its bytes can't be read") from error
    if not isinstance(found, dict) or not isinstance(found.get("channel_versions"), dict):
        raise _UnreadableError("its bytes are no checkpoint")
    return found


def _metadata(about: Any) -> str:
    """The metadata as LangGraph's Postgres savers keep them."""
    try:
        found: Any = {} if about is None else json.loads(_bytes(about) or "")
        return json.dumps(get_serializable_checkpoint_metadata({}, found), ensure_ascii=False)
    except (ValueError, RecursionError, AttributeError) as error:
        raise _UnreadableError("its metadata can't be read") from error


@dataclass(frozen=True)
class _Value:
    """A channel's value as bytes, and the channel and the version that it is kept under."""

    place: tuple[str, str]
    type: str
    data: bytes

    @cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(self.type.encode() + b"\0" + self.data).digest()


# The values that the channels of a thread and namespace have had, by channel and version.
_Digests: TypeAlias = dict[tuple[str, str], bytes]


def _divided(checkpoint: dict[str, Any], kind: str, digests: _Digests) -> tuple[str, list[_Value]]:
    """A checkpoint as JSON, and those of its values that are not among ``digests``.

    A version stands for one value, and the first checkpoint that has it tells which. But a file keeps every checkpoint's own value: one
    that was changed without a new version, or written another way, gets a version of its own, that sorts right after the first.
    """
    values: dict[str, Any] = {**(checkpoint.get("channel_values") or {})}
    versions: dict[str, Any] = {**checkpoint["channel_versions"]}
    seen: dict[str, dict[str, Any]] = checkpoint.get("versions_seen") or {}
    if sends := checkpoint.get("pending_sends"):
        # Up to format 3 what a step sent had a place of its own; it is read as the value of a channel.
        values[TASKS] = sends
        versions[TASKS] = max(versions.values()) if versions else f"{1:032}.0"
    inline: dict[str, Any] = {}
    new: list[_Value] = []
    room = _INLINE_CHARACTERS
    for channel, value in values.items():
        # LangGraph.js, whose checkpoints are JSON, looks for every value among the bytes.
        if kind == "msgpack" and _is_kept_by_json(value, room):
            inline[channel] = value
            room -= len(value) if isinstance(value, str) else 0
            continue
        if isinstance(value, _DeltaSnapshot):
            # As LangGraph's Postgres savers mark one.
            inline[channel] = True
        version = versions.get(channel)
        if version is None:
            raise _UnreadableError(f"its channel {shown((channel,))} has a value and no version")
        kept = _Value((channel, str(version)), *_dumped(kind, value))
        if digests.get(kept.place, kept.digest) != kept.digest:
            if not isinstance(version, str):
                raise _UnreadableError(
                    f"another one has another value for version {version} of the channel {shown((channel,))}"
                )
            kept = replace(kept, place=(channel, f"{version}.{kept.digest.hex()[:16]}"))
            # What a node has seen of the channel is what it was.
            seen = {node: _renamed(its, channel, version, kept.place[1]) for node, its in seen.items()}
            versions[channel] = kept.place[1]
        if kept.place not in digests:
            new.append(kept)
    made = {**checkpoint, "channel_values": inline, "channel_versions": versions, "versions_seen": seen}
    if sends:
        made["pending_sends"] = []
    try:
        return json.dumps(made, ensure_ascii=False), new
    except (TypeError, ValueError, RecursionError) as error:
        raise _UnreadableError("it holds an object beside the values of its channels") from error


def _renamed(versions: dict[str, Any], channel: str, old: str, new: str) -> dict[str, Any]:
    return {**versions, channel: new} if versions.get(channel) == old else versions


def _dumped(kind: str, value: Any) -> tuple[str, bytes]:
    if kind == "json":
        return "json", json.dumps(value, ensure_ascii=False).encode()
    return _SERIALIZER.dumps_typed(value)


def _is_kept_by_json(value: Any, room: int) -> bool:
    """Whether a value comes back from JSON in Postgres as what it is."""
    if isinstance(value, str):
        return len(value) <= room and "\0" not in value
    if isinstance(value, float):
        return abs(value) < _INLINE_FLOAT and (value != 0 or math.copysign(1, value) > 0)
    return value is None or isinstance(value, int)
