"""What the client must know of each method: its deadline and when it may be sent again, both read from the protos."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from agentstorage.v1 import (
    assistants_pb2,
    checkpoints_pb2,
    crons_pb2,
    exchange_pb2,
    options_pb2,
    owner_pb2,
    runs_pb2,
    server_pb2,
    store_pb2,
    threads_pb2,
)

_FILES: Final[tuple[FileDescriptor, ...]] = (
    assistants_pb2.DESCRIPTOR,
    threads_pb2.DESCRIPTOR,
    runs_pb2.DESCRIPTOR,
    store_pb2.DESCRIPTOR,
    crons_pb2.DESCRIPTOR,
    owner_pb2.DESCRIPTOR,
    server_pb2.DESCRIPTOR,
    checkpoints_pb2.DESCRIPTOR,
    exchange_pb2.DESCRIPTOR,
)

#: Sendings of one call, the first included.
ATTEMPTS: Final = 4
#: The pause before the second sending in seconds, the longest pause, and the factor from one to the next.
FIRST_PAUSE, LONGEST_PAUSE, PAUSE_FACTOR = 0.05, 1.0, 2.0

# These are idempotent when they carry an id; a call without one is given one before it is sent.
_IDS: Final = {
    "CreateAssistant": "assistant_id",
    "CreateThread": "thread_id",
    "CreateRun": "run_id",
    "CreateCron": "cron_id",
    "AddThreadState": "checkpoint_id",
}
# These are idempotent unless they say what they expect to find: sent again they would find their own effect.
_EXPECTATIONS: Final = {
    "PutItem": "expected_version",
    "UpdateThread": "expected_status",
    "UpdateRun": "expected_status",
}


@dataclass(frozen=True, slots=True)
class Method:
    """One method of the service.

    Attributes:
        path: The full name, such as ``"/agentstorage.v1.ThreadService/GetThread"``.
        reads: Whether it has no side effects.
        idempotent: Whether grpc may send any of its calls again.
        id_field: The field that must hold an id for that; ``""`` for none.
        expectation: The field whose absence makes a call idempotent; ``""`` for none.
        waits: Whether it waits for something to happen, for up to the ``wait_seconds`` of its request.
    """

    path: str
    reads: bool = False
    idempotent: bool = False
    id_field: str = ""
    expectation: str = ""
    waits: bool = False


def _method(descriptor: MethodDescriptor) -> Method:
    options = descriptor.GetOptions()
    level = options.idempotency_level
    rule: options_pb2.MethodRule = options.Extensions[options_pb2.admission]  # type: ignore[index]  # the stubs know no extension
    reads = level == MethodOptions.NO_SIDE_EFFECTS
    return Method(
        path=f"/{descriptor.containing_service.full_name}/{descriptor.name}",
        reads=reads,
        idempotent=reads or level == MethodOptions.IDEMPOTENT,
        id_field=_IDS.get(descriptor.name, ""),
        expectation=_EXPECTATIONS.get(descriptor.name, ""),
        waits=rule.waits,
    )


def _descriptors() -> Iterator[MethodDescriptor]:
    for file in _FILES:
        for service in file.services_by_name.values():
            yield from service.methods


METHODS: Final[dict[str, Method]] = {method.path: method for method in map(_method, _descriptors())}


def service_config() -> str:
    """The gRPC service config: spread calls over all addresses of the target, and send idempotent ones again.

    CANCELLED is retried as UNAVAILABLE is: a server that stops answers it to calls that were still queued.
    """
    names = []
    for method in METHODS.values():
        if method.idempotent:
            service, name = method.path[1:].split("/")
            names.append({"service": service, "method": name})
    return json.dumps(
        {
            "loadBalancingConfig": [{"round_robin": {}}],
            "methodConfig": [
                {
                    "name": names,
                    "retryPolicy": {
                        "maxAttempts": ATTEMPTS,
                        "initialBackoff": f"{FIRST_PAUSE}s",
                        "maxBackoff": f"{LONGEST_PAUSE:g}s",
                        "backoffMultiplier": PAUSE_FACTOR,
                        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                    },
                }
            ],
            "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
        }
    )
