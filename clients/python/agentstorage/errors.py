"""Why a call failed: one exception class for each reason of ``ErrorReason`` (``protos/agentstorage/v1/common.proto``).

    StorageError
    ├── InvalidRequest          INVALID_ARGUMENT     a field breaks its rule; also a ValueError
    │   ├── InvalidPageToken
    │   └── OwnerRequired
    ├── Unauthenticated         UNAUTHENTICATED
    ├── PermissionDenied        PERMISSION_DENIED
    ├── NotFound                NOT_FOUND            absent, or another owner's
    ├── AlreadyExists           ALREADY_EXISTS       also a ValueError
    ├── Aborted                 ABORTED
    │   ├── VersionMismatch
    │   ├── StatusMismatch
    │   ├── ParentMismatch
    │   ├── SequenceMismatch
    │   └── Conflict
    ├── FailedPrecondition      FAILED_PRECONDITION
    │   ├── RunEnded
    │   ├── ThreadBusy
    │   ├── LeaseLost
    │   └── Disabled
    ├── EventsDeleted           OUT_OF_RANGE         older than the server keeps them
    ├── LimitReached            RESOURCE_EXHAUSTED
    ├── Unavailable             UNAVAILABLE          also a ConnectionError
    │   ├── Unreachable                              no server answered
    │   ├── DatabaseUnavailable
    │   └── ShuttingDown
    ├── DeadlineExceeded        DEADLINE_EXCEEDED    also a TimeoutError
    ├── Unimplemented           UNIMPLEMENTED        the server has no such method
    └── ServerFault             INTERNAL             logged by the server under an error id
        └── DataLoss            DATA_LOSS

A class with a reason is chosen by the reason that the server names; the others are chosen by the code alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, ClassVar

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from agentstorage.v1 import exchange_pb2

#: The domain of the reasons of this service.
DOMAIN = "agentstorage"

_DETAILS_KEY = "grpc-status-details-bin"
_NO_SERVER = (
    "check that the storage service runs there (start one with `storage-service serve`), that the target, from the "
    "argument or AGENTSTORAGE_TARGET, is its host:port, and that both sides use TLS or neither"
)
_NO_OWNER = (
    "give the call or its request an owner_id, or a GrpcStorage one for all of its calls (its argument owner_id, or "
    "AGENTSTORAGE_OWNER)"
)
# In grpc's words, as both sides say them.
_TOO_LARGE = re.compile(r"(Sent|Received) message larger than max \((\d+) vs\. (\d+)\)")


class StorageError(Exception):
    """A call to the storage service failed. Catch this class for every failure.

    Attributes:
        message: What went wrong, for people.
        code: The gRPC status code.
        reason: The name of the reason without its prefix, such as ``"NOT_FOUND"``; ``""`` when the server named none.
        metadata: Ids and values that belong to the reason, such as ``resource`` and ``id``, ``current`` or
            ``error_id``.
        violations: For a request that breaks rules, the path of each bad field and what is wrong with it.
        method: The full name of the method that was called; ``""`` when it is not known.
        safe_to_retry: Whether the same call may be sent again: it may help and can do no harm. When this is false after
            ``Unavailable`` or ``DeadlineExceeded``, the call may or may not have taken effect.
    """

    code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    #: The reason of this class; ``""`` for a class that is chosen by its code.
    default_reason: ClassVar[str] = ""

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode | None = None,
        reason: str | None = None,
        metadata: dict[str, str] | None = None,
        violations: dict[str, str] | None = None,
        method: str = "",
        safe_to_retry: bool = False,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = type(self).code if code is None else code
        self.reason = self.default_reason if reason is None else reason
        self.metadata = metadata or {}
        self.violations = violations or {}
        self.method = method
        self.safe_to_retry = safe_to_retry

    def __reduce__(self) -> tuple[object, ...]:
        # An exception with keyword arguments does not pickle by itself, and failures cross process borders.
        return (_restore, (type(self), self.message, self.__dict__.copy()))


class InvalidRequest(StorageError, ValueError):
    """A field of the request breaks its rule; ``violations`` names the fields."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_REQUEST"


class InvalidPageToken(InvalidRequest):
    """The page token was not made for this owner, method and filter."""

    default_reason = "INVALID_PAGE_TOKEN"


class OwnerRequired(InvalidRequest):
    """The call names no owner and its credential has no right to leave it out."""

    default_reason = "OWNER_REQUIRED"


