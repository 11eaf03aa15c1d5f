"""When a call may succeed later, and how long to wait before it is tried again."""

from __future__ import annotations

import random
from typing import Any, Final

from agentstorage.connection import Connection
from agentstorage.errors import (
    Conflict,
    DataLoss,
    DeadlineExceeded,
    LimitReached,
    ServerFault,
    StorageError,
    Unavailable,
)

_FIRST, _LONGEST, _FACTOR = 0.1, 5.0, 2.0
_PASSING: Final = (Unavailable, DeadlineExceeded, Conflict, ServerFault)


class Pauses:
    """Pauses that grow from one failure to the next and are spread by chance, so that those who wait do not come together.

    Args:
        longest: The longest pause in seconds.
    """

    def __init__(self, longest: float = _LONGEST) -> None:
        self._longest = longest
        self._failures = 0

    @property
    def failures(self) -> int:
        """How many pauses there were since the last success."""
        return self._failures

    def next(self) -> float:
        """Give the next pause in seconds."""
        pause = min(_FIRST * _FACTOR ** min(self._failures, 16), self._longest)
        self._failures += 1
        return pause * random.uniform(0.5, 1)  # noqa: S311 - keeps callers apart, keeps no secret

    def reset(self) -> None:
        """Begin with the shortest again."""
        self._failures = 0


def may_pass(error: StorageError) -> bool:
    """Whether the same call may succeed later: the service is away, busy or had an accident, and did not refuse it."""
    if isinstance(error, LimitReached):
        # Without a reason it is grpc that finds a message too large, as it would the next time.
        return bool(error.reason)
    return isinstance(error, _PASSING) and not isinstance(error, DataLoss)


def connection_of(given: Any) -> Connection:
    """Give the connection: it is given itself, or a storage that has one. TypeError for what is neither."""
    connection = given if isinstance(given, Connection) else getattr(given, "connection", None)
    if not isinstance(connection, Connection):
        raise TypeError(f"a Connection or a GrpcStorage is needed, not {type(given).__name__}")
    return connection
