"""What the stores of all resources have in common: get, list, update, delete, count and clear."""

from __future__ import annotations

import builtins
from collections.abc import Awaitable, Callable, Mapping
from types import ModuleType
from typing import Any, ClassVar, Generic, TypeVar

from agentstorage.connection import Connection
from agentstorage.errors import InvalidRequest, LimitReached, NotFound
from agentstorage.identifiers import new_id
from agentstorage.storage import fields
from agentstorage.storage.rows import Row
from agentstorage.v1 import common_pb2, server_pb2, server_pb2_grpc

R = TypeVar("R", bound=Row)
T = TypeVar("T")

#: The largest page of the service, and the largest offset that it takes.
PAGE = 1000
LARGEST_OFFSET = 10_000

_ServerStub: Any = server_pb2_grpc.ServerServiceStub


class Resource(Generic[R]):
    """The rows of one resource, as the runtimes see them.

    ``owner_id`` is the owner that a call acts for; None means the connection's owner, or, when that has none, an
    unscoped call, which the server may refuse (``OwnerRequired``). Another owner's row is absent. Absent means None or
    False.

    Every method raises ``StorageError`` when the service cannot do what is asked, TypeError or ValueError naming the
    argument that is wrong.
    """

    # Set by the subclasses: where the messages are, their stub, and what one row is called and becomes.
    _messages: ClassVar[ModuleType]
    _stub_class: ClassVar[Any]
    _noun: ClassVar[str]
    _row: ClassVar[Any]
    _resource: ClassVar[common_pb2.Resource]
    _created: ClassVar[Mapping[str, fields.Writer]]
    _updated: ClassVar[Mapping[str, fields.Writer]]
    _pushed: ClassVar[Mapping[str, fields.Pusher]]
    # The fields whose violation means that there is no such row.
    _id_fields: ClassVar[frozenset[str]]
    # The keys that a create must have.
    _required: ClassVar[tuple[str, ...]] = ()
    # What every create says.
    _always: ClassVar[Mapping[str, Any]] = {}

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        noun = self._noun
        self._field = noun.lower()
        self._id = f"{self._field}_id"
        self._rows_field = f"{self._field}s"
        messages = self._messages
        self._create_request = getattr(messages, f"Create{noun}Request")
        self._get_request = getattr(messages, f"Get{noun}Request")
        self._update_request = getattr(messages, f"Update{noun}Request")
        self._delete_request = getattr(messages, f"Delete{noun}Request")
        self._search_request = getattr(messages, f"Search{noun}sRequest")
        self._count_request = getattr(messages, f"Count{noun}sRequest")
        self._filters = frozenset(self._row.__dataclass_fields__)

    async def get(self, id: str, owner_id: str | None = None) -> R | None:
        """Return one row, or None when the owner has none with this id."""
        request = self._get_request(owner_id=self._owner(owner_id))
        setattr(request, self._id, fields.checked_text(id, self._id))
        reply = await self._or_none(self._call("Get", request))
        return None if reply is None else self._made(getattr(reply, self._field))

    async def delete(self, id: str, owner_id: str | None = None) -> bool:
        """Delete one row with all that belongs to it; False when the owner has none with this id."""
        request = self._delete_request(owner_id=self._owner(owner_id))
        setattr(request, self._id, fields.checked_text(id, self._id))
        return await self._or_none(self._call("Delete", request)) is not None

    async def count(self, owner_id: str | None = None, **filters: Any) -> int:
        """Count the rows that ``list`` would return."""
        request = self._count_request(owner_id=self._owner(owner_id))
        if self._push(request, filters):
            return len(await self.list(owner_id, **filters))
        reply = await getattr(self._stub(), f"Count{self._noun}s")(request)
        count: int = reply.count
        return count

    async def clear(self) -> None:
        """Delete every row of this resource, of all owners. For tests: the server must allow it, and the token too."""
        await self._connection.stub(_ServerStub).Truncate(server_pb2.TruncateRequest(resources=[self._resource]))

    async def list(self, owner_id: str | None = None, **filters: Any) -> list[R]:
        """Return all rows whose attributes equal the filters, newest first.

        A filter is an attribute of the result and the value that it must equal; ``metadata`` equals without the owner
        that the service stamps on it, unless the filter names one. TypeError for a name that is no attribute.
        """
        request = self._search_request(owner_id=self._owner(owner_id))
        rest = self._push(request, filters)
        rows = await self._search(request)
        if not rest:
            return rows
        return [
            row for row in rows if all(fields.equal(getattr(row, name), value, name) for name, value in rest.items())
        ]

    async def create(self, data: Mapping[str, Any], owner_id: str | None = None) -> R:
        """Create a row and return it.

        ``data`` holds attributes of the result, the id among them if the caller has one, and ``if_exists``: ``"raise"``
        (the default) or ``"do_nothing"``, which returns the owner's row that has the id already. Other keys are
        ignored.

        Raises:
            AlreadyExists: The id is taken: ``"<Resource> <id> already exists"``. It is a ValueError too.
            ValueError: A key that is needed is missing: ``"<key> is required"``.
        """
        for name in self._required:
            if not fields.checked_dict(data, "data").get(name):
                raise ValueError(f"{name} is required")
        # The request_id tells a create that grpc sends again from a second create with the same id.
        request = self._create_request(request_id=new_id(), **self._always)
        fields.fill(request, data, self._created, self._owner(owner_id))
        if not getattr(request, self._id):
            setattr(request, self._id, new_id())
        return self._made(getattr(await self._call("Create", request), self._field))

    async def _update(self, id: str, data: Mapping[str, Any], owner_id: str | None) -> R | None:
        request = self._update_request()
        fields.fill(request, data, self._updated, self._owner(owner_id))
        setattr(request, self._id, fields.checked_text(id, self._id))
        reply = await self._or_none(self._call("Update", request))
        return None if reply is None else self._made(getattr(reply, self._field))

    def _stub(self) -> Any:
        return self._connection.stub(self._stub_class)

    def _call(self, verb: str, request: Any) -> Awaitable[Any]:
        call: Awaitable[Any] = getattr(self._stub(), verb + self._noun)(request)
        return call

    def _owner(self, owner_id: str | None) -> str | None:
        if owner_id is None:
            return self._connection.owner_id
        return fields.checked_text(owner_id, "owner_id")

    def _made(self, message: Any) -> R:
        row: R = self._row.of(message)
        return row

    def _push(self, request: Any, filters: Mapping[str, Any]) -> dict[str, Any]:
        """Put the filters into a request; return those that must still be compared here."""
        rest = {}
        for name, value in filters.items():
            if name not in self._filters:
                raise TypeError(f"{name} is no attribute of a {self._noun.lower()} to filter by")
            push = self._pushed.get(name)
            if push is None or not push(request, value):
                rest[name] = value
        return rest

    async def _search(self, request: Any, limit: int | None = None, skip: int = 0) -> builtins.list[R]:
        """Run a search; without a limit for all rows."""
        request.offset = min(skip, LARGEST_OFFSET)
        search = getattr(self._stub(), f"Search{self._noun}s")
        return await paged(search, request, self._rows_field, self._made, limit, skip - request.offset)

    async def _or_none(self, call: Awaitable[Any]) -> Any:
        """Await a call; None when there is no such row."""
        try:
            return await call
        except (NotFound, InvalidRequest) as error:
            if self._is_absence(error):
                return None
            raise

    def _is_absence(self, error: NotFound | InvalidRequest) -> bool:
        """Whether an error says that there is no such row; also if it says that no row can have such an id."""
        if isinstance(error, NotFound):
            return True
        return bool(error.violations) and error.violations.keys() <= self._id_fields


async def paged(
    call: Callable[[Any], Awaitable[Any]],
    request: Any,
    field: str,
    make: Callable[[Any], T],
    limit: int | None = None,
    skip: int = 0,
) -> list[T]:
    """Send a request for page after page, until there are ``limit`` rows after the first ``skip``, or no more."""
    rows: list[T] = []
    size = PAGE
    while True:
        request.page_size = size if limit is None else min(size, skip + limit - len(rows))
        try:
            reply = await call(request)
        except LimitReached:
            # The page may be too large for one message.
            if size == 1:
                raise
            size = max(1, size // 8)
            continue
        found = getattr(reply, field)
        dropped = min(skip, len(found))
        skip -= dropped
        rows.extend(make(message) for message in found[dropped:])
        if not reply.next_page_token or (limit is not None and len(rows) >= limit):
            return rows
        request.page_token = reply.next_page_token
        request.ClearField("offset")
