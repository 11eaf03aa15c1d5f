"""Every reason of the API has its exception class, chosen from what the server sends or from the bare code."""

from __future__ import annotations

import pickle
import re

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from agentstorage import errors
from agentstorage.v1 import common_pb2

REASONS = sorted(name.removeprefix("ERROR_REASON_") for name, number in common_pb2.ErrorReason.items() if number)


def failure(
    code: grpc.StatusCode,
    *,
    reason: str = "",
    domain: str = "agentstorage",
    metadata: dict[str, str] | None = None,
    violations: dict[str, str] | None = None,
    raw: bytes | None = None,
    text: str = "the text of the server",
) -> grpc.aio.AioRpcError:
    status = status_pb2.Status(code=code.value[0], message=text)
    if reason:
        info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata=metadata or {})
        status.details.append(_packed(info))
    if violations:
        bad = error_details_pb2.BadRequest()
        for field, description in violations.items():
            bad.field_violations.add(field=field, description=description)
        status.details.append(_packed(bad))
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString() if raw is None else raw))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailers, text, None)


def _packed(message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


def classes(root: type[errors.StorageError] = errors.StorageError) -> list[type[errors.StorageError]]:
    return [root, *(found for child in root.__subclasses__() for found in classes(child))]


@pytest.mark.parametrize("reason", REASONS)
def test_each_reason_has_its_own_class(reason: str) -> None:
    named = [cls for cls in classes() if cls.default_reason == reason and "default_reason" in vars(cls)]
    assert len(named) == 1
    error = errors.from_rpc_error(failure(named[0].code, reason=reason, metadata={"k": "v"}))
    assert type(error) is named[0]
    assert (error.code, error.reason, error.metadata) == (named[0].code, reason, {"k": "v"})


@pytest.mark.parametrize("reason", ["NOT_FOUND", "ERROR_REASON_NOT_FOUND"])
def test_reason_is_read_with_and_without_its_prefix(reason: str) -> None:
    error = errors.from_rpc_error(failure(grpc.StatusCode.NOT_FOUND, reason=reason))
    assert isinstance(error, errors.NotFound)
    assert error.reason == "NOT_FOUND"


def test_the_tree_in_the_docstring_names_every_class() -> None:
    drawn = re.findall(r"^\s+(?:[│├└─ ]*)([A-Z][a-z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert sorted(drawn) == sorted(cls.__name__ for cls in classes())


def test_violations_are_read() -> None:
    error = errors.from_rpc_error(
        failure(grpc.StatusCode.INVALID_ARGUMENT, reason="INVALID_REQUEST", violations={"thread_id": "is required"})
    )
    assert isinstance(error, errors.InvalidRequest)
    assert isinstance(error, ValueError)
    assert error.violations == {"thread_id": "is required"}


def test_taken_id_is_named() -> None:
    error = errors.from_rpc_error(
        failure(grpc.StatusCode.ALREADY_EXISTS, reason="ALREADY_EXISTS", metadata={"resource": "thread", "id": "t1"})
    )
    assert isinstance(error, ValueError)
    assert str(error) == "Thread t1 already exists"


@pytest.mark.parametrize(
    ("code", "cls"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unreachable),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unimplemented),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, errors.LimitReached),
        (grpc.StatusCode.INTERNAL, errors.ServerFault),
        (grpc.StatusCode.UNKNOWN, errors.StorageError),
    ],
)
@pytest.mark.parametrize("trailers", ["none", "garbage", "another domain", "a reason of the future"])
def test_without_a_known_reason_the_code_decides(
    code: grpc.StatusCode, cls: type[errors.StorageError], trailers: str
) -> None:
    raw = {"none": grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), "text", None)}
    raw["garbage"] = failure(code, raw=b"\xff\xff\xff")
    raw["another domain"] = failure(code, reason="NOT_FOUND", domain="elsewhere")
    raw["a reason of the future"] = failure(code, reason="OUT_OF_TEA")
    error = errors.from_rpc_error(raw[trailers])
    assert type(error) is cls
    assert error.code is code
    assert error.reason == ("OUT_OF_TEA" if trailers == "a reason of the future" else "")


@pytest.mark.parametrize(
    ("code", "reason", "idempotent", "safe"),
    [
        (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", True, True),
        (grpc.StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", False, False),
        (grpc.StatusCode.UNAVAILABLE, "", True, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", True, True),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "", False, False),
        (grpc.StatusCode.ABORTED, "CONFLICT", False, True),
        (grpc.StatusCode.ABORTED, "VERSION_MISMATCH", True, False),
        (grpc.StatusCode.INTERNAL, "INTERNAL", True, False),
    ],
)
def test_safe_to_retry(code: grpc.StatusCode, reason: str, idempotent: bool, safe: bool) -> None:
    assert errors.from_rpc_error(failure(code, reason=reason), idempotent=idempotent).safe_to_retry is safe


def test_unreachable_says_where_and_what_to_do() -> None:
    error = errors.from_rpc_error(failure(grpc.StatusCode.UNAVAILABLE, text="refused"), target="db.example:50051")
    for part in ("db.example:50051", "refused", "storage-service serve", "AGENTSTORAGE_TARGET"):
        assert part in str(error)
    assert isinstance(error, ConnectionError)


def test_timeout_is_a_timeout_error() -> None:
    error = errors.from_rpc_error(failure(grpc.StatusCode.DEADLINE_EXCEEDED), method="/s/M", target="h:1")
    assert isinstance(error, TimeoutError)
    assert "/s/M" in str(error)


def test_a_missing_owner_says_where_to_name_one() -> None:
    error = errors.from_rpc_error(failure(grpc.StatusCode.INVALID_ARGUMENT, reason="OWNER_REQUIRED"))
    assert str(error).startswith("the text of the server; ")
    assert "owner_id" in str(error)
    assert "AGENTSTORAGE_OWNER" in str(error)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("CLIENT: Sent message larger than max (70000000 vs. 67174400)", ["request of /s/Put", "70000000", "67174400"]),
        (
            "SERVER: Received message larger than max (9 vs. 5)",
            ["request of /s/Put", "9 bytes", "STORAGE_MESSAGE_BYTES"],
        ),
        ("CLIENT: Received message larger than max (9 vs. 5)", ["answer of /s/Put", "9 bytes", "fewer rows"]),
    ],
)
def test_a_message_that_is_too_large_says_how_large_and_what_to_do(said: str, words: list[str]) -> None:
    error = errors.from_rpc_error(failure(grpc.StatusCode.RESOURCE_EXHAUSTED, text=said), method="/s/Put")
    assert isinstance(error, errors.LimitReached)
    assert all(word in str(error) for word in words)


def test_an_error_survives_pickling() -> None:
    error = errors.from_rpc_error(
        failure(grpc.StatusCode.ABORTED, reason="VERSION_MISMATCH", metadata={"current": "3"}), method="/s/M"
    )
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - made one line above
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert vars(copy) == vars(error)
