"""Keeps a false alarm of older grpcio releases out of the log of processes with several event loops.

Up to grpcio 1.79 every loop is woken for every event, one of them takes it, and the others report a ``BlockingIOError``
through asyncio's logger although nothing is wrong (https://github.com/grpc/grpc/issues/25364).
"""

from __future__ import annotations

import logging

import grpc

_IS_NOISY = tuple(int(part) for part in grpc.__version__.split(".")[:2]) < (1, 80)


class _FalseAlarm(logging.Filter):
    """Lets every record pass but the false alarm."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (
            record.exc_info
            and record.exc_info[0] is BlockingIOError
            and "PollerCompletionQueue._handle_events" in record.getMessage()
        )


_FALSE_ALARM = _FalseAlarm()


def quiet() -> None:
    """Drop the false alarm from asyncio's log, where the installed grpcio raises it."""
    if _IS_NOISY:
        logging.getLogger("asyncio").addFilter(_FALSE_ALARM)
