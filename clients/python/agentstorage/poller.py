"""Keeps false alarms of asyncio and grpcio out of the log of processes with several event loops, one after another or at once.

Up to grpcio 1.79 every loop is woken for every event, one of them takes it, and the others report a ``BlockingIOError``
through asyncio's logger although nothing is wrong (https://github.com/grpc/grpc/issues/25364). And what was under way in
a loop when it was closed, such as a stream of the exchange, is reported by another loop as "Event loop is closed", or by
the garbage collector as a task that "was destroyed but it is pending": nobody waits for it any more.
"""

from __future__ import annotations

import logging
import re

# A task of grpc's core or of a stream of the exchange, by its own coroutine, which stands before what it waits for: a task of the
# program that waits for one of these is none.
_OWN_TASK = re.compile(
    r"""^task:\ <\w+\ \w+\ name=(?:'[^'\n]*'|"[^"\n]*")\ coro=<
        (?:_AioCall\.\w+\(\)\ [^>\n]*[/\\]_cython[/\\]_cygrpc[/\\]
          |Stream\.\w+\(\)\ [^>\n]*[/\\]agentstorage[/\\]exchange[/\\]stream\.py:)""",
    re.MULTILINE | re.VERBOSE,
)


class _FalseAlarm(logging.Filter):
    """Lets every record pass but the false alarms."""

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        if message.startswith("Task was destroyed but it is pending!"):
            return not _OWN_TASK.search(message)
        if not record.exc_info or "PollerCompletionQueue._handle_events" not in message:
            return True
        error = record.exc_info[1]
        return not (
            isinstance(error, BlockingIOError)
            or (isinstance(error, RuntimeError) and str(error) == "Event loop is closed")
        )


_FALSE_ALARM = _FalseAlarm()


def quiet() -> None:
    """Drop the false alarms from asyncio's log."""
    logging.getLogger("asyncio").addFilter(_FALSE_ALARM)