class Unauthenticated(StorageError):
    """The token is missing or not known to the server."""

    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(StorageError):
    """The token does not allow to act for this owner, or lacks the right that the method needs."""

    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class NotFound(StorageError):
    """No such row for this owner; ``metadata`` has ``resource`` and ``id``."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExists(StorageError, ValueError):
    """The id is taken; ``metadata`` has ``resource`` and ``id``. The message: ``"<Resource> <id> already exists"``."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class Aborted(StorageError):
    """Another call got in the way."""

    code = grpc.StatusCode.ABORTED


class VersionMismatch(Aborted):
    """The version is not the expected one; ``metadata["current"]`` is what it is."""

    default_reason = "VERSION_MISMATCH"


class StatusMismatch(Aborted):
    """The status is none of the expected ones; ``metadata["current"]`` is what it is."""

    default_reason = "STATUS_MISMATCH"


class ParentMismatch(Aborted):
    """The newest checkpoint is not the expected one; ``metadata["current"]`` is its id, ``""`` for none."""

    default_reason = "PARENT_MISMATCH"


class SequenceMismatch(Aborted):
    """The events do not follow the run's last one; ``metadata["current"]`` is the sequence of that."""

    default_reason = "SEQUENCE_MISMATCH"


class Conflict(Aborted):
    """Concurrent calls collided more often than the server retries. Nothing was written: safe to retry."""

    default_reason = "CONFLICT"


class FailedPrecondition(StorageError):
    """The state of the service does not allow the call."""

    code = grpc.StatusCode.FAILED_PRECONDITION


class RunEnded(FailedPrecondition):
    """The run's status is final; ``metadata["current"]`` is what it is."""

    default_reason = "RUN_ENDED"


class ThreadBusy(FailedPrecondition):
    """The thread has a run in flight; ``metadata["run_ids"]`` names the first few, joined by commas."""

    default_reason = "THREAD_BUSY"


class LeaseLost(FailedPrecondition):
    """The lease token is stale: the run's lease has lapsed, was given back, or is another worker's by now."""

    default_reason = "LEASE_LOST"


class Disabled(FailedPrecondition):
    """A setting of the server switches this off."""

    default_reason = "DISABLED"


class EventsDeleted(StorageError):
    """Events after the place were deleted with age; ``metadata["first"]`` is the place after which all are there."""

    code = grpc.StatusCode.OUT_OF_RANGE
    default_reason = "EVENTS_DELETED"


class LimitReached(StorageError):
    """A limit is reached: size of a message, calls in flight, connections, disk."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "LIMIT_REACHED"


class Unavailable(StorageError, ConnectionError):
    """No answer can be had now. Whether a write happened is not known."""

    code = grpc.StatusCode.UNAVAILABLE


class Unreachable(Unavailable):
    """No server answered at the target, or the connection broke."""


class DatabaseUnavailable(Unavailable):
    """The server cannot reach its database, or the database is not ready."""

    default_reason = "DATABASE_UNAVAILABLE"


class ShuttingDown(Unavailable):
    """The server is stopping."""

    default_reason = "SHUTTING_DOWN"


class DeadlineExceeded(StorageError, TimeoutError):
    """The time of the call is over. Whether a write happened is not known."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class Unimplemented(StorageError):
    """The server has no such method: it is older than this client, or it is not a storage service."""

    code = grpc.StatusCode.UNIMPLEMENTED


class ServerFault(StorageError):
    """A fault of the server, which logged it under ``metadata["error_id"]``."""

    code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"


class DataLoss(ServerFault):
    """A stored row is damaged; the server logged it under ``metadata["error_id"]``."""

    code = grpc.StatusCode.DATA_LOSS
    default_reason = "DATA_LOSS"


_CLASSES: tuple[type[StorageError], ...] = (
    InvalidRequest,
    InvalidPageToken,
    OwnerRequired,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    AlreadyExists,
    VersionMismatch,
    StatusMismatch,
    ParentMismatch,
    SequenceMismatch,
    Conflict,
    RunEnded,
    ThreadBusy,
    LeaseLost,
    EventsDeleted,
    Disabled,
    LimitReached,
    DatabaseUnavailable,
    ShuttingDown,
    DeadlineExceeded,
    ServerFault,
    DataLoss,
)
_BY_REASON: dict[str, type[StorageError]] = {cls.default_reason: cls for cls in _CLASSES}
_BY_CODE: dict[grpc.StatusCode, type[StorageError]] = {
    cls.code: cls
    for cls in (
        InvalidRequest,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        Aborted,
        FailedPrecondition,
        LimitReached,
        Unreachable,
        DeadlineExceeded,
        Unimplemented,
        ServerFault,
        DataLoss,
    )
}
# A server that stops answers CANCELLED to the calls that were still queued in it.
_BY_CODE[grpc.StatusCode.CANCELLED] = Unavailable
_BY_CODE[grpc.StatusCode.OUT_OF_RANGE] = InvalidRequest
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
_UNKNOWN_OUTCOME = (Unavailable, DeadlineExceeded)


