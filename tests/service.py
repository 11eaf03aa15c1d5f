"""The service under test: as a process of its own over gRPC, or called directly, and one way to call either."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2

from agentstorage import StorageError
from agentstorage.exchange import LARGEST, Exchange, ExchangedCall
from agentstorage.methods import Method
from agentstorage.v1 import (
    assistants_pb2,
    checkpoints_pb2,
    crons_pb2,
    owner_pb2,
    runs_pb2,
    server_pb2,
    store_pb2,
    threads_pb2,
)
from storage_service.errors import Failure
from storage_service.rpc import Pipeline
from storage_service.status import status_of

MODULES = (
    assistants_pb2,
    threads_pb2,
    runs_pb2,
    store_pb2,
    crons_pb2,
    checkpoints_pb2,
    owner_pb2,
    server_pb2,
)
#: Every method of the API by its name: the names are unique over the services.
METHODS: dict[str, MethodDescriptor] = {
    method.name: method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
#: What a server for tests may do beyond the defaults.
TEST_ENVIRONMENT = {
    "STORAGE_ANONYMOUS_RIGHTS": "unscoped,admin",
    "STORAGE_ALLOW_TRUNCATE": "true",
    "STORAGE_DRAIN_SECONDS": "0",
    "STORAGE_LOG_LEVEL": "WARNING",
    # Tests sweep when they mean to.
    "STORAGE_SWEEP_SECONDS": "0",
    "STORAGE_LEASE_SWEEP_SECONDS": "0",
}


class CallFailed(Exception):
    """A call ended with a status other than OK, as a client sees it."""

    def __init__(self, code: grpc.StatusCode, details: bytes, message: str) -> None:
        self.code = code
        self.message = message
        self.details = details
        self.info = error_details_pb2.ErrorInfo()
        self.fields: dict[str, str] = {}
        for detail in status_pb2.Status.FromString(details).details:
            bad_request = error_details_pb2.BadRequest()
            if detail.Unpack(bad_request):
                self.fields = {item.field: item.description for item in bad_request.field_violations}
            else:
                detail.Unpack(self.info)
        super().__init__(f"{code.name} {self.info.reason}: {message}")

    @property
    def reason(self) -> str:
        """The reason of the ErrorInfo."""
        return self.info.reason

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the ErrorInfo."""
        return dict(self.info.metadata)


class Api(Protocol):
    """The API of a service under test."""

    backend: str

    async def send(self, method: str, data: bytes, metadata: Mapping[str, str] = {}) -> bytes:
        """Send the bytes of a unary request and give those of its response. Raises CallFailed."""
        ...

    async def call(self, method: str, request: Message | None = None, **fields: Any) -> Any:
        """Call a unary method with a request, or with its fields as JSON has them. Raises CallFailed."""
        ...

    async def stream(self, method: str, **fields: Any) -> list[Any]:
        """Call a method with a streamed answer and give all of it. Raises CallFailed."""
        ...


def request_of(method: str, fields: Mapping[str, Any]) -> Message:
    """A request of a method from fields as JSON has them; messages and enum names included."""
    request = GetMessageClass(METHODS[method].input_type)()
    return ParseDict(dict(fields), request)


class _Calls:
    """What both ways of calling share."""

    async def send(self, method: str, data: bytes, metadata: Mapping[str, str] = {}) -> bytes:
        raise NotImplementedError(method)

    async def call(self, method: str, request: Message | None = None, **fields: Any) -> Any:
        request = request if request is not None else request_of(method, fields)
        answer = await self.send(method, request.SerializeToString())
        return GetMessageClass(METHODS[method].output_type).FromString(answer)


class GrpcApi(_Calls):
    """The API over a channel. ``timeout`` is the deadline of each call in seconds; None for none."""

    def __init__(self, channel: grpc.aio.Channel, backend: str, timeout: float | None = 20) -> None:
        self.backend = backend
        self.timeout = timeout
        self._channel = channel

    async def send(self, method: str, data: bytes, metadata: Mapping[str, str] = {}) -> bytes:
        path = f"/{METHODS[method].containing_service.full_name}/{method}"
        try:
            answer: bytes = await self._channel.unary_unary(path, None, None)(
                data, timeout=self.timeout, metadata=grpc.aio.Metadata(*metadata.items())
            )
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from None
        return answer

    async def stream(self, method: str, **fields: Any) -> list[Any]:
        path = f"/{METHODS[method].containing_service.full_name}/{method}"
        answer = GetMessageClass(METHODS[method].output_type)
        request = request_of(method, fields).SerializeToString()
        try:
            return [
                answer.FromString(data)
                async for data in self._channel.unary_stream(path, None, None)(request, timeout=self.timeout)
            ]
        except grpc.aio.AioRpcError as error:
            raise _failed(error) from None


