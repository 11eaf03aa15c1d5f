"""LangGraph's checkpointers on the storage service."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, TypeVar

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import (
    BaseCheckpointSaver,
    ChannelVersions,
    Checkpoint,
    CheckpointMetadata,
    CheckpointTuple,
    DeltaChannelHistory,
)
from langgraph.checkpoint.serde.base import SerializerProtocol

from agentstorage.connection import Connection, checked_owner
from agentstorage.errors import LimitReached, NotFound
from agentstorage.langgraph import loop
from agentstorage.langgraph.checkpoints import (
    Address,
    Histories,
    Row,
    config_of,
    id_parts,
    list_request,
    next_row,
    next_version,
    owner_of,
    put_requests,
    sent_values,
    write_requests,
)
from agentstorage.langgraph.work import LARGE, is_large, worked
from agentstorage.opening import opened, ping
from agentstorage.v1 import checkpoints_pb2 as pb
from agentstorage.v1 import checkpoints_pb2_grpc, threads_pb2

T = TypeVar("T")

_STUB: Any = checkpoints_pb2_grpc.CheckpointServiceStub
_STRATEGIES: Final = {
    "keep_latest": threads_pb2.PruneStrategy.PRUNE_STRATEGY_KEEP_LATEST,
    "delete": threads_pb2.PruneStrategy.PRUNE_STRATEGY_DELETE,
}


class _Saver(BaseCheckpointSaver[str]):
    """What both savers do: every method of a checkpointer, as a coroutine and as a call that waits."""

    def __init__(
        self,
        target: str | Connection | None = None,
        *,
        owner_id: str | None = None,
        serde: SerializerProtocol | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(serde=serde)
        self._owner_id = checked_owner(owner_id)
        self._connection, self._owned = opened(self, target, settings)

    @property
    def connection(self) -> Connection:
        """The connection, for the generated stubs."""
        return self._connection

    def get_next_version(self, current: str | None, channel: None) -> str:
        """Give the version of a channel after ``current``, of the kind that LangGraph's Postgres savers give."""
        version: str = next_version(current)
        return version

    async def aget_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Give the checkpoint with the config's id, or the newest of its thread and namespace; None when there is none."""
        address, named = self._address(config)
        try:
            reply = await self._stub().GetCheckpoint(pb.GetCheckpointRequest(**address.fields()))
        except NotFound:
            return None
        except LimitReached:
            # Larger than a message; a list gives it in parts.
            call = self._listed(pb.ListCheckpointsRequest(**address.fields(), limit=1))
            try:
                row = await next_row(call)
            finally:
                call.cancel()
            return None if row is None else await self._loaded(row, named)
        return await self._loaded(Row(reply.checkpoint), named)

    async def alist(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> AsyncIterator[CheckpointTuple]:
        """Give checkpoints one after another as they come from the service, greatest id first.

        Args:
            config: Whose thread, namespace and checkpoint id, each where it has one, must be the checkpoint's; None for all of
                the owner's threads.
            filter: What the metadata must contain.
            before: The config of a checkpoint whose id is greater.
            limit: How many at most.
        """
        request, named = list_request(self._owner(config), config, filter, before, limit)
        if request is None:
            return
        call = self._listed(request)
        try:
            while (row := await next_row(call)) is not None:
                yield await self._loaded(row, named)
        finally:
            call.cancel()

    async def aput(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Keep a checkpoint after the one whose config is given, with the values of the channels that have new versions."""
        address, named = self._address(config)
        for request in await worked(
            is_large(sent_values(checkpoint, new_versions)),
            lambda: put_requests(self.serde, address, config, checkpoint, metadata, new_versions),
        ):
            await self._written(self._stub().PutCheckpoint(request), address)
        return config_of(address.thread_id, address.checkpoint_ns, checkpoint["id"], named)

    async def aput_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Keep what a task wrote for the checkpoint of the config."""
        address, _ = self._address(config)
        for request in await worked(
            is_large([value for _, value in writes]),
            lambda: write_requests(self.serde, address, writes, task_id, task_path),
        ):
            await self._written(self._stub().PutWrites(request), address)

    async def _written(self, call: Awaitable[Any], address: Address) -> None:
        try:
            await call
        except NotFound as error:
            error.add_note(
                f"the thread id {address.thread_id!r} is not this owner's to write, or was deleted just now: use another thread_id"
            )
            raise

    async def adelete_thread(self, thread_id: str) -> None:
        """Delete the checkpoints of a thread in all namespaces."""
        request = pb.DeleteThreadCheckpointsRequest(owner_id=self._owner(), thread_id=str(thread_id))
        await self._stub().DeleteThreadCheckpoints(request)

    async def adelete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Delete the checkpoints whose metadata names one of the runs as "run_id", in all of the owner's threads."""
        owner = self._owner()
        for part in id_parts(run_ids, "run_ids"):
            await self._stub().DeleteRunCheckpoints(pb.DeleteRunCheckpointsRequest(owner_id=owner, run_ids=part))

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Copy the checkpoints of a thread, in all namespaces and with the same ids, to another thread."""
        request = pb.CopyThreadCheckpointsRequest(
            owner_id=self._owner(), thread_id=str(source_thread_id), new_thread_id=str(target_thread_id)
        )
        await self._stub().CopyThreadCheckpoints(request)

    async def aprune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Delete checkpoints of threads.

        Args:
            thread_ids: The threads.
            strategy: "keep_latest" leaves the newest of each namespace, and those from which its delta channels are built; "delete"
                leaves none.
        """
        if strategy not in _STRATEGIES:
            raise ValueError(f"strategy must be one of {', '.join(_STRATEGIES)}, not {strategy!r}")
        owner = self._owner()
        for part in id_parts(thread_ids, "thread_ids"):
            request = pb.PruneCheckpointsRequest(owner_id=owner, thread_ids=part, strategy=_STRATEGIES[strategy])
            await self._stub().PruneCheckpoints(request)

    async def aget_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Give what the values of delta channels are built from: the writes of the checkpoint's ancestors, and what they follow."""
        if not channels:
            return {}
        address, _ = self._address(config)
        request = pb.GetDeltaChannelHistoryRequest(**address.fields(), channels=channels)
        try:
            reply = await self._stub().GetDeltaChannelHistory(request)
        except NotFound:
            return {channel: {"writes": []} for channel in channels}
        except LimitReached:
            # Larger than a message: ancestor by ancestor, as the base class does it.
            return await super().aget_delta_channel_history(config=config, channels=channels)
        histories = Histories(reply)
        return await worked(histories.size > LARGE, lambda: histories.loaded(self.serde))

    # The same for callers that wait.

    def get_tuple(self, config: RunnableConfig) -> CheckpointTuple | None:
        """Do as ``aget_tuple``, and wait."""
        return self._waited(self.aget_tuple, config)

    def list(
        self,
        config: RunnableConfig | None,
        *,
        filter: dict[str, Any] | None = None,
        before: RunnableConfig | None = None,
        limit: int | None = None,
    ) -> Iterator[CheckpointTuple]:
        """Do as ``alist``, and wait for each."""
        request, named = list_request(self._owner(config), config, filter, before, limit)
        if request is None:
            return
        call, its_loop = self._waited(self._listed_here, request)
        try:
            while (row := self._waited(next_row, call)) is not None:
                yield row.loaded(self.serde, named)
        finally:
            its_loop.call_soon_threadsafe(call.cancel)

    def put(
        self,
        config: RunnableConfig,
        checkpoint: Checkpoint,
        metadata: CheckpointMetadata,
        new_versions: ChannelVersions,
    ) -> RunnableConfig:
        """Do as ``aput``, and wait."""
        return self._waited(self.aput, config, checkpoint, metadata, new_versions)

    def put_writes(
        self, config: RunnableConfig, writes: Sequence[tuple[str, Any]], task_id: str, task_path: str = ""
    ) -> None:
        """Do as ``aput_writes``, and wait."""
        self._waited(self.aput_writes, config, writes, task_id, task_path)

    def delete_thread(self, thread_id: str) -> None:
        """Do as ``adelete_thread``, and wait."""
        self._waited(self.adelete_thread, thread_id)

    def delete_for_runs(self, run_ids: Sequence[str]) -> None:
        """Do as ``adelete_for_runs``, and wait."""
        self._waited(self.adelete_for_runs, run_ids)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        """Do as ``acopy_thread``, and wait."""
        self._waited(self.acopy_thread, source_thread_id, target_thread_id)

    def prune(self, thread_ids: Sequence[str], *, strategy: str = "keep_latest") -> None:
        """Do as ``aprune``, and wait."""
        self._waited(self.aprune, thread_ids, strategy=strategy)

    def get_delta_channel_history(
        self, *, config: RunnableConfig, channels: Sequence[str]
    ) -> Mapping[str, DeltaChannelHistory]:
        """Do as ``aget_delta_channel_history``, and wait."""
        return self._waited(self.aget_delta_channel_history, config=config, channels=channels)

    def _waited(self, method: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> T:
        """Run a coroutine on the loop of those who wait."""
        return loop.run(method(*args, **kwargs))

    def _stub(self) -> Any:
        return self._connection.stub(_STUB)

    def _listed(self, request: pb.ListCheckpointsRequest) -> Any:
        return self._stub().ListCheckpoints(request)

    async def _listed_here(self, request: pb.ListCheckpointsRequest) -> tuple[Any, asyncio.AbstractEventLoop]:
        return self._listed(request), asyncio.get_running_loop()

    async def _loaded(self, row: Row, named: str | None) -> CheckpointTuple:
        return await worked(row.size > LARGE, lambda: row.loaded(self.serde, named))

    def _owner(self, config: RunnableConfig | None = None) -> str:
        """Give the owner whose checkpoints a call is about."""
        named = owner_of(config)
        if self._owner_id is not None and named not in (None, self._owner_id):
            raise ValueError('config["configurable"]["owner_id"] is not the owner_id that this saver was made with')
        if named is None:
            named = self._owner_id or self._connection.owner_id
        if named is None:
            raise ValueError(
                'no owner_id: give the saver one, set config["configurable"]["owner_id"] for calls that have a config, or set '
                "AGENTSTORAGE_OWNER"
            )
        return named

    def _address(self, config: RunnableConfig) -> tuple[Address, str | None]:
        """Give what a config is about, and the owner where the config names it."""
        configurable = config["configurable"]
        owner = self._owner(config)
        address = Address(
            owner,
            str(configurable["thread_id"]),
            configurable.get("checkpoint_ns") or "",
            configurable.get("checkpoint_id") or "",
        )
        return address, configurable.get("owner_id")


class AsyncGrpcSaver(_Saver):
    """LangGraph's checkpointer on the storage service, for graphs that run in an event loop.

        async with AsyncGrpcSaver("localhost:50051", owner_id="alice") as saver:
            graph = builder.compile(checkpointer=saver)
            await graph.ainvoke(inputs, {"configurable": {"thread_id": "t1"}})

    Any number of operations run at once, on one connection, in any number of event loops. The methods without "a" may be called
    from other threads than that of the event loop in which the saver was made.

    Every method raises ``StorageError`` when the service cannot do what is asked, and ValueError when no owner is named.

    Args:
        target: ``host:port`` of the service, or an open ``Connection``, which stays open when the saver is closed. Default:
            ``AGENTSTORAGE_TARGET``, else ``localhost:50051``.
        owner_id: The owner of all checkpoints. Default: ``config["configurable"]["owner_id"]`` of each call, else the
            connection's owner.
        serde: Makes bytes of values and values of bytes. Default: LangGraph's ``JsonPlusSerializer``. With any other, such as
            ``EncryptedSerializer``, the service sees no value but through it.
        settings: What ``Connection`` takes beside the target: token, tls_ca and the rest. Not together with an open connection.
    """

    def __init__(
        self,
        target: str | Connection | None = None,
        *,
        owner_id: str | None = None,
        serde: SerializerProtocol | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(target, owner_id=owner_id, serde=serde, **settings)
        self._loop = loop.running()

    def _waited(self, method: Callable[..., Coroutine[Any, Any, T]], *args: Any, **kwargs: Any) -> T:
        here = loop.running()
        if here is not None and self._loop in (None, here):
            raise asyncio.InvalidStateError(
                "a synchronous call of AsyncGrpcSaver would block the event loop it is made in: use the method with an "
                '"a" before its name (graph.ainvoke instead of graph.invoke), or GrpcSaver'
            )
        return super()._waited(method, *args, **kwargs)

    async def setup(self) -> None:
        """Ask whether the service is there; it makes its tables itself. Programs that change savers may call it as before."""
        await ping(self._connection)

    async def close(self) -> None:
        """Close the connection, unless it was given."""
        if self._owned:
            await self._connection.close()

    async def __aenter__(self) -> AsyncGrpcSaver:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class GrpcSaver(_Saver):
    """LangGraph's checkpointer on the storage service, for graphs that run without an event loop.

        with GrpcSaver("localhost:50051", owner_id="alice") as saver:
            graph = builder.compile(checkpointer=saver)
            graph.invoke(inputs, {"configurable": {"thread_id": "t1"}})

    It may be used from any thread, and by several at once; they wait for one event loop, which runs in a thread of its own and
    keeps no process alive. The arguments are those of ``AsyncGrpcSaver``, and so are the methods with "a".
    """

    def setup(self) -> None:
        """Do as that of ``AsyncGrpcSaver``, and wait."""
        loop.run(ping(self._connection))

    def close(self) -> None:
        """Close the connection, unless it was given."""
        if self._owned:
            loop.run(self._connection.close())

    def __enter__(self) -> GrpcSaver:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
