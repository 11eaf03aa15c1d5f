"""A connection that carries many statements at once.

psycopg's ``execute`` costs about 110 us of CPU for a single-row read, most of it in waiting for the socket in small steps. A lane keeps
its connection in libpq's pipeline mode with one reader on the socket, and statements that gather while others are at work go together:
in one write to the socket, as one transaction, to one commit.

    send ──> waiting ──> group (at most two on their way) ──> rows, once the group is committed
                ^                        │
                └── when it failed

No write is answered before its group is committed, and a statement that fails fails alone: the group has left nothing then, and those
that were with it are sent again without it. Reads have nothing to commit and are answered one by one.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.adapt import Buffer, Transformer
from psycopg.errors import LockNotAvailable, error_from_result

from storage_service.store.postgres.adapt import dumped

Row = tuple[Any, ...]
# SQLSTATEs of a prepared statement that has gone, or whose columns are others now.
_STALE: Final = ("26000", "0A000")
_MOST_PREPARED: Final = 500
# One group is at work while the next is on its way.
_GROUPS: Final = 2
# After so many groups with it failed, a statement goes alone; one that fails by itself does at once.
_MOST_FAILURES: Final = 3
# A value of more characters or bytes would hold up those behind it: for so many seconds such statements go elsewhere.
_HEAVY, _HEAVY_SECONDS = 262144, 1.0
# What a group holds at most; in bytes, the values that go into it.
_GROUP_STATEMENTS, _GROUP_BYTES = 64, 262144


class NotSent(psycopg.OperationalError):
    """The connection was lost before the statement went: it has not run."""


class _Sent:
    """A statement with its values, until it is answered."""

    __slots__ = ("bound", "failures", "formats", "future", "rows", "since", "statement")

    def __init__(
        self,
        statement: str,
        bound: Sequence[Buffer | None],
        formats: Sequence[int] | None,
        future: asyncio.Future[list[Row]],
        since: float,
    ) -> None:
        self.statement = statement
        self.bound = bound
        self.formats = formats
        self.future = future
        self.since = since
        # How many groups with it failed: by itself, or by others.
        self.failures = 0
        self.rows: list[Row] = []

    @property
    def alone(self) -> bool:
        """Whether it goes without others."""
        return self.failures >= _MOST_FAILURES

    def fail(self, error: psycopg.Error) -> None:
        """Tell the caller, if it still waits."""
        if not self.future.done():
            self.future.set_exception(error)


class _Group:
    """Statements that are committed together."""

    __slots__ = ("error", "failed", "names", "statements", "step", "steps")

    def __init__(self, statements: list[_Sent]) -> None:
        self.statements = statements
        # Who gets the next result: a statement, or None for what prepares one.
        self.steps: list[_Sent | None] = []
        self.step = 0
        # The texts that it prepares, to be forgotten when it fails.
        self.names: list[str] = []
        self.failed: _Sent | None = None
        self.error: psycopg.Error | None = None


def _is_heavy(rows: list[Row]) -> bool:
    for row in rows:
        for value in row:
            if (type(value) is str or type(value) is bytes) and len(value) > _HEAVY:
                return True
    return False


class Lane:
    """Runs statements on one connection, many in flight; those sent before others run before them, or in one transaction with them.

    The connection must be in autocommit and belong to nobody else. Statements that may take long, and values of many kilobytes, belong
    on a connection of their own: those behind them wait. With ``reads`` nothing is written, and each is answered at once.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], *, reads: bool = False) -> None:
        self.connection = connection
        self._reads = reads
        self._heavy: dict[str, float] = {}
        self._pg = connection.pgconn
        self._loop = asyncio.get_running_loop()
        self._transformer = Transformer(connection)
        self._prepared: dict[str, bytes] = {}
        self._names = itertools.count()
        self._waiting: deque[_Sent] = deque()
        self._groups: deque[_Group] = deque()
        self._send_due = False
        self._broken: psycopg.Error | None = None
        self._opened = self._loop.time()
        self._socket = self._pg.socket
        self._pg.nonblocking = 1
        self._pg.enter_pipeline_mode()
        self._loop.add_reader(self._socket, self._read)

    @property
    def in_flight(self) -> bool:
        """Whether a statement is without an answer."""
        return bool(self._groups or self._waiting)

    @property
    def usable(self) -> bool:
        """Whether the connection is whole."""
        return self._broken is None

    @property
    def is_full(self) -> bool:
        """Whether it has prepared so many statements that a new connection is better."""
        return len(self._prepared) > _MOST_PREPARED

    def is_heavy(self, statement: str) -> bool:
        """Whether a statement of this text had a large answer just now."""
        return bool(self._heavy) and self._heavy.get(statement, 0.0) > self._loop.time()

    @property
    def age(self) -> float:
        """The seconds since the lane was opened."""
        return self._loop.time() - self._opened

    @property
    def waited(self) -> float:
        """The seconds that the oldest statement has waited."""
        if self._groups:
            return self._loop.time() - self._groups[0].statements[0].since
        return self._loop.time() - self._waiting[0].since if self._waiting else 0.0

    def send(self, statement: str, values: Sequence[Any]) -> asyncio.Future[list[Row]]:
        """Send a statement with ``$1``.. places; the future gets its rows, or a psycopg.Error."""
        if self._broken is not None:
            raise NotSent("the connection is lost") from self._broken
        bound = dumped(self._transformer, values)
        sent = _Sent(statement, bound, self._transformer.formats, self._loop.create_future(), self._loop.time())
        self._waiting.append(sent)
        if not self._send_due and len(self._groups) < _GROUPS:
            # At the end of this turn of the loop: until then others may come.
            self._send_due = True
            self._loop.call_soon(self._send_waiting)
        return sent.future

    def _send_waiting(self) -> None:
        self._send_due = False
        if self._broken is not None:
            return
        try:
            while len(self._groups) < _GROUPS and (statements := self._gather()):
                self._send_group(_Group(statements))
        except psycopg.OperationalError as error:
            self._break(error)
            return
        self._flush()

    def _gather(self) -> list[_Sent]:
        """The statements that go next, without those whose callers have gone."""
        found: list[_Sent] = []
        size = 0
        while self._waiting and len(found) < _GROUP_STATEMENTS and size < _GROUP_BYTES:
            if self._waiting[0].future.done():
                self._waiting.popleft()
                continue
            if found and (found[0].alone or self._waiting[0].alone):
                break
            found.append(self._waiting.popleft())
            size += sum(len(value) for value in found[-1].bound if value is not None)
        return found

    def _send_group(self, group: _Group) -> None:
        self._groups.append(group)
        for sent in group.statements:
            name = self._prepared.get(sent.statement)
            if name is None:
                name = f"s{next(self._names)}".encode()
                self._pg.send_prepare(name, sent.statement.encode())
                self._prepared[sent.statement] = name
                group.names.append(sent.statement)
                group.steps.append(None)
            self._pg.send_query_prepared(name, sent.bound, sent.formats, result_format=pq.Format.BINARY)
            group.steps.append(sent)
        self._pg.pipeline_sync()

    def _flush(self) -> None:
        if self._broken is not None:
            return
        try:
            unsent = self._pg.flush()
        except psycopg.OperationalError as error:
            self._break(error)
            return
        if unsent:
            self._loop.add_writer(self._socket, self._flush_rest)

    def _flush_rest(self) -> None:
        self._loop.remove_writer(self._socket)
        self._flush()

    def _read(self) -> None:
        try:
            self._pg.consume_input()
        except psycopg.OperationalError as error:
            self._break(error)
            return
        # A connection that is lost is not busy either.
        while self._groups and self._pg.status == pq.ConnStatus.OK and not self._pg.is_busy():
            result = self._pg.get_result()
            if result is not None:
                self._take(self._groups[0], result)
        if self._pg.status == pq.ConnStatus.BAD:
            self._break(psycopg.OperationalError("the connection is lost"))
        elif self._waiting and not self._send_due and len(self._groups) < _GROUPS:
            self._send_waiting()

    def _take(self, group: _Group, result: pq.abc.PGresult) -> None:
        status = result.status
        if status == pq.ExecStatus.PIPELINE_SYNC:
            self._groups.popleft()
            self._finish(group)
            return
        if group.error is not None:  # what follows a failure was not run
            return
        if status == pq.ExecStatus.FATAL_ERROR:
            group.error = error_from_result(result)
            # The commit itself has no step.
            group.failed = next((sent for sent in group.steps[group.step :] if sent is not None), None)
            return
        sent = group.steps[group.step]
        group.step += 1
        if sent is not None and status == pq.ExecStatus.TUPLES_OK and not sent.future.done():
            self._transformer.set_pgresult(result)
            try:
                sent.rows = self._transformer.load_rows(0, result.ntuples, tuple)
            except (psycopg.Error, ValueError) as error:
                # It did run, and is kept with its group: only its answer can't be read.
                sent.fail(psycopg.DataError(f"a row can't be read: {type(error).__name__}"))
                return
            if _is_heavy(sent.rows):
                self._heavy[sent.statement] = self._loop.time() + _HEAVY_SECONDS
            if self._reads:
                sent.future.set_result(sent.rows)

    def _finish(self, group: _Group) -> None:
        """Answer a group that is committed; send those again that were with one that failed, and that one alone."""
        if group.error is None:
            for sent in group.statements:
                if not sent.future.done():
                    sent.future.set_result(sent.rows)
            return
        for name in group.names:
            # Whether preparing or executing failed is not known here: the next one prepares anew, under another name.
            self._prepared.pop(name, None)
        failed = group.failed
        if failed is not None:
            # What it was prepared as may be the cause, after a change of the schema.
            is_fresh = failed.statement in group.names
            self._prepared.pop(failed.statement, None)
            is_stale = group.error.sqlstate in _STALE and not is_fresh and failed.failures < _MOST_FAILURES
            # One that waits for a lock would only make the others wait again.
            if isinstance(group.error, LockNotAvailable) or (len(group.statements) == 1 and not is_stale):
                failed.fail(group.error)
            failed.failures = _MOST_FAILURES
        for sent in reversed(group.statements):
            if failed is None and len(group.statements) == 1:
                sent.fail(group.error)
            elif not sent.future.done():
                sent.failures += 1
                sent.rows = []
                self._waiting.appendleft(sent)

    def _break(self, error: psycopg.Error) -> None:
        """Fail everything in flight and let go of the connection."""
        if self._broken is not None:
            return
        self._broken = error
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._pg.finish()
        sent_already = list(itertools.chain.from_iterable(group.statements for group in self._groups))
        waiting = list(self._waiting)
        self._groups.clear()
        self._waiting.clear()
        for sent in sent_already:
            sent.fail(psycopg.OperationalError("the connection is lost"))
        for sent in waiting:
            sent.fail(NotSent("the connection is lost"))

    def abandon(self) -> None:
        """Give up a connection that does not answer."""
        self._break(psycopg.OperationalError("the connection did not answer in time"))
