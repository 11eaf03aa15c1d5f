"""A wall clock that jumps, for the processes whose PYTHONPATH names this directory.

``SHIFTED_CLOCK`` names a file of eight bytes, the seconds (a double) that the clock is off by now; without it nothing is changed. What runs
by the monotonic clock is left alone, as it is where an operator, or NTP, sets a machine's clock.
"""

from __future__ import annotations

import datetime
import os
import struct
import time
from datetime import datetime as real_datetime
from typing import Any


def _shift(path: str) -> None:
    file = os.open(path, os.O_RDONLY)
    real_time = time.time

    def offset() -> float:
        seconds: float = struct.unpack("d", os.pread(file, 8, 0))[0]
        return seconds

    class Kind(type):
        """Every datetime is one of the class that stands in for it."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real_datetime)

        def __subclasscheck__(cls, other: type) -> bool:
            return issubclass(other, real_datetime)

    class Shifted(real_datetime, metaclass=Kind):
        """The class of datetimes, whose present is off."""

        # As large as the original, which compiled modules look at.
        __slots__ = ()

        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real_datetime.now(tz) + datetime.timedelta(seconds=offset())

        @classmethod
        def utcnow(cls) -> Any:
            return real_datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=offset())

    Shifted.__name__ = Shifted.__qualname__ = "datetime"
    Shifted.__module__ = "datetime"
    time.time = lambda: real_time() + offset()
    time.time_ns = lambda: round((real_time() + offset()) * 1_000_000_000)
    setattr(datetime, "datetime", Shifted)  # noqa: B010 - a type checker is right not to take this for an assignment


if os.environ.get("SHIFTED_CLOCK"):
    _shift(os.environ["SHIFTED_CLOCK"])
