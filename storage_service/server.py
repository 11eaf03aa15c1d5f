"""Composition and lifecycle: a store, the pipeline over it, a listening gRPC server, health that follows the store."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import psycopg
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

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
from storage_service import __version__
from storage_service.caller import Callers, TokenFileError
from storage_service.exchange import SERVICE as EXCHANGE
from storage_service.exchange import Exchange
from storage_service.logs import Lines
from storage_service.retention import Sweeper
from storage_service.rpc import Pipeline
from storage_service.services.assistants import AssistantService
from storage_service.services.checkpoints import CheckpointService
from storage_service.services.crons import CronService
from storage_service.services.items import StoreService
from storage_service.services.owners import OwnerService
from storage_service.services.runs import RunService
from storage_service.services.server import ServerService
from storage_service.services.threads import ThreadService
from storage_service.settings import PortTaken, Settings, SettingsError
from storage_service.store import Store
from storage_service.store.items import PAGE_ROWS
from storage_service.store.memory import MemoryStore
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.upkeep import Upkeep
from storage_service.validate import ID_BYTES

log = logging.getLogger(__name__)

_HEALTH_SECONDS = 0.25
# The time for answers to leave between the last call's end and the end of the connections.
_LEFTOVER_SECONDS = 0.2
# The longest time for the last replies of the exchange to be read.
_FAREWELL_SECONDS = 2.0
_REFLECTION_V1 = "grpc.reflection.v1.ServerReflection"


def channel_options(settings: Settings, *, shares_port: bool = False) -> list[tuple[str, Any]]:
    """The options of the gRPC server: sizes, metadata, connection ages and pings; whether other processes may listen beside it."""
    return [
        ("grpc.max_receive_message_length", settings.limits.message_bytes),
        ("grpc.max_send_message_length", settings.limits.message_bytes),
        # One limit for both makes the refusal certain; between the soft and the hard one it is by chance.
        ("grpc.max_metadata_size", 8192),
        ("grpc.absolute_max_metadata_size", 8192),
        ("grpc.max_connection_idle_ms", 300_000),
        ("grpc.max_connection_age_ms", 1_800_000),
        # Longer than a stream of the exchange lives.
        ("grpc.max_connection_age_grace_ms", 300_000),
        ("grpc.server_handshake_timeout_ms", 5_000),
        ("grpc.max_allowed_incoming_connections", 1_000),
        ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.keepalive_time_ms", 30_000),
        # What C-core really goes by; keepalive_timeout_ms has no effect.
        ("grpc.http2.ping_timeout_ms", 10_000),
        # gRPC drops what waits beyond these without a word; the limit of calls in flight refuses with a reason.
        ("grpc.server.max_pending_requests", max(16_384, 4 * settings.limits.calls_in_flight)),
        ("grpc.server.max_pending_requests_hard_limit", max(32_768, 8 * settings.limits.calls_in_flight)),
        # Two services on one port would each get some of the calls; the workers of one are to.
        ("grpc.so_reuseport", int(shares_port)),
    ]


def callers_of(settings: Settings) -> Callers:
    """Who may call: the bearers of the token file, or everybody. Raises SettingsError for a file that can't be used."""
    if not settings.token_file:
        return Callers.open_to_all(settings.rights)
    try:
        return Callers.from_file(Path(settings.token_file))
    except TokenFileError as error:
        raise SettingsError(str(error)) from error


def database_settings(settings: Settings) -> DatabaseSettings:
    """The part of the settings that is about the database."""
    return DatabaseSettings(
        url=settings.database_url,
        pool_min_size=settings.pool_min_size,
        pool_max_size=settings.pool_max_size,
        pool_timeout=settings.pool_timeout,
        statement_timeout=settings.statement_timeout,
        lock_timeout=settings.lock_timeout,
        transaction_pooler=settings.transaction_pooler,
        prepared_statements=settings.prepared_statements,
        migrate=settings.migrate,
        thread_ttl=thread_ttl(settings),
    )


def thread_ttl(settings: Settings) -> threads_pb2.ThreadTtl | None:
    """What new threads get that name no time to live of their own."""
    if not settings.thread_ttl_minutes:
        return None
    strategy = f"THREAD_TTL_STRATEGY_{settings.thread_ttl_strategy.upper()}"
    return threads_pb2.ThreadTtl(minutes=settings.thread_ttl_minutes, strategy=strategy)


@contextlib.asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """The backend that the settings name, open until the block ends."""
    if not settings.database_url:
        log.warning(
            "serving from memory: all data ends with this process; set DATABASE_URL or use --embedded DIR to keep it"
        )
        yield MemoryStore(thread_ttl=thread_ttl(settings))
        return
    try:
        store = PostgresStore(database_settings(settings))
    except psycopg.ProgrammingError as error:
        raise SettingsError(
            "DATABASE_URL is not a connection string, like postgresql://user@host:5432/database"
        ) from error
    await store.start(settings.probe_seconds)
    try:
        yield store
    finally:
        await store.close()


