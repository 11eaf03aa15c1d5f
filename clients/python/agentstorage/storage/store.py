"""The long-term store, as the runtimes see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from agentstorage import jsontext
from agentstorage.connection import Connection
from agentstorage.errors import InvalidRequest, LimitReached, NotFound
from agentstorage.storage import fields
from agentstorage.storage.resource import LARGEST_OFFSET, PAGE
from agentstorage.storage.rows import Item
from agentstorage.v1 import common_pb2, server_pb2, server_pb2_grpc, store_pb2, store_pb2_grpc

_StoreStub: Any = store_pb2_grpc.StoreServiceStub
_ServerStub: Any = server_pb2_grpc.ServerServiceStub

#: A namespace: a list of labels, or the labels joined by ".".
Namespace = str | Sequence[str]


class Store:
    """Items under (owner, namespace, key).

    A namespace is a list of labels or a text of labels joined by ``"."`` (``["a", "b"]`` and ``"a.b"`` are the same),
    and comes back joined. ``owner_id`` is as for the other resources; without any owner, items without an owner are
    meant.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def put(
        self,
        namespace: Namespace,
        key: str,
        value: Any,
        owner_id: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> Item:
        """Create or replace an item and return it.

        ``value`` is any JSON value. A replaced item keeps its ``created_at`` and, when ``metadata`` is None, its
        metadata; ``{}`` empties it.
        """
        request = store_pb2.PutItemRequest(
            owner_id=self._owner(owner_id),
            namespace=_labels(namespace),
            key=fields.checked_text(key, "key"),
            value=jsontext.dump(value, "value"),
        )
        if metadata is not None:
            fields.json_object(request, "metadata", metadata)
        return Item.of((await self._stub().PutItem(request)).item)

    async def get(self, namespace: Namespace, key: str, owner_id: str | None = None) -> Item | None:
        """Return an item; None when there is none."""
        request = store_pb2.GetItemRequest(
            owner_id=self._owner(owner_id), namespace=_labels(namespace), key=fields.checked_text(key, "key")
        )
        try:
            return Item.of((await self._stub().GetItem(request)).item)
        except (NotFound, InvalidRequest) as error:
            if _is_absence(error):
                return None
            raise

    async def delete(self, namespace: Namespace, key: str, owner_id: str | None = None) -> bool:
        """Delete an item; False when there is none."""
        request = store_pb2.DeleteItemRequest(
            owner_id=self._owner(owner_id), namespace=_labels(namespace), key=fields.checked_text(key, "key")
        )
        try:
            await self._stub().DeleteItem(request)
        except (NotFound, InvalidRequest) as error:
            if _is_absence(error):
                return False
            raise
        return True

    async def search(
        self,
        namespace: Namespace,
        owner_id: str | None = None,
        prefix: str | None = None,
        limit: int = 10,
        offset: int = 0,
    ) -> list[Item]:
        """Return items of exactly this namespace, ordered by key.

        Args:
            namespace: The namespace; items of namespaces below it are not listed.
            owner_id: The owner.
            prefix: Only keys that begin with this text, literally.
            limit: The most items; a number below 1 counts as 1. Above 1,000 they are read page by page, so that items
                which are put or deleted meanwhile may be listed twice or not at all.
            offset: Items to leave out first, up to 10,000; a negative number counts as 0.

        Raises:
            LimitReached: There are more items than the service lists, which is the first 11,000: use a prefix.
        """
        request = store_pb2.SearchItemsRequest(
            owner_id=self._owner(owner_id),
            namespace_prefix=_labels(namespace),
            exact_namespace=True,
            key_prefix=fields.checked_text(prefix or "", "prefix"),
            sort_by=store_pb2.ITEM_SORT_KEY,
            offset=max(0, fields.checked_count(offset, "offset")),
        )
        if not request.namespace_prefix:
            return []
        limit = max(1, fields.checked_count(limit, "limit"))
        try:
            items = await listed(self._stub().SearchItems, request, "items", limit, "search with a prefix")
            return [Item.of(item) for item in items]
        except InvalidRequest as error:
            if _is_absence(error):
                return []
            raise

    async def list_namespaces(self, owner_id: str | None = None) -> list[str]:
        """Return the namespaces that hold items, each joined by ``"."``, in order.

        LimitReached when there are more than 11,000: list below a prefix with ``StoreService.ListNamespaces`` then.
        """
        request = store_pb2.ListNamespacesRequest(owner_id=self._owner(owner_id))
        remedy = "list those below a prefix with StoreService.ListNamespaces"
        namespaces = await listed(self._stub().ListNamespaces, request, "namespaces", None, remedy)
        return sorted(".".join(namespace.labels) for namespace in namespaces)

    async def clear(self) -> None:
        """Delete every item, of all owners. For tests: the server must allow it, and the token too."""
        request = server_pb2.TruncateRequest(resources=[common_pb2.RESOURCE_ITEMS])
        await self._connection.stub(_ServerStub).Truncate(request)

    def _stub(self) -> Any:
        return self._connection.stub(_StoreStub)

    def _owner(self, owner_id: str | None) -> str | None:
        return self._connection.owner_id if owner_id is None else fields.checked_text(owner_id, "owner_id")


async def listed(
    call: Callable[[Any], Awaitable[Any]], request: Any, field: str, limit: int | None, remedy: str
) -> list[Any]:
    """Send a request with offset after offset, until there are ``limit`` entries, or no more; None is all of them."""
    first = request.offset
    found: list[Any] = []
    size = PAGE
    while True:
        request.limit = size if limit is None else min(size, limit - len(found))
        try:
            page = getattr(await call(request), field)
        except LimitReached:
            # The page may be too large for one message.
            if request.limit == 1:
                raise
            size = max(1, request.limit // 8)
            continue
        found.extend(page)
        if len(page) < request.limit or len(found) == limit:
            return found
        if first + len(found) > LARGEST_OFFSET:
            raise LimitReached(
                f"the service lists {field} up to number {first + len(found)}, and there are more: {remedy}"
            )
        request.offset = first + len(found)


def _labels(namespace: Namespace) -> list[str]:
    if not isinstance(namespace, str):
        if not isinstance(namespace, (list, tuple)):
            raise TypeError(f"namespace must be a list of str or a str, not {type(namespace).__name__}")
        # Labels hold no "."; a list of one joined text, as some callers have it, means the same as its labels.
        namespace = ".".join(fields.checked_text(label, "namespace") for label in namespace)
    return namespace.split(".") if namespace else []


def _is_absence(error: NotFound | InvalidRequest) -> bool:
    """Whether an error says that there is no such item; also if it says that no item can have such a name."""
    if isinstance(error, NotFound):
        return True
    return bool(error.violations) and all(
        path == "key" or path.split("[")[0] in ("namespace", "namespace_prefix") for path in error.violations
    )
