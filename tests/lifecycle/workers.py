"""Workers as seen from outside: their processes, what they log, who answers, and calls that go on while they end."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import psycopg

from agentstorage import Connection, StorageError
from agentstorage.v1 import store_pb2, store_pb2_grpc, threads_pb2, threads_pb2_grpc
from tests.faults.servers import health, until
from tests.service import CallFailed, GrpcApi, ServerProcess

_FAULTS = """
import os, pathlib, sys, time

_arguments = sys.orig_argv
_name = _arguments[_arguments.index("--as-worker") + 1] if "--as-worker" in _arguments else "supervisor"
fault = pathlib.Path(__file__).with_name(_name)

def hold(is_on=fault.exists, supervisor=os.getppid()):
    while is_on() and os.getppid() == supervisor:
        time.sleep(0.02)

if fault.exists():
    exec(fault.read_text())
"""


class Faults:
    """Code that the processes of a service run before anything else, in an ``environment``; it has itself as the file ``fault``.

    ``hold()`` in it keeps the process from its start until the code is taken back.
    """

    def __init__(self, directory: Path) -> None:
        # Python imports it at every start.
        (directory / "sitecustomize.py").write_text(_FAULTS)
        self._directory = directory
        self.environment = {"PYTHONPATH": str(directory), "STORAGE_LOG_LEVEL": "INFO"}

    def give(self, process: int | str, code: str = "hold()") -> None:
        """Have a worker, or the ``"supervisor"``, run it at each start from now on."""
        # At once, since the process may be starting.
        made = self._directory / "made"
        made.write_text(code)
        made.rename(self._directory / str(process))

    def take_back(self, process: int | str) -> None:
        """Let it start as ever."""
        (self._directory / str(process)).unlink()


def workers(server: ServerProcess) -> dict[int, psutil.Process]:
    """The running workers by their number."""
    found = {}
    for process in psutil.Process(server.process.pid).children():
        arguments = process.cmdline()
        if "--as-worker" in arguments:
            found[int(arguments[arguments.index("--as-worker") + 1])] = process
    return found


def has_gone(process: psutil.Process) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def events(server: ServerProcess) -> list[dict[str, object]]:
    """The lines of the log that are not of calls."""
    # The last line may be on its way.
    written, _, _ = server.log.read_text().rpartition("\n")
    lines = [json.loads(line) for line in written.splitlines()]
    return [line for line in lines if line["event"] != "call"]


async def until_replaced(server: ServerProcess, number: int, times: int = 1) -> None:
    """Wait until a worker listens for so many times beyond the first."""

    async def listens() -> bool:
        return [line["event"] for line in events(server)].count(f"worker {number} listens") > times

    await until(listens, 20)


def own_channel(target: str) -> grpc.aio.Channel:
    """A channel with a connection that no other channel uses."""
    return grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)])


async def instance(target: str) -> str:
    """The process that a new connection comes to, by what the exchange says of it."""
    async with own_channel(target) as channel:
        # Its stubs want arguments that grpc has defaults for.
        method: Any = channel.stream_stream
        stream = method("/agentstorage.v1.ExchangeService/Exchange")()
        metadata = await stream.initial_metadata()
        stream.cancel()
        return next(str(value) for key, value in metadata if key == "agentstorage-instance")


async def instances(target: str, connections: int = 24) -> Counter[str]:
    """How many of so many new connections come to each process."""
    return Counter(await asyncio.gather(*(instance(target) for _ in range(connections))))


class Callers:
    """Idempotent calls through clients with a connection each, again and again; counts them and keeps what failed."""

    def __init__(self, target: str, owner: str) -> None:
        self.target, self.owner = target, owner
        self.calls = 0
        self.failures: list[str] = []
        self.acked: set[str] = set()
        self._going = True

    async def __aenter__(self) -> Callers:
        self._stack = AsyncExitStack()
        connections = [
            await self._stack.enter_async_context(Connection(self.target, owner_id=self.owner)) for _ in range(8)
        ]
        self._tasks = [asyncio.create_task(self._call(*pair)) for pair in enumerate(connections)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)
        await self._stack.aclose()

    async def more(self, calls: int = 200) -> None:
        """Wait for more calls."""
        wanted = self.calls + calls

        async def made() -> bool:
            return self.calls >= wanted

        await until(made, 30)

    async def _call(self, caller: int, connection: Connection) -> None:
        items = connection.stub(store_pb2_grpc.StoreServiceStub)
        threads = connection.stub(threads_pb2_grpc.ThreadServiceStub)
        number = 0
        while self._going:
            number += 1
            key = f"{caller}-{number}"
            try:
                await items.PutItem(
                    store_pb2.PutItemRequest(owner_id=self.owner, namespace=["w"], key=key, value=str(number))
                )
                self.acked.add(key)
                await items.GetItem(store_pb2.GetItemRequest(owner_id=self.owner, namespace=["w"], key=key))
                await threads.SearchThreads(threads_pb2.SearchThreadsRequest(owner_id=self.owner, page_size=1))
            except StorageError as error:
                self.failures.append(f"{type(error).__name__}: {error}")
            self.calls += 3
            await asyncio.sleep(0.005)


class Held:
    """Calls that wait for a lock, over connections to all workers."""

    def __init__(self, apis: list[GrpcApi], holder: psycopg.AsyncConnection[Any], owner: str) -> None:
        self.apis = apis
        self._holder = holder
        self.calls = [
            asyncio.create_task(
                api.call("UpdateThread", owner_id=owner, thread_id="held", metadata=json.dumps({f"m{number}": number}))
            )
            for number, api in enumerate(apis)
        ]

    @classmethod
    @asynccontextmanager
    async def open(cls, server: ServerProcess, owner: str, database: str) -> AsyncIterator[Held]:
        """The calls, at work until the block ends."""
        async with AsyncExitStack() as stack:
            channels = [await stack.enter_async_context(own_channel(server.target)) for _ in range(12)]
            apis = [GrpcApi(channel, "postgres", timeout=30) for channel in channels]
            await apis[0].call("CreateThread", owner_id=owner, thread_id="held")
            holder = await stack.enter_async_context(await psycopg.AsyncConnection.connect(database))
            await holder.execute("SELECT FROM langgraph_server.threads WHERE id = 'held' FOR UPDATE")
            held = cls(apis, holder, owner)
            try:
                await until(held._some_wait, 15)
                # What a connection answers, it has got after the call that waits.
                await asyncio.gather(*(api.call("GetServerInfo") for api in apis))
                yield held
            finally:
                for call in held.calls:
                    call.cancel()
                await asyncio.gather(*held.calls, return_exceptions=True)

    async def _some_wait(self) -> bool:
        # Of pg_stat_activity, a transaction sees the same again and again.
        return (await self._holder.execute("SELECT FROM pg_locks WHERE NOT granted")).rowcount > 0

    async def until_refused(self) -> None:
        """Wait until every connection gets no more calls through."""

        waiting = list(self.apis)

        async def all_are() -> bool:
            try:
                await waiting[-1].call("GetServerInfo")
            except CallFailed as failure:
                if failure.code is grpc.StatusCode.UNAVAILABLE:
                    waiting.pop()
            return not waiting

        await until(all_are, 10)

    async def let_go(self) -> None:
        """Give the lock back."""
        await self._holder.commit()


async def health_of_all(server: ServerProcess) -> set[str]:
    """What health says, over several connections."""
    found = set()
    for _ in range(6):
        async with own_channel(server.target) as channel:
            found.add(await health(channel))
    return found
