"""LangGraph's stores, the long-term memory, on the storage service."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

from langchain_core.runnables.config import var_child_runnable_config
from langgraph.store.base import BaseStore, IndexConfig, InvalidNamespaceError, Op, PutOp, Result, TTLConfig

from agentstorage.connection import Connection, checked_owner
from agentstorage.errors import InvalidRequest, NotFound
from agentstorage.langgraph import loop
from agentstorage.langgraph.checkpoints import owner_of
from agentstorage.langgraph.store_index import Index, Vectors, checked_ttl
from agentstorage.langgraph.store_steps import Step, parts, steps_of
from agentstorage.langgraph.work import LARGE, is_large, worked
from agentstorage.opening import opened, ping
from agentstorage.storage.store import listed
from agentstorage.v1 import store_pb2 as pb
from agentstorage.v1 import store_pb2_grpc

_STUB: Any = store_pb2_grpc.StoreServiceStub
_OF_NAMESPACE = re.compile(r"(^|\.)(namespace|namespace_prefix|path)(\[\d+\])?")
# From so many vectors on it takes milliseconds to write them into a request.
_MANY_VECTORS = 50


class _Store(BaseStore):
    """What both stores do: batches of operations, as a coroutine and as a call that waits. All else LangGraph makes of these."""

    supports_ttl = True

    def __init__(
        self,
        target: str | Connection | None = None,
        *,
        owner_id: str | None = None,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._owner_id = checked_owner(owner_id)
        self.ttl_config = checked_ttl(ttl)
        self.index_config = index
        self._index = Index(index) if index is not None else None
        self.embeddings = self._index.embeddings if self._index is not None else None
        self._connection, self._owned = opened(self, target, settings)

    @property
    def connection(self) -> Connection:
        """The connection, for the generated stubs."""
        return self._connection

    async def abatch(self, ops: Iterable[Op]) -> list[Result]:
        """Do operations in their order and give the result of each.

        Up to 1,000 of them are one transaction: all take effect or none. A search or list of more than 1,000 rows is a call of its
        own, and one more for each further 1,000.
        """
        ops, owner = list(ops), self._owner()
        vectors = await self._index.aembed(ops) if self._index is not None else ({}, {})
        return await self._done(ops, vectors, owner)

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do as ``abatch``, and wait. Texts are embedded in this thread, unless that takes a coroutine."""
        ops, owner = list(ops), self._owner()
        if self._index is not None and self._index.must_await:
            vectors = loop.run(self._index.aembed(ops))
        else:
            vectors = self._index.embed(ops) if self._index is not None else ({}, {})
        return loop.run(self._done(ops, vectors, owner))

    async def _done(self, ops: Sequence[Op], vectors: tuple[Vectors, Vectors], owner: str) -> list[Result]:
        large = len(vectors[0]) > _MANY_VECTORS or is_large([op.value for op in ops if isinstance(op, PutOp)])
        steps = await worked(large, lambda: steps_of(ops, self._index, *vectors))
        try:
            asked = [result for part in parts(steps) for result in await self._asked(part, owner)]
        except InvalidRequest as error:
            if any(_OF_NAMESPACE.search(path) for path in error.violations):
                raise InvalidNamespaceError(str(error)) from error
            raise
        found = iter(asked)
        return [next(found) if step.kind else step.nothing for step in steps]

    async def _asked(self, steps: Sequence[Step], owner: str) -> list[Result]:
        stub = self._connection.stub(_STUB)
        if len(steps) == 1:
            return [await _alone(stub, steps[0], owner)]
        request = pb.BatchRequest(owner_id=owner, operations=[step.operation() for step in steps])
        response = await stub.Batch(request)
        answers = [(step, getattr(answer, step.kind)) for step, answer in zip(steps, response.results, strict=True)]
        return await worked(response.ByteSize() > LARGE, lambda: [step.result(answer) for step, answer in answers])

    def _owner(self) -> str:
        """Give the owner whose items a call is about."""
        owner = self._owner_id
        if owner is None:
            owner = owner_of(var_child_runnable_config.get()) or self._connection.owner_id
        if owner is None:
            raise ValueError(
                'no owner_id: give the store one, run the graph with a config whose config["configurable"]["owner_id"] is one, or set '
                "AGENTSTORAGE_OWNER"
            )
        return owner