class ExchangeApi(GrpcApi):
    """The API through the client's exchange; streams, and calls with metadata, are plain RPCs."""

    def __init__(self, channel: grpc.aio.Channel, exchange: Exchange, backend: str) -> None:
        super().__init__(channel, backend)
        self._exchange = exchange

    async def send(self, method: str, data: bytes, metadata: Mapping[str, str] = {}) -> bytes:
        if metadata or len(data) > LARGEST:
            return await super().send(method, data, metadata)
        path = f"/{METHODS[method].containing_service.full_name}/{method}"
        call = ExchangedCall(
            self._exchange, Method(path), data, self.timeout or 20, False, bytes, self._plain(path, data)
        )
        self._exchange.send(call)
        try:
            answer: bytes = await call
        except StorageError as failure:
            raise _as_sent(failure) from failure
        return answer

    def _plain(self, path: str, data: bytes) -> Any:
        return lambda left: self._channel.unary_unary(path, None, None)(data, timeout=left)


@contextlib.asynccontextmanager
async def connected(target: str, backend: str, way: str) -> AsyncIterator[GrpcApi]:
    """The API of a server through plain RPCs (``grpc``) or through the exchange (``exchange``)."""
    async with grpc.aio.insecure_channel(target) as channel:
        if way == "grpc":
            yield GrpcApi(channel, backend)
            return
        exchange = Exchange(lambda: grpc.aio.insecure_channel(target), lambda: None, target, 2)
        yield ExchangeApi(channel, exchange, backend)
        await exchange.close()


def _as_sent(failure: StorageError) -> CallFailed:
    """The status that the client made its exception of."""
    status = status_pb2.Status(code=failure.code.value[0], message=failure.message)
    if failure.reason:
        info = error_details_pb2.ErrorInfo(reason=failure.reason, domain="agentstorage", metadata=failure.metadata)
        status.details.add().Pack(info)
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=name, description=text)
        for name, text in failure.violations.items()
    ]
    if violations:
        status.details.add().Pack(error_details_pb2.BadRequest(field_violations=violations))
    return CallFailed(failure.code, status.SerializeToString(), failure.message)


def _failed(error: grpc.aio.AioRpcError) -> CallFailed:
    trailers: Any = error.trailing_metadata() or ()
    details = next((value for key, value in trailers if key == "grpc-status-details-bin"), b"")
    return CallFailed(error.code(), details if isinstance(details, bytes) else b"", error.details() or "")


class DirectApi(_Calls):
    """The API of a pipeline in this process, without a network."""

    def __init__(self, pipeline: Pipeline, backend: str) -> None:
        self.backend = backend
        self._pipeline = pipeline

    async def send(self, method: str, data: bytes, metadata: Mapping[str, str] = {}) -> bytes:
        try:
            return await self._pipeline.answer(self._method(method), data, tuple(metadata.items()), None)
        except Failure as failure:
            raise CallFailed(failure.code, status_of(failure).SerializeToString(), failure.message) from None

    async def stream(self, method: str, **fields: Any) -> list[Any]:
        answer = GetMessageClass(METHODS[method].output_type)
        request = request_of(method, fields).SerializeToString()
        try:
            return [answer.FromString(data) async for data in self._pipeline.stream(self._method(method), request, ())]
        except Failure as failure:
            raise CallFailed(failure.code, status_of(failure).SerializeToString(), failure.message) from None

    def _method(self, name: str) -> Any:
        return self._pipeline.method(f"/{METHODS[name].containing_service.full_name}/{name}")


@dataclass
class ServerProcess:
    """A running ``storage-service serve``. ``target`` is where it listens."""

    backend: str
    database_url: str = ""
    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    port: int = 0
    target: str = ""
    process: subprocess.Popen[str] = field(init=False)
    log: Path = field(init=False)

    def start(self) -> ServerProcess:
        """Start it and wait until it listens."""
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DATABASE_", "STORAGE_"))}
        environment |= TEST_ENVIRONMENT | dict(self.environment)
        if self.database_url:
            environment["DATABASE_URL"] = self.database_url
        handle, name = tempfile.mkstemp(prefix="storage-service", suffix=".log")
        self.log = Path(name)
        with os.fdopen(handle, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "storage_service", "serve", "--port", str(self.port), *self.arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        output = self.process.stdout
        line = output.readline() if output else ""
        found = re.search(r" (?:serves|listens) on (\S+):(\d+) ", line)
        if found is None:
            self.process.wait(timeout=10)
            raise RuntimeError(f"the server did not start: {line}{self.log.read_text()[-2000:]}")
        self.port = int(found[2])
        self.target = f"127.0.0.1:{self.port}"
        return self

    def kill(self) -> None:
        """End it at once, as a crash would."""
        self.process.kill()
        self._reap()

    def stop(self) -> int:
        """End it as an operator would; gives the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self) -> int:
        status = self.process.wait(timeout=40)
        if self.process.stdout:
            self.process.stdout.close()
        self.log.unlink(missing_ok=True)
        return status