def from_rpc_error(
    error: grpc.aio.AioRpcError, *, method: str = "", target: str = "", idempotent: bool = False
) -> StorageError:
    """Make the exception that fits a failed RPC.

    Args:
        error: What grpc raised.
        method: The full name of the method, such as ``"/agentstorage.v1.ThreadService/GetThread"``.
        target: The target of the channel, for the message when no server answered.
        idempotent: Whether sending the same request twice does no more than sending it once.
    """
    return _failure(error.code(), error.details() or "", _packed(error), method, target, idempotent)


def from_status(
    status: exchange_pb2.Status, *, method: str = "", target: str = "", idempotent: bool = False
) -> StorageError:
    """Make the exception that fits a call that failed in an exchange; otherwise as :func:`from_rpc_error`."""
    code = _CODES.get(status.code, grpc.StatusCode.UNKNOWN)
    return _failure(code, status.message, status.details, method, target, idempotent)


def _failure(
    code: grpc.StatusCode, text: str, packed: Iterable[Any], method: str, target: str, idempotent: bool
) -> StorageError:
    text = text or code.name
    info, violations = _details(packed)
    reason = ""
    metadata: dict[str, str] = {}
    if info is not None and info.domain == DOMAIN:
        reason = info.reason.removeprefix("ERROR_REASON_")
        metadata = dict(info.metadata)
    found = _BY_REASON.get(reason) or _BY_CODE.get(code, StorageError)
    if found is AlreadyExists and {"resource", "id"} <= metadata.keys():
        text = f"{metadata['resource'].capitalize()} {metadata['id']} already exists"
    elif found is OwnerRequired:
        text = f"{text}; {_NO_OWNER}"
    elif found is LimitReached and not reason and (larger := _TOO_LARGE.search(text)):
        text = _too_large(method, text, *larger.groups())
    elif found is Unreachable:
        text = f"cannot reach {target or 'the target'} ({text}); {_NO_SERVER}"
    elif found is DeadlineExceeded and not reason:
        # The client's own clock ended the call, so the server's text is not there to say what was called.
        text = f"{method or 'the call'} got no answer from {target or 'the server'} in time ({text})"
    elif found is Unimplemented:
        text = (
            f"{target or 'the server'} does not know {method or 'the method'} ({text}); is it older than this client?"
        )
    return found(
        text,
        code=code,
        reason=reason,
        metadata=metadata,
        violations=violations,
        method=method,
        safe_to_retry=found is Conflict or (idempotent and issubclass(found, _UNKNOWN_OUTCOME)),
    )


def _too_large(method: str, text: str, verb: str, size: str, limit: str) -> str:
    call = f" of {method}" if method else ""
    if verb == "Received" and text.startswith("CLIENT"):
        return (
            f"the answer{call} has {size} bytes, more than the {limit} that this client takes: "
            "ask for fewer rows at a time, or for fewer fields"
        )
    side = "this client sends" if verb == "Sent" else "the server takes (its setting STORAGE_MESSAGE_BYTES)"
    return (
        f"the request{call} has {size} bytes, more than the {limit} that {side}: "
        "split it, or keep large data elsewhere and store where it is"
    )


def _packed(error: grpc.aio.AioRpcError) -> Iterable[Any]:
    """Read the details that the trailers carry; nothing when they carry none."""
    trailers: Any = error.trailing_metadata() or ()
    for key, value in trailers:
        if key == _DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value).details
            except DecodeError:
                # A proxy may cut or rewrite trailers; the code still says what is needed.
                return ()
    return ()


def _details(packed: Iterable[Any]) -> tuple[error_details_pb2.ErrorInfo | None, dict[str, str]]:
    """Read the ErrorInfo and the field violations among the details."""
    info: error_details_pb2.ErrorInfo | None = None
    violations: dict[str, str] = {}
    try:
        for detail in packed:
            if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
                info = error_details_pb2.ErrorInfo()
                detail.Unpack(info)
            elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
                bad = error_details_pb2.BadRequest()
                detail.Unpack(bad)
                violations.update((entry.field, entry.description) for entry in bad.field_violations)
    except DecodeError:
        return None, {}
    return info, violations


def _restore(cls: type[StorageError], message: str, state: dict[str, object]) -> StorageError:
    """Make an exception again from its pickled parts."""
    error = cls(message)
    error.__dict__.update(state)
    return error
