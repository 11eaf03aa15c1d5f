"""The connection to the storage service: where it is, who calls, and one channel for each event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import ipaddress
import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import grpc

from agentstorage import poller
from agentstorage.channel import Channel
from agentstorage.exchange import Exchange
from agentstorage.methods import service_config

#: The target where neither an argument nor ``AGENTSTORAGE_TARGET`` names one.
DEFAULT_TARGET: Final = "localhost:50051"
#: Seconds that a call may take: without side effects, and with.
READ_TIMEOUT: Final = 5.0
WRITE_TIMEOUT: Final = 10.0
#: Streams of the exchange at most, each to another process of the service.
STREAMS: Final = 2

# The server's limit of 64 MiB, and room for what surrounds a payload of that size.
_MESSAGE_BYTES = 64 * 1024 * 1024 + 64 * 1024
_TOKEN_FILE_SECONDS = 10.0
_OWN_CONNECTION: Final = ("grpc.use_local_subchannel_pool", 1)
_HOST_PORT = re.compile(r"(\[[^\]]+\]|[^:/\s\[\],]+):(\d+)")
_LARGEST_PORT = 65535
_SCHEME = re.compile(r"(dns|ipv4|ipv6|unix|unix-abstract|vsock|xds):(.+)")
_YES = frozenset({"1", "true", "yes", "on"})
_NO = frozenset({"", "0", "false", "no", "off"})


class Connection:
    """A connection to the storage service, for the generated stubs and for everything in this package.

    It holds one channel for each event loop, made on first use, so that one connection serves a process that runs
    several event loops in several threads. Nothing is sent before the first call. It keeps no process alive. Use it as
    an async context manager, or call ``close``.

        async with Connection("localhost:50051") as connection:
            threads = connection.stub(threads_pb2_grpc.ThreadServiceStub)
            reply = await threads.GetThread(threads_pb2.GetThreadRequest(owner_id="alice", thread_id="t1"))

    Args:
        target: ``host:port`` of the service, or a gRPC target such as ``dns:///storage:50051``, whose addresses share
            the calls. Default: ``AGENTSTORAGE_TARGET``, else ``localhost:50051``.
        owner_id: The owner of calls that name none. Default: ``AGENTSTORAGE_OWNER``, else none: such calls are
            unscoped.
        token: The bearer token. Default: ``AGENTSTORAGE_TOKEN``, or the content of the file that
            ``AGENTSTORAGE_TOKEN_FILE`` names, which is read again while the process runs, so that a token can be
            changed.
        tls: Whether to use TLS with the system's authorities. A TLS file turns it on too. Default:
            ``AGENTSTORAGE_TLS``.
        tls_ca: File with the authorities (PEM) that vouch for the server. Default: ``AGENTSTORAGE_TLS_CA``.
        tls_cert: File with the client's certificate chain (PEM). Default: ``AGENTSTORAGE_TLS_CERT``.
        tls_key: File with the client's private key (PEM). Default: ``AGENTSTORAGE_TLS_KEY``.
        plaintext_token: Whether the token may go to another machine without TLS. Default:
            ``AGENTSTORAGE_PLAINTEXT_TOKEN``, else no.
        read_timeout: Seconds that a call without side effects may take.
        write_timeout: Seconds that any other call may take.
        exchange: Whether unary calls travel together on a few streams, which costs a fraction of an RPC each; where the
            service or a proxy knows no exchange they are plain RPCs by themselves. Default: ``AGENTSTORAGE_EXCHANGE``,
            else yes.
        streams: Streams of the exchange at most for each event loop, each to another process of the service.

    Raises:
        ValueError: The target, the owner, the token, a time or a PEM file is not one, or the token would go over the network in
            the clear.
        TypeError: The owner or a time has another type.
        OSError: A file cannot be read; the message names the option.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        owner_id: str | None = None,
        token: str | None = None,
        tls: bool | None = None,
        tls_ca: str | os.PathLike[str] | None = None,
        tls_cert: str | os.PathLike[str] | None = None,
        tls_key: str | os.PathLike[str] | None = None,
        plaintext_token: bool | None = None,
        read_timeout: float = READ_TIMEOUT,
        write_timeout: float = WRITE_TIMEOUT,
        exchange: bool | None = None,
        streams: int = STREAMS,
    ) -> None:
        env = os.environ
        if target is None:
            target = env.get("AGENTSTORAGE_TARGET") or DEFAULT_TARGET
        self._target = _checked_target(target)
        self._owner_id = checked_owner(owner_id) or env.get("AGENTSTORAGE_OWNER") or None
        for name, seconds in (("read_timeout", read_timeout), ("write_timeout", write_timeout)):
            if not isinstance(seconds, (int, float)):
                raise TypeError(f"{name} must be a number of seconds, not {type(seconds).__name__}")
            if not seconds > 0:
                raise ValueError(f"{name} must be more than 0 seconds")
        self._read_timeout = read_timeout
        self._write_timeout = write_timeout
        self._credentials = _credentials(
            tls,
            tls_ca or env.get("AGENTSTORAGE_TLS_CA"),
            tls_cert or env.get("AGENTSTORAGE_TLS_CERT"),
            tls_key or env.get("AGENTSTORAGE_TLS_KEY"),
            env,
        )
        self._metadata = _metadata_source(token, env)
        if plaintext_token is None:
            plaintext_token = _is_yes(env, "AGENTSTORAGE_PLAINTEXT_TOKEN")
        if self._metadata() is not None and not (self._credentials or plaintext_token or _is_local(self._target)):
            raise ValueError(
                f"the token would go to {self._target} in the clear: use TLS (tls=True or tls_ca=...), or say "
                "plaintext_token=True where something else protects the way"
            )
        if exchange is None:
            exchange = _is_yes(env, "AGENTSTORAGE_EXCHANGE", "true")
        if streams < 1:
            raise ValueError("streams must be 1 or more")
        self._streams = streams if exchange else 0
        self._loops: dict[asyncio.AbstractEventLoop, _Bound] = {}
        self._lock = threading.Lock()
        self._closed = False

    @property
    def target(self) -> str:
        """Where the service is."""
        return self._target

    @property
    def owner_id(self) -> str | None:
        """The owner of calls that name none."""
        return self._owner_id

    def channel(self) -> Channel:
        """Return the channel of the running event loop, made on first use. RuntimeError outside of an event loop."""
        return self._bound().channel

    def stub(self, stub_class: Callable[[Any], Any]) -> Any:
        """Return the generated stub of this class for the running event loop, made on first use."""
        bound = self._bound()
        stub = bound.stubs.get(stub_class)
        if stub is None:
            stub = bound.stubs[stub_class] = stub_class(bound.channel)
        return stub

    async def close(self) -> None:
        """Close the channels of all event loops and cancel the calls in flight. The connection can't be used again."""
        with self._lock:
            self._closed = True
            loops, self._loops = self._loops, {}
        here = asyncio.get_running_loop()
        for loop, bound in loops.items():
            if loop is here:
                await bound.channel.close()
                continue
            # A channel is closed in its own loop. Nobody waits for it: that loop may be about to end, or closed already.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(bound.channel.shut)

    async def __aenter__(self) -> Connection:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Connection({self._target!r})"

    def _bound(self) -> _Bound:
        loop = asyncio.get_running_loop()
        return self._loops.get(loop) or self._bind(loop)

    def _bind(self, loop: asyncio.AbstractEventLoop) -> _Bound:
        with self._lock:
            if self._closed:
                raise RuntimeError("the connection is closed")
            # A channel holds its loop, so a weak mapping would never let go of either: closed loops are dropped here.
            self._loops = {known: bound for known, bound in self._loops.items() if not known.is_closed()}
            poller.quiet()
            # grpc watches its socket in the context in which it first meets a loop, for as long as that lives: not in a caller's.
            bound = self._loops[loop] = _Bound(contextvars.Context().run(self._open))
            return bound

    def _open(self) -> Channel:
        exchange = None
        if self._streams:
            # A connection for each stream, since a connection leads to one process of the service.
            exchange = Exchange(lambda: self._connect(_OWN_CONNECTION), self._metadata, self._target, self._streams)
        return Channel(
            self._connect(),
            self._target,
            self._metadata,
            read_timeout=self._read_timeout,
            write_timeout=self._write_timeout,
            exchange=exchange,
        )

    def _connect(self, *more: tuple[str, Any]) -> grpc.aio.Channel:
        options = [
            ("grpc.service_config", service_config()),
            ("grpc.initial_reconnect_backoff_ms", 100),
            # In spite of its name the time that a connection may take to be made; what is refused is tried again as the others say.
            ("grpc.min_reconnect_backoff_ms", 5000),
            ("grpc.max_reconnect_backoff_ms", 2000),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            # Without this, pings end after two of them have met no traffic.
            ("grpc.http2.max_pings_without_data", 0),
            # The C core ignores keepalive_timeout_ms: this is what gives up a frozen server.
            ("grpc.http2.ping_timeout_ms", 3000),
            ("grpc.max_send_message_length", _MESSAGE_BYTES),
            ("grpc.max_receive_message_length", _MESSAGE_BYTES),
            *more,
        ]
        if _is_local(self._target):
            options.append(("grpc.enable_http_proxy", 0))
        if self._credentials:
            return grpc.aio.secure_channel(self._target, self._credentials, options=options)
        return grpc.aio.insecure_channel(self._target, options=options)


