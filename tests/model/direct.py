"""Both backends in this process, where ticks of crons can be made to come and old events to be deleted."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import status_pb2

from agentstorage.v1 import runs_pb2 as pb
from storage_service.caller import AllOwners, Owner
from storage_service.errors import Failure
from storage_service.server import build_pipeline
from storage_service.services import firing
from storage_service.settings import Limits, Settings
from storage_service.status import status_of
from storage_service.store import Store
from storage_service.store.change import Put
from storage_service.store.memory import MemoryStore
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.store.tables import CRONS
from storage_service.store.where import Equals
from tests.model.backends import SECONDS, Failed, Side
from tests.service import METHODS

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="direct", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What some work gives."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    def close(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(SECONDS)
        self._loop.close()


class Ids:
    """The ids of what ticks make: the same on both sides, for the same calls one after the other."""

    def __init__(self) -> None:
        self._calls = 0
        self._numbers = itertools.count()
        #: The last ones of a run and of a thread.
        self.run_id, self.thread_id = "", ""

    def begin(self) -> None:
        """Begin a call, which goes to one side and then to the other."""
        self._calls += 1

    def again(self) -> None:
        """Begin it on one side."""
        self._numbers = itertools.count()

    def new_id(self) -> str:
        return f"{self._calls:024x}{next(self._numbers):08x}"


class DirectSide(Side):
    """One backend without a server."""

    def __init__(self, store: Store, loop: Loop, ids: Ids) -> None:
        self.name = store.name
        self.store = store
        self._loop = loop
        self._ids = ids
        settings = Settings(anonymous_rights="unscoped,admin", limits=Limits(run_attempts=RUN_ATTEMPTS))
        self._pipeline = build_pipeline(settings, store)

    def close(self) -> None:
        if isinstance(self.store, PostgresStore):
            self._loop.run(self.store.close())

    def call(self, method: str, request: Message) -> Any:
        self._ids.again()
        return self._loop.run(self._call(method, request))

    async def _call(self, method: str, request: Message) -> Any:
        whole = GetMessageClass(METHODS[method].output_type)()
        data = request.SerializeToString()
        try:
            if METHODS[method].server_streaming:
                async for part in self._pipeline.stream(self._named(method), data, ()):
                    whole.MergeFromString(part)
            else:
                whole.ParseFromString(await self._pipeline.answer(self._named(method), data, (), None))
        except Failure as failure:
            raise _failed(failure) from None
        return whole

    def follow(self, request: Message, seconds: float) -> pb.StreamRunEventsResponse:
        return self._loop.run(self._follow(request, seconds))

    async def _follow(self, request: Message, seconds: float) -> pb.StreamRunEventsResponse:
        first = pb.StreamRunEventsResponse()
        stream = self._pipeline.stream(self._named("StreamRunEvents"), request.SerializeToString(), ())
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    async for part in stream:
                        assert not first.HasField("run"), "a stream goes on after its end"
                        first.MergeFromString(part)
                        if not first.HasField("run"):
                            break
        except Failure as failure:
            raise _failed(failure) from None
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # it is a generator
        return first

    def _named(self, method: str) -> Any:
        return self._pipeline.method(f"/{METHODS[method].containing_service.full_name}/{method}")

    def come(self, cron_id: str, tick: Timestamp) -> bool:
        """Let the next tick of a cron be this one; whether there is such a cron."""
        rows = self.store.seen_by(AllOwners())
        changed = self._loop.run(rows.update(CRONS, [Equals("cron_id", cron_id)], [Put("next_run_date", tick)]))
        return changed is not None

    def sweep(self, owner: str) -> tuple[int, int]:
        """Delete the events of an owner's runs that have ended, and threads that end with their runs; says how many."""

        async def work() -> tuple[int, int]:
            scope = Owner(owner)
            events = await self.store.seen_by(scope).sweep_events(1000, 0)
            return events, await self.store.seen_by(scope).sweep_threads_of_crons(1000, 0)

        return self._loop.run(work())


#: How often a run is claimed before a lapsed lease ends it; few, so that it comes to that.
RUN_ATTEMPTS = 2


def _failed(failure: Failure) -> Failed:
    return Failed(status_pb2.Status.FromString(status_of(failure).SerializeToString()), set())


class Direct:
    """The two sides. Close it."""

    def __init__(self, database_url: str) -> None:
        self.loop, self.ids = Loop(), Ids()
        self._patch = pytest.MonkeyPatch()
        self._patch.setattr(firing, "new_id", self.ids.new_id)
        postgres = PostgresStore(DatabaseSettings(database_url))
        self.loop.run(self._start(postgres))
        self.sides = (DirectSide(MemoryStore(), self.loop, self.ids), DirectSide(postgres, self.loop, self.ids))

    @staticmethod
    async def _start(postgres: PostgresStore) -> None:
        await postgres.start(30)
        assert not postgres.trouble()

    def close(self) -> None:
        """Give everything back."""
        for side in self.sides:
            side.close()
        self.loop.close()
        self._patch.undo()
