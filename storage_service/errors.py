"""Why a call fails, as a closed set of exceptions.

Every failure that a client may see is one of these; ``rpc.py`` turns it into a ``google.rpc.Status``. The ``message`` never holds text
from a request, a driver or an exception: ids go to ``metadata``.

    Failure
    ├── InvalidRequest        INVALID_ARGUMENT     a field breaks its rule
    │   ├── InvalidPageToken
    │   └── OwnerRequired
    ├── Unauthenticated       UNAUTHENTICATED
    ├── PermissionDenied      PERMISSION_DENIED
    ├── NotFound              NOT_FOUND            absent, or another owner's
    ├── AlreadyExists         ALREADY_EXISTS
    ├── Aborted               ABORTED
    │   ├── VersionMismatch
    │   ├── StatusMismatch
    │   ├── ParentMismatch
    │   ├── SequenceMismatch
    │   └── Conflict
    ├── EventsDeleted         OUT_OF_RANGE
    ├── FailedPrecondition    FAILED_PRECONDITION
    │   ├── LeaseLost
    │   ├── RunEnded
    │   ├── ThreadBusy
    │   └── Disabled
    ├── LimitReached          RESOURCE_EXHAUSTED
    ├── Unavailable           UNAVAILABLE
    │   ├── DatabaseUnavailable
    │   └── ShuttingDown
    ├── DeadlineExceeded      DEADLINE_EXCEEDED
    └── ServerFault           INTERNAL             logged under an error id
        └── DataLoss          DATA_LOSS
"""

from __future__ import annotations

from typing import ClassVar

from grpc import StatusCode

from agentstorage.v1 import common_pb2 as pb


class Failure(Exception):
    """A call failed. Raised only as one of its subclasses."""

    code: ClassVar[StatusCode]
    reason: ClassVar[pb.ErrorReason]
    default_message: ClassVar[str]

    def __init__(self, message: str = "", **metadata: str) -> None:
        self.message = message or self.default_message
        self.metadata = metadata
        super().__init__(self.message)


class InvalidRequest(Failure):
    """A field of the request breaks its rule; ``violations`` maps the path of the field to what is wrong with it."""

    code = StatusCode.INVALID_ARGUMENT
    reason = pb.ERROR_REASON_INVALID_REQUEST
    default_message = "the request is not valid"

    def __init__(self, message: str = "", *, violations: dict[str, str] | None = None, **metadata: str) -> None:
        self.violations = violations or {}
        if not message and self.violations:
            message = "; ".join(f"{field}: {text}" for field, text in self.violations.items())
        super().__init__(message, **metadata)


class InvalidPageToken(InvalidRequest):
    """The page token was not made for this owner, method and filter."""

    reason = pb.ERROR_REASON_INVALID_PAGE_TOKEN
    default_message = "page_token: is not a token for this owner, method and filter"


class OwnerRequired(InvalidRequest):
    """The call names no owner and its caller may not leave it out."""

    reason = pb.ERROR_REASON_OWNER_REQUIRED
    default_message = 'owner_id: is required; calls without an owner need the right "unscoped"'


class Unauthenticated(Failure):
    """The credential is missing, malformed or unknown."""

    code = StatusCode.UNAUTHENTICATED
    reason = pb.ERROR_REASON_UNAUTHENTICATED
    default_message = 'a known token is required, as metadata "authorization: Bearer TOKEN"'


class PermissionDenied(Failure):
    """The caller may not act for this owner, or lacks a right."""

    code = StatusCode.PERMISSION_DENIED
    reason = pb.ERROR_REASON_PERMISSION_DENIED
    default_message = "the credential does not allow this"


class NotFound(Failure):
    """No such row for this owner; the same for absent and foreign."""

    code = StatusCode.NOT_FOUND
    reason = pb.ERROR_REASON_NOT_FOUND
    default_message = "not found"

    def __init__(self, resource: str, id: str) -> None:
        # Details stay under 1 KB, and the key of an item may have that much.
        super().__init__(f"{resource} not found", resource=resource, id=id.encode()[:255].decode(errors="ignore"))


class AlreadyExists(Failure):
    """The id is taken."""

    code = StatusCode.ALREADY_EXISTS
    reason = pb.ERROR_REASON_ALREADY_EXISTS
    default_message = "already exists"

    def __init__(self, resource: str, id: str) -> None:
        super().__init__(f"{resource} already exists", resource=resource, id=id)


class Aborted(Failure):
    """Another call got in the way."""

    code = StatusCode.ABORTED