class AsyncGrpcStore(_Store):
    """LangGraph's long-term memory on the storage service, for graphs that run in an event loop.

        async with AsyncGrpcStore("localhost:50051", owner_id="alice", index={"dims": 384, "embed": embed}) as store:
            await store.aput(("memories",), "tea", {"text": "likes green tea"})
            found = await store.asearch(("memories",), query="what to drink?")

    Any number of calls run at once, on one connection, in any number of event loops. The methods without "a" may be called from other
    threads than that of the event loop in which the store was made.

    Every method raises ``StorageError`` when the service cannot do what is asked, InvalidNamespaceError for a namespace that it cannot
    have, and ValueError when no owner is named.

    Args:
        target: ``host:port`` of the service, or an open ``Connection``, which stays open when the store is closed. Default:
            ``AGENTSTORAGE_TARGET``, else ``localhost:50051``.
        owner_id: The owner of all items. Default: ``config["configurable"]["owner_id"]`` of the run that calls, else the
            connection's owner.
        index: What is embedded, and with what, so that items can be searched by meaning: ``embed``, an ``Embeddings`` or a function
            of texts, a coroutine or not; ``dims``, how many numbers a vector has, for a check; ``fields``, default ``["$"]``, the
            whole value; ``distance_type``, "cosine" by default, "l2" or "inner_product". Without it a query is not heeded.
        ttl: Times to live: ``default_ttl`` in minutes, and ``refresh_on_read``. An item whose time is over is never given, whatever
            ``omit_expired`` says.
        settings: What ``Connection`` takes beside the target: token, tls_ca and the rest. Not together with an open connection.
    """

    def __init__(
        self,
        target: str | Connection | None = None,
        *,
        owner_id: str | None = None,
        index: IndexConfig | None = None,
        ttl: TTLConfig | None = None,
        **settings: Any,
    ) -> None:
        super().__init__(target, owner_id=owner_id, index=index, ttl=ttl, **settings)
        self._loop = loop.running()

    def batch(self, ops: Iterable[Op]) -> list[Result]:
        """Do as ``abatch``, and wait; InvalidStateError in the event loop in which the store was made."""
        here = loop.running()
        if here is not None and self._loop in (None, here):
            raise asyncio.InvalidStateError(
                "a synchronous call of AsyncGrpcStore would block the event loop it is made in: await the method with an "
                '"a" before its name (store.aput instead of store.put), or use GrpcStore'
            )
        return super().batch(ops)

    async def setup(self) -> None:
        """Ask whether the service is there; it makes its tables itself. Programs that change stores may call it as before."""
        await ping(self._connection)

    async def close(self) -> None:
        """Close the connection, unless it was given."""
        if self._owned:
            await self._connection.close()

    async def __aenter__(self) -> AsyncGrpcStore:
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()


class GrpcStore(_Store):
    """LangGraph's long-term memory on the storage service, for graphs that run without an event loop.

        with GrpcStore("localhost:50051", owner_id="alice") as store:
            store.put(("memories",), "tea", {"text": "likes green tea"})

    It may be used from any thread, and by several at once; they wait for one event loop, which runs in a thread of its own and
    keeps no process alive. The arguments are those of ``AsyncGrpcStore``, and so are the methods with "a".
    """

    def setup(self) -> None:
        """Do as that of ``AsyncGrpcStore``, and wait."""
        loop.run(ping(self._connection))

    def close(self) -> None:
        """Close the connection, unless it was given."""
        if self._owned:
            loop.run(self._connection.close())

    def __enter__(self) -> GrpcStore:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


async def _alone(stub: Any, step: Step, owner: str) -> Result:
    """Do one operation; a list of more rows than one call gives with several."""
    request = step.request(owner)
    if step.kind == "put":
        return step.result(await stub.PutItem(request))
    if step.kind == "get":
        try:
            response = await stub.GetItem(request)
        except NotFound:
            return None
    elif step.kind == "delete":
        request.allow_missing = True
        return step.result(await stub.DeleteItem(request))
    elif step.kind == "search":
        items = await listed(
            stub.SearchItems, request, "items", step.limit, "search below a longer prefix or with a filter"
        )
        response = pb.SearchItemsResponse(items=items)
    else:
        found = await listed(stub.ListNamespaces, request, "namespaces", step.limit, "list those below a longer prefix")
        response = pb.ListNamespacesResponse(namespaces=found)
    return await worked(response.ByteSize() > LARGE, lambda: step.result(response))
