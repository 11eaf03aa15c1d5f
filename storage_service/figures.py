"""What a process counts of its calls: how many there were of each method, how many failed, how long they took.

Calls end on the event loop alone, so that nothing is locked; what a call costs is one call of :meth:`Figures.add`.
"""

from __future__ import annotations

from typing import Final

import grpc

from agentstorage.v1.server_pb2 import MethodFigures

_OK: Final = grpc.StatusCode.OK
_CANCELLED: Final = grpc.StatusCode.CANCELLED


class Figures:
    """How the calls of one method went. ``waits`` says that clients leave such calls in the normal course, as they leave a stream."""

    __slots__ = ("calls", "failed", "longest", "seconds", "waits")

    def __init__(self, waits: bool = False) -> None:
        self.waits = waits
        self.calls = self.failed = 0
        self.seconds = self.longest = 0.0

    def add(self, seconds: float, code: grpc.StatusCode) -> None:
        """Count a call that ended so after so many seconds."""
        self.calls += 1
        self.seconds += seconds
        if seconds > self.longest:
            self.longest = seconds
        if code is not _OK and not (self.waits and code is _CANCELLED):
            self.failed += 1

    def message(self, path: str) -> MethodFigures:
        """The figures as the API tells them, of the method of this path."""
        return MethodFigures(
            method=path.removeprefix("/"),
            calls=self.calls,
            failed=self.failed,
            seconds=self.seconds,
            longest_seconds=self.longest,
        )