class VersionMismatch(Aborted):
    """The version is not the expected one; ``current`` is what it is (0: the row is absent)."""

    reason = pb.ERROR_REASON_VERSION_MISMATCH
    default_message = "the version is not the expected one"

    def __init__(self, current: int) -> None:
        super().__init__(current=str(current))


class StatusMismatch(Aborted):
    """The status is none of the expected ones; ``current`` is what it is, as a word."""

    reason = pb.ERROR_REASON_STATUS_MISMATCH
    default_message = "the status is none of the expected ones"

    def __init__(self, current: str) -> None:
        super().__init__(current=current)


class ParentMismatch(Aborted):
    """The newest checkpoint is not the expected one; ``current`` is its id, "" for none."""

    reason = pb.ERROR_REASON_PARENT_MISMATCH
    default_message = "the newest checkpoint is not the expected one"

    def __init__(self, current: str) -> None:
        super().__init__(current=current)


class SequenceMismatch(Aborted):
    """The events do not follow the run's last one; ``current`` is the sequence of that."""

    reason = pb.ERROR_REASON_SEQUENCE_MISMATCH
    default_message = "first_sequence is not the one after the run's last event"

    def __init__(self, current: int) -> None:
        super().__init__(current=str(current))


class EventsDeleted(Failure):
    """Events after the given place were deleted for their age; after ``first`` all are there."""

    code = StatusCode.OUT_OF_RANGE
    reason = pb.ERROR_REASON_EVENTS_DELETED
    default_message = "events after this place are older than the server keeps them"

    def __init__(self, first: int) -> None:
        super().__init__(first=str(first))


class Conflict(Aborted):
    """Concurrent calls collided more often than the server retries."""

    reason = pb.ERROR_REASON_CONFLICT
    default_message = "concurrent calls collided; try again"


class FailedPrecondition(Failure):
    """The state of the service does not allow the call."""

    code = StatusCode.FAILED_PRECONDITION


class LeaseLost(FailedPrecondition):
    """The lease token is stale: the lease has lapsed, was given back, or the run is another worker's by now."""

    reason = pb.ERROR_REASON_LEASE_LOST
    default_message = "the lease of the run is lost"


class RunEnded(FailedPrecondition):
    """The run's status is final; ``current`` is what it is, as a word."""

    reason = pb.ERROR_REASON_RUN_ENDED
    default_message = "the run has ended; a final status is changed only with force"

    def __init__(self, current: str) -> None:
        super().__init__(current=current)


class ThreadBusy(FailedPrecondition):
    """The thread has runs in flight; ``run_ids`` names the first of them."""

    reason = pb.ERROR_REASON_THREAD_BUSY
    default_message = "the thread has a run in flight; with another multitask_strategy this one waits for it"

    def __init__(self, run_ids: list[str]) -> None:
        # Details stay under 1 KB: three ids of 255 bytes.
        super().__init__(run_ids=",".join(run_ids[:3]))


class Disabled(FailedPrecondition):
    """A setting of the server switches this off."""

    reason = pb.ERROR_REASON_DISABLED
    default_message = "switched off by the server's settings"


class LimitReached(Failure):
    """A limit of the server is reached."""

    code = StatusCode.RESOURCE_EXHAUSTED
    reason = pb.ERROR_REASON_LIMIT_REACHED
    default_message = "a limit of the server is reached"


class Unavailable(Failure):
    """The server cannot answer now; whether a write happened is not known."""

    code = StatusCode.UNAVAILABLE


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached or is not ready."""

    reason = pb.ERROR_REASON_DATABASE_UNAVAILABLE
    default_message = "the database is not available"


class ShuttingDown(Unavailable):
    """The server is stopping."""

    reason = pb.ERROR_REASON_SHUTTING_DOWN
    default_message = "the server is stopping"


class DeadlineExceeded(Failure):
    """The call's time is over; whether a write happened is not known."""

    code = StatusCode.DEADLINE_EXCEEDED
    reason = pb.ERROR_REASON_DEADLINE_EXCEEDED
    default_message = "the time of the call is over"


class ServerFault(Failure):
    """A fault of the server, logged under ``error_id``."""

    code = StatusCode.INTERNAL
    reason = pb.ERROR_REASON_INTERNAL
    default_message = "a fault of the server; its log has it under the error_id"

    def __init__(self, error_id: str) -> None:
        super().__init__(error_id=error_id)


class DataLoss(ServerFault):
    """A stored row is damaged, logged under ``error_id``."""

    code = StatusCode.DATA_LOSS
    reason = pb.ERROR_REASON_DATA_LOSS
    default_message = "a stored row is damaged; the server's log has it under the error_id"
