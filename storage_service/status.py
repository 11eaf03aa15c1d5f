"""Failures as statuses of gRPC."""

from __future__ import annotations

from typing import Final

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from agentstorage.v1 import common_pb2
from storage_service import errors

DOMAIN: Final = "agentstorage"
_MESSAGE_CHARACTERS: Final = 200


def reason_of(failure: errors.Failure) -> str:
    """The reason without its prefix, as ErrorInfo has it."""
    return common_pb2.ErrorReason.Name(failure.reason).removeprefix("ERROR_REASON_")


def status_of(failure: errors.Failure) -> status_pb2.Status:
    """The rich status of a failure: ErrorInfo, and BadRequest for fields."""
    status = status_pb2.Status(code=failure.code.value[0], message=failure.message[:_MESSAGE_CHARACTERS])
    info = error_details_pb2.ErrorInfo(reason=reason_of(failure), domain=DOMAIN, metadata=failure.metadata)
    details: list[Message] = [info]
    if isinstance(failure, errors.InvalidRequest) and failure.violations:
        violation = error_details_pb2.BadRequest.FieldViolation
        found = [
            violation(field=path[:_MESSAGE_CHARACTERS], description=text[:_MESSAGE_CHARACTERS])
            for path, text in list(failure.violations.items())[:2]
        ]
        details.append(error_details_pb2.BadRequest(field_violations=found))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    return status
