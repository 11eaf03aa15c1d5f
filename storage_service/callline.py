"""What is told of a call that ended: one line of the log, without anything of its content, and one call more in its method's figures."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from functools import lru_cache
from typing import Final

import grpc

from storage_service import errors
from storage_service.figures import Figures
from storage_service.logs import Lines, time_of
from storage_service.status import reason_of

log = logging.getLogger("storage_service.calls")

# Failures that say something about the server and not about the request.
_SERVER_SIDE: Final = (errors.ServerFault, errors.Unavailable, errors.LimitReached, errors.DeadlineExceeded)


@lru_cache(maxsize=4096)
def _hidden(owner: str) -> str:
    """An owner as the log has it: the same for the same owner, and no more."""
    return hashlib.blake2b(owner.encode(), digest_size=4).hexdigest() if owner else ""


_quoted = lru_cache(maxsize=1024)(json.dumps)


class Line:
    """What the log says of one call."""

    __slots__ = (
        "bytes_in",
        "bytes_out",
        "caller",
        "code",
        "ended",
        "figures",
        "lines",
        "method",
        "milliseconds",
        "owner",
        "started",
    )

    def __init__(self, method: str, bytes_in: int, figures: Figures, lines: Lines | None) -> None:
        self.method = method
        self.bytes_in = bytes_in
        self.figures = figures
        self.lines = lines
        self.started = time.perf_counter()
        self.caller = ""
        self.owner = ""
        self.bytes_out = 0

    def __str__(self) -> str:
        """The line of a call that went well."""
        return (
            f'{{"time": "{time_of(self.ended)}", "level": "info", "event": "call", "method": "{self.method}",'
            f' "code": "{self.code}", "ms": {self.milliseconds}, "caller": {_quoted(self.caller)},'
            f' "owner": "{_hidden(self.owner)}", "bytes_in": {self.bytes_in}, "bytes_out": {self.bytes_out}}}'
        )

    def write(self, code: grpc.StatusCode, failure: errors.Failure | None, cause: BaseException | None = None) -> None:
        """Count a call that ended so, and write its line; ``cause`` is what a fault of the server was."""
        seconds = time.perf_counter() - self.started
        self.figures.add(seconds, code)
        level = logging.INFO
        if isinstance(failure, _SERVER_SIDE):
            level = logging.ERROR if isinstance(failure, errors.ServerFault) else logging.WARNING
        if not log.isEnabledFor(level):
            return
        self.code = code.name
        self.ended = time.time()
        self.milliseconds = round(seconds * 1000, 2)
        if failure is None and self.lines is not None:
            # The line of nearly every call, without a record, and written out when many are.
            self.lines.add(self)
            return
        fields: dict[str, object] = {
            "method": self.method,
            "code": self.code,
            "ms": self.milliseconds,
            "caller": self.caller,
            "owner": _hidden(self.owner),
            "bytes_in": self.bytes_in,
            "bytes_out": self.bytes_out,
        }
        if failure is not None:
            fields["reason"] = reason_of(failure)
            if "error_id" in failure.metadata:
                fields["error_id"] = failure.metadata["error_id"]
        log.log(level, "call", extra={"fields": fields}, exc_info=cause)
