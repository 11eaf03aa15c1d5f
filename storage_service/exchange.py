"""ExchangeService: any number of unary calls on one stream; the contract is in exchange.proto.

Here are the streams of a server, from their beginning to the end that is announced; ``exchange_stream`` is one of them.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import grpc

from agentstorage.v1 import exchange_pb2 as pb
from storage_service import errors
from storage_service.exchange_stream import Stream
from storage_service.rpc import Pipeline, abort, presentable
from storage_service.settings import Limits

SERVICE: Final = pb.DESCRIPTOR.services_by_name["ExchangeService"].full_name

# How long a stream whose end was announced waits for the client's: when the server stops, and when it only wants another stream. Seconds.
_FAREWELL_SECONDS, _RENEWAL_SECONDS = 0.5, 5.0


class Exchange:
    """The streams of a server. ``stream_seconds`` is how long one lives before its client is asked to open another."""

    def __init__(self, pipeline: Pipeline, limits: Limits, stream_seconds: float = 240.0) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._stream_seconds = stream_seconds
        self._streams: set[Stream] = set()
        self._draining = False
        self._empty = asyncio.Event()

    def handlers(self) -> grpc.GenericRpcHandler[Any, Any]:
        """The service, as grpc takes it: bytes in, bytes out."""
        return grpc.method_handlers_generic_handler(
            SERVICE, {"Exchange": grpc.stream_stream_rpc_method_handler(self._serve)}
        )

    def drain(self) -> None:
        """Announce the end of every stream, and open no more."""
        self._draining = True
        for stream in self._streams:
            stream.drain(_FAREWELL_SECONDS)
        if not self._streams:
            self._empty.set()

    async def ended(self) -> None:
        """Wait until the streams have ended, after :meth:`drain`."""
        await self._empty.wait()

    async def _serve(self, _: Any, context: Any) -> None:
        try:
            await self._run(context)
            return
        # grpc would tell the client the text of anything else.
        except Exception as error:
            failure = presentable(error)
        await abort(context, failure)

    async def _run(self, context: Any) -> None:
        """Serve one stream to its end. Raises what it fails with."""
        if self._draining:
            raise errors.ShuttingDown()
        # Those that are being renewed go soon.
        if sum(not stream.is_draining for stream in self._streams) >= self._limits.exchange_streams:
            raise errors.LimitReached("too many streams of the exchange at once")
        caller = self._pipeline.identify(context.invocation_metadata() or ())
        stream = Stream(self._pipeline, caller, self._limits, context)
        self._streams.add(stream)
        # Not all at once, where many began together.
        seconds = self._stream_seconds * random.uniform(0.75, 1)  # noqa: S311 - spreads work, keeps no secret
        aging = asyncio.get_running_loop().call_later(seconds, stream.drain, _RENEWAL_SECONDS)
        try:
            await stream.run()
        finally:
            aging.cancel()
            self._leave(stream)

    def _leave(self, stream: Stream) -> None:
        self._streams.discard(stream)
        if self._draining and not self._streams:
            self._empty.set()
