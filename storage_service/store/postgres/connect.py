"""How to reach the database: the settings, and the connection string that they make."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg.conninfo import conninfo_to_dict, make_conninfo

from agentstorage.v1.threads_pb2 import ThreadTtl


@dataclass(frozen=True, slots=True)
class DatabaseSettings:
    """How to reach the database and how much of it to use. Times in seconds."""

    url: str
    pool_min_size: int = 2
    pool_max_size: int = 10
    pool_timeout: float = 30.0
    max_waiting: int = 1000
    statement_timeout: float = 30.0
    lock_timeout: float = 2.0
    # A pooler in transaction mode: no prepared statements, no pipelining, no start-up options.
    transaction_pooler: bool = False
    prepared_statements: bool = True
    migrate: bool = True
    # What new threads get that name no time to live of their own.
    thread_ttl: ThreadTtl | None = None


def connection_string(settings: DatabaseSettings) -> str:
    """The connection string with the service's defaults filled in; what the URL says itself stays.

    A server on this machine gets ``sslmode=disable``: local Supabase and the embedded server have no TLS.
    """
    given = conninfo_to_dict(settings.url)
    options = " ".join(
        (
            f"-c statement_timeout={round(settings.statement_timeout * 1000)}",
            f"-c lock_timeout={round(settings.lock_timeout * 1000)}",
            "-c idle_in_transaction_session_timeout=10000",
        )
    )
    defaults: dict[str, Any] = {
        "connect_timeout": 3,
        "keepalives_idle": 10,
        "keepalives_interval": 3,
        "keepalives_count": 3,
        "tcp_user_timeout": 10000,
        "application_name": "storage-service",
        # Whatever the database itself is encoded in.
        "client_encoding": "UTF8",
    }
    if given.get("host") in ("localhost", "127.0.0.1", "::1"):
        defaults["sslmode"] = "disable"
    if not settings.transaction_pooler:
        defaults["options"] = options
    return make_conninfo(**{**defaults, **{key: value for key, value in given.items() if value is not None}})