def checked_owner(owner_id: Any, name: str = "owner_id") -> str | None:
    """Give an owner, or None for none. TypeError and ValueError, naming the argument, for what is no owner."""
    if owner_id is None:
        return None
    if not isinstance(owner_id, str):
        raise TypeError(f"{name} must be a str, not {type(owner_id).__name__}")
    if not owner_id:
        raise ValueError(f"{name} must not be empty")
    return owner_id


class _Bound:
    """What belongs to one event loop."""

    __slots__ = ("channel", "stubs")

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.stubs: dict[Callable[[Any], Any], Any] = {}


class _TokenFile:
    """The metadata with the token of a file, which is looked at again every ten seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._metadata = _bearer(_read(path, "AGENTSTORAGE_TOKEN_FILE").decode())
        self._next_look = time.monotonic() + _TOKEN_FILE_SECONDS

    def __call__(self) -> grpc.aio.Metadata:
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _TOKEN_FILE_SECONDS
            try:
                metadata = _bearer(self._path.read_text())
                if metadata != self._metadata:
                    self._metadata = metadata
            except (OSError, ValueError):
                # In the middle of being replaced: the token that is known serves until the next look.
                return self._metadata
        return self._metadata


def _bearer(token: str) -> grpc.aio.Metadata:
    token = token.strip()
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ValueError("the token must be one word of printable ASCII characters")
    return grpc.aio.Metadata(("authorization", f"Bearer {token}"))


def _metadata_source(token: str | None, env: Mapping[str, str]) -> Callable[[], grpc.aio.Metadata | None]:
    if token is None:
        file = env.get("AGENTSTORAGE_TOKEN_FILE")
        token = env.get("AGENTSTORAGE_TOKEN")
        if token and file:
            raise ValueError("AGENTSTORAGE_TOKEN and AGENTSTORAGE_TOKEN_FILE are both set: set one")
        if file:
            return _TokenFile(Path(file))
        if not token:
            return lambda: None
    metadata = _bearer(token)
    return lambda: metadata


def _credentials(
    tls: bool | None,
    ca: str | os.PathLike[str] | None,
    cert: str | os.PathLike[str] | None,
    key: str | os.PathLike[str] | None,
    env: Mapping[str, str],
) -> grpc.ChannelCredentials | None:
    if tls is None:
        tls = bool(ca or cert or key) or _is_yes(env, "AGENTSTORAGE_TLS")
    if not tls:
        if ca or cert or key:
            raise ValueError("tls is off but a TLS file is given")
        return None
    if bool(cert) != bool(key):
        raise ValueError("tls_cert and tls_key belong together: give both or none")
    return grpc.ssl_channel_credentials(
        _pem(ca, "tls_ca", "CERTIFICATE"), _pem(key, "tls_key", "PRIVATE KEY"), _pem(cert, "tls_cert", "CERTIFICATE")
    )


def _pem(file: str | os.PathLike[str] | None, option: str, kind: str) -> bytes | None:
    if not file:
        return None
    option = f"{option} (or AGENTSTORAGE_{option.upper()})"
    content = _read(Path(file), option)
    # grpc would take anything and say at the first call that the server cannot be reached.
    if f"{kind}-----".encode() not in content:
        raise ValueError(f"{option}: {os.fspath(file)} holds no {kind.lower()} as PEM")
    return content


def _read(path: Path, option: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise type(error)(f"{option}: {path} can't be read: {error.strerror}") from None


def _is_yes(env: Mapping[str, str], name: str, default: str = "") -> bool:
    value = (env.get(name) or default).strip().lower()
    if value not in _YES | _NO:
        raise ValueError(f"{name} takes true or false")
    return value in _YES


def _checked_target(target: str) -> str:
    if not (_HOST_PORT.fullmatch(target) or _SCHEME.fullmatch(target)):
        # A connection string of a database has a password before the @.
        shown = re.sub("^.*@", "...@", target)
        raise ValueError(f'target must be "host:port", such as "{DEFAULT_TARGET}", or a gRPC target, not {shown!r}')
    for port in _ports(target):
        if not 1 <= int(port) <= _LARGEST_PORT:
            raise ValueError(f"target {target!r}: a port is from 1 to {_LARGEST_PORT}, not {port}")
    return target


def _ports(target: str) -> list[str]:
    scheme = _SCHEME.fullmatch(target)
    if scheme:
        if scheme[1] not in ("dns", "ipv4", "ipv6"):
            return []
        target = scheme[2].rpartition("/")[2]
    return [found[2] for address in target.split(",") if (found := _HOST_PORT.fullmatch(address))]


def _is_local(target: str) -> bool:
    """Whether every address of the target is this machine's own."""
    scheme = _SCHEME.fullmatch(target)
    if scheme:
        if scheme[1] in ("unix", "unix-abstract"):
            return True
        target = scheme[2].lstrip("/")
    return all(_is_local_host(address) for address in target.split(","))


def _is_local_host(address: str) -> bool:
    found = _HOST_PORT.fullmatch(address)
    host = found[1].strip("[]") if found else address
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