def build_pipeline(settings: Settings, store: Store, lines: Lines | None = None) -> Pipeline:
    """The pipeline with every service registered."""
    limits = settings.limits
    pipeline = Pipeline(store, callers_of(settings), limits, lines)
    server_service = ServerService(
        version=__version__,
        limits=server_pb2.Limits(
            message_bytes=limits.message_bytes,
            json_bytes=limits.json_bytes,
            json_depth=limits.json_depth,
            namespace_labels=limits.namespace_labels,
            id_bytes=ID_BYTES,
            page_size=PAGE_ROWS,
            batch_operations=limits.batch_operations,
            call_seconds=limits.call_seconds,
            calls_in_flight=limits.calls_in_flight,
            exchange_calls=limits.exchange_calls,
            blob_bytes=limits.blob_bytes,
        ),
        capabilities=("exchange", "truncate") if settings.allow_truncate else ("exchange",),
        allow_truncate=settings.allow_truncate,
        figures=pipeline.figures,
    )
    for module, name, implementation in (
        (assistants_pb2, "AssistantService", AssistantService()),
        (threads_pb2, "ThreadService", ThreadService()),
        (runs_pb2, "RunService", RunService()),
        (store_pb2, "StoreService", StoreService()),
        (crons_pb2, "CronService", CronService()),
        (checkpoints_pb2, "CheckpointService", CheckpointService()),
        (owner_pb2, "OwnerService", OwnerService()),
        (server_pb2, "ServerService", server_service),
    ):
        pipeline.register(module.DESCRIPTOR.services_by_name[name], implementation)
    return pipeline


class Server:
    """A listening server over an open store. ``port`` is the port it listens on once started, ``shares_port`` whether others do too."""

    def __init__(
        self, settings: Settings, store: Store, lines: Lines | None = None, *, shares_port: bool = False
    ) -> None:
        self._settings = settings
        self._store = store
        self._pipeline = build_pipeline(settings, store, lines)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # not in its stubs
        self._following: asyncio.Task[None] | None = None
        self._sweeper = Sweeper(store, settings)
        self._upkeep = Upkeep(store, settings)
        self.port = 0
        self._server = grpc.aio.server(options=channel_options(settings, shares_port=shares_port))
        self._exchange = Exchange(self._pipeline, settings.limits)
        self._services = (*self._pipeline.services, EXCHANGE)
        self._server.add_generic_rpc_handlers((_Handlers(self._pipeline), self._exchange.handlers()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        if settings.uses_reflection:
            _add_reflection(self._server, self._services)

    async def start(self) -> None:
        """Listen. Raises PortTaken, and SettingsError for certificates that can't be used."""
        await self._follow_once()
        address = self._settings.address
        try:
            if self._settings.tls_cert_file:
                self.port = self._server.add_secure_port(address, _tls(self._settings))
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise PortTaken(self._settings) from error
        await self._server.start()
        self._following = asyncio.create_task(self._follow(), name="health")
        self._sweeper.start()
        self._upkeep.start()

    async def stop(self) -> None:
        """Stop gracefully: NOT_SERVING, a while for clients to see it, UNAVAILABLE for new calls, an end for those at work."""
        if self._following is not None:
            self._following.cancel()
        await self._sweeper.stop()
        await self._upkeep.stop()
        await self._health.enter_graceful_shutdown()
        await asyncio.sleep(self._settings.drain_seconds)
        self._pipeline.refuse_calls()
        # Those who wait for something to happen wait elsewhere from now on.
        self._store.wakeups.close()
        self._exchange.drain()
        stopping = asyncio.create_task(self._server.stop(self._settings.grace_seconds))
        await self._pipeline.idle(self._settings.grace_seconds)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._exchange.ended(), _FAREWELL_SECONDS)
        # gRPC may still hold calls that it never handed over; in their grace they would wait for nothing. Now they are told to go on
        # elsewhere.
        await asyncio.sleep(_LEFTOVER_SECONDS)
        await self._server.stop(0)
        await stopping

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_SECONDS)
            await self._follow_once()

    async def _follow_once(self) -> None:
        """Make health say what the store says: overall and for each service."""
        status = (
            health_pb2.HealthCheckResponse.NOT_SERVING
            if self._store.trouble()
            else health_pb2.HealthCheckResponse.SERVING
        )
        for name in ("", *self._services):
            await self._health.set(name, status)


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    """Hands grpc the pipeline's handlers."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes] | None:
        """The handler of a path, or None."""
        return self._pipeline.service(handler_call_details)


def _tls(settings: Settings) -> grpc.ServerCredentials:
    try:
        # Of files that don't fit, grpc says no more than that it can't listen.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file, password=lambda: "")
        key, chain = Path(settings.tls_key_file).read_bytes(), Path(settings.tls_cert_file).read_bytes()
    except ssl.SSLError as error:
        raise SettingsError(
            "STORAGE_TLS_CERT_FILE and STORAGE_TLS_KEY_FILE do not hold a certificate and its key, as PEM without a password"
        ) from error
    except OSError as error:
        raise SettingsError(f"STORAGE_TLS_CERT_FILE or STORAGE_TLS_KEY_FILE can't be read: {error.strerror}") from error
    return grpc.ssl_server_credentials([(key, chain)])


class _Symbols:
    """The descriptors, by every name that grpcurl asks for: methods too, which the pool itself does not find."""

    _pool = descriptor_pool.Default()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802 - the pool's name for it
        """The file of a service, method, message or enum. Raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            if method not in self._pool.FindServiceByName(service).methods_by_name:
                raise
            return self._pool.FindFileContainingSymbol(service)


def _add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Reflection under both of its names: v1 has the messages of v1alpha."""
    names = (*services, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names, pool=_Symbols())  # type: ignore[attr-defined]  # not exported in its stubs
    reflection_pb2_grpc.add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(_REFLECTION_V1, {"ServerReflectionInfo": handler}),)
    )
