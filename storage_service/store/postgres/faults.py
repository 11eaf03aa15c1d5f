"""What an error of the driver or of Postgres means: the one place that knows SQLSTATEs.

Source: PostgreSQL's appendix of error codes. What is not listed is a fault of this server and becomes INTERNAL above.
"""

from __future__ import annotations

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from storage_service import errors
from storage_service.store.change import merged_too_large

SERIALIZATION_FAILURE, DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE = "40001", "40P01", "55P03"
QUERY_CANCELED = "57014"
UNIQUE_VIOLATION, FOREIGN_KEY_VIOLATION = "23505", "23503"
# What an update has Postgres do when its merged metadata are too large; see store/change.py.
DIVISION_BY_ZERO = "22012"
DISK_FULL, OUT_OF_MEMORY, CONFIGURATION_LIMIT = "53100", "53200", "53400"
TOO_MANY_CONNECTIONS, READ_ONLY_TRANSACTION = "53300", "25006"
SHUTDOWNS = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04")
POOLER_LOST_STATEMENT = ("42P05", "26000")
DATA_CORRUPTED = ("XX001", "XX002")


# What the driver says of a connection that could not be made, and what to tell an operator: fixed words, for its own quote addresses.
_REFUSALS = (
    ("password authentication failed", "the login was refused: check the user and the password"),
    ("no password supplied", "the login needs a password"),
    ('role "', "the role does not exist, or may not log in"),
    ('database "', "the database does not exist: create it"),
    ("could not translate host name", "the host name is not known"),
    ("failed to resolve host", "the host name is not known"),
    ("No such file or directory", "no server has its socket there"),
    ("Connection refused", "nothing listens at that address"),
    ("timeout", "it did not answer in time"),
    ("too many clients", "it has no connection left"),
    ("starting up", "it is starting"),
    ("shutting down", "it is stopping"),
    ("invalid response to SSL negotiation", "what answers there is not Postgres"),
    ("expected authentication request", "what answers there is not Postgres"),
    ("SSL", "the two sides do not agree on TLS: see sslmode"),
)


def why_unreachable(error: BaseException) -> str:
    """Why no connection could be made, in words of ours; the kind of the error when that is not known."""
    text = str(error)
    return next((reason for part, reason in _REFUSALS if part in text), type(error).__name__)


def is_connection_lost(error: BaseException) -> bool:
    """Whether the connection, not the statement, failed, so that a read may be tried on another."""
    if not isinstance(error, psycopg.Error):
        return False
    state = error.sqlstate
    if state is None:
        return isinstance(error, psycopg.OperationalError)
    return state.startswith("08") or state in SHUTDOWNS


def is_collision(error: BaseException) -> bool:
    """Whether concurrent transactions collided and this one may be run again."""
    return isinstance(error, psycopg.Error) and error.sqlstate in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED)


def translate(error: Exception) -> errors.Failure | None:
    """The failure that an error means to a client, or None when it is a fault of this server."""
    if isinstance(error, PoolTimeout | TooManyRequests):
        return errors.LimitReached("every connection to the database is in use")
    if isinstance(error, PoolClosed):
        return errors.DatabaseUnavailable()
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    if state is None:
        if isinstance(error, psycopg.OperationalError):
            return errors.DatabaseUnavailable()
        # The driver refuses a value by itself, without a SQLSTATE.
        return errors.InvalidRequest("a value can't be stored") if isinstance(error, psycopg.DataError) else None
    return _by_state(state)


def _by_state(state: str) -> errors.Failure | None:
    if is_unavailable(state):
        return errors.DatabaseUnavailable()
    if state in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, UNIQUE_VIOLATION):
        return errors.Conflict()
    if state == QUERY_CANCELED:
        return errors.DeadlineExceeded()
    if state in (DISK_FULL, OUT_OF_MEMORY, CONFIGURATION_LIMIT):
        return errors.LimitReached("the database is out of disk, memory or another resource")
    if state == FOREIGN_KEY_VIOLATION:
        return errors.Conflict("a row that this one refers to was deleted meanwhile")
    if state == DIVISION_BY_ZERO:
        return merged_too_large()
    if state.startswith("22") or state in ("54000", "54001", "2201B", "2201W", "2201X"):
        return errors.InvalidRequest("a value can't be stored")
    return None


def is_unavailable(state: str) -> bool:
    """Whether a SQLSTATE says that the database cannot serve now."""
    return (
        state.startswith("08")
        or state in SHUTDOWNS
        or state in POOLER_LOST_STATEMENT
        or state in (TOO_MANY_CONNECTIONS, READ_ONLY_TRANSACTION)
    )


def kind_of(error: BaseException) -> str:
    """What kind of error it is, without its text, which may quote the connection string."""
    state = getattr(error, "sqlstate", None)
    return f"{type(error).__name__}, SQLSTATE {state}" if state else type(error).__name__
