"""The database that an import fills."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

from google.protobuf.message import Message

from storage_service.settings import Limits
from storage_service.store.postgres.adapt import register
from storage_service.store.postgres.migrate import LATEST, Connection, connected, revision
from storage_service.store.postgres.rights import MigrationError
from storage_service.validate import Validator

#: What every transaction begins with. A role from which row-level security hides rows shall fail, and not go by what it sees.
BEGIN: Final = "SELECT set_config('row_security', 'off', true), set_config('lock_timeout', '30s', true)"


@asynccontextmanager
async def opened(conninfo: str) -> AsyncIterator[Connection]:
    """A connection to a database whose schema is that of this service. Raises MigrationError for any other, and psycopg.Error."""
    async with connected(conninfo) as conn:
        if await revision(conn) != LATEST:
            raise MigrationError("the schema is not the one of this service; run `storage-service migrate` first")
        register(conn)
        yield conn


def rules_of(request: type[Message], limits: Limits) -> Validator:
    """The rules that the API has for what a row would come in: a row that breaks them could not be reached by any call."""
    descriptor: Any = request.DESCRIPTOR
    return Validator(descriptor, limits)
