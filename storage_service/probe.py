"""Asks a server whether it serves, and says in one line why it does not: what ``storage-service health`` does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2

from storage_service.settings import SettingsError

_LARGEST_PORT = 65535
# What gRPC says of a connection that it cannot make, and what that means. The first that fits counts.
_CAUSES = (
    ("Connection refused", "nothing listens there"),
    ("resolving", "the name cannot be resolved"),
    ("DNS", "the name cannot be resolved"),
    ("Hostname Verification", "its TLS certificate is for another name or address"),
    ("not match SSL server name", "its TLS certificate is for another name or address"),
    ("CERTIFICATE_VERIFY_FAILED", "no known authority vouches for its TLS certificate; --tls-ca FILE names one"),
    ("WRONG_VERSION_NUMBER", "it does not use TLS: ask without it"),
    ("handshake failed", "TLS cannot be agreed on"),
    ("Socket closed", "it closed the connection; if it uses TLS, say --tls-ca FILE or --tls"),
    ("parsing HTTP/2", "what listens there does not speak gRPC"),
    ("unreachable", "there is no way to that address"),
    ("No route", "there is no way to that address"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking: whether the server serves, and the line to print, which names the target."""

    serves: bool
    line: str


def trusted(file: str, name: str) -> bytes:
    """The certificates of a file that ``name`` (a flag or a variable) names. Raises SettingsError."""
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise SettingsError(f"{name} can't be read: {error.strerror}") from error
    if b"CERTIFICATE-----" not in content:
        raise SettingsError(f"{name} holds no certificate as PEM")
    return content


async def ask(
    target: str, service: str, seconds: float, *, tls: bool, authorities: bytes | None, proxy: bool
) -> Answer:
    """Ask the health service at ``target`` for ``service``, or for all with "".

    With ``tls`` it trusts these PEM ``authorities``, or the system's when there are none. ``proxy`` lets it go through the proxy that the
    environment names. Raises SettingsError for a target that is none.
    """
    _check(target)
    options = [] if proxy else [("grpc.enable_http_proxy", 0)]
    channel = (
        grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(authorities), options=options)
        if tls
        else grpc.aio.insecure_channel(target, options=options)
    )
    async with channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            response = await check(health_pb2.HealthCheckRequest(service=service), timeout=seconds)
        except grpc.aio.AioRpcError as error:
            return Answer(False, f"{target}: {error.code().name}: {_why(error, service, seconds)}")
    if response.status == health_pb2.HealthCheckResponse.SERVING:
        return Answer(True, f"{target}: SERVING")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)
    return Answer(False, f"{target}: {name}: it waits for its database, or is stopping; its log says which")


def _check(target: str) -> None:
    found = re.fullmatch(r"(?:unix|dns|ipv4|ipv6):.+|[^/]+:(\d+)", target)
    if found is None or (found[1] and not 1 <= int(found[1]) <= _LARGEST_PORT):
        raise SettingsError(f"--target takes HOST:PORT, such as localhost:50051, and a port from 1 to {_LARGEST_PORT}")


def _why(error: grpc.aio.AioRpcError, service: str, seconds: float) -> str:
    match error.code():
        case grpc.StatusCode.NOT_FOUND:
            return f"it has no service {service}"
        case grpc.StatusCode.UNIMPLEMENTED:
            return "what answers there has no health service"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"no answer within {seconds:g} s"
    details = error.details() or "no reason was given"
    return next((cause for sign, cause in _CAUSES if sign in details), details.rpartition("last error: ")[2])
