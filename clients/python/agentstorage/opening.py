"""What everything that takes ``target`` or an open connection does with its arguments."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from typing import Any, Final

from agentstorage.connection import Connection
from agentstorage.v1 import server_pb2, server_pb2_grpc

_TAKEN: Final = frozenset(inspect.signature(Connection).parameters) - {"target"}
# How alike two names are, from 0 to 1, when one is taken for the other misspelt.
_NEAR: Final = 0.6


def opened(user: object, target: str | Connection | None, settings: Mapping[str, Any]) -> tuple[Connection, bool]:
    """Give the connection that ``user`` is made with, and whether it is the user's own to close.

    Args:
        user: What needs it, for messages.
        target: Where the service is, or an open connection.
        settings: What ``Connection`` takes beside the target.

    Raises:
        TypeError: A setting is none, or belongs to the connection that is given.
    """
    kind = type(user)
    for name in settings.keys() - _TAKEN:
        known = _TAKEN | (inspect.signature(kind).parameters.keys() - {"settings"})
        near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
        raise TypeError(f"{kind.__name__} has no argument {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
    if isinstance(target, Connection):
        if settings:
            raise TypeError(f"{', '.join(settings)} belong to the Connection that is given")
        return target, False
    return Connection(target, **settings), True


async def ping(connection: Connection) -> None:
    """Ask whether the service is there. Raises StorageError when it does not answer."""
    stub_class: Any = server_pb2_grpc.ServerServiceStub
    await connection.stub(stub_class).GetServerInfo(server_pb2.GetServerInfoRequest())
