"""Every setting of the service, in one place: from the environment, with its default and what it means.

A command's flags win over the environment. Secrets may come from a file: ``DATABASE_URL_FILE`` names one that holds the URL.
"""

from __future__ import annotations

import contextlib
import difflib
import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from storage_service.caller import RIGHTS

MOST_WORKERS: Final = 256
MOST_TTL_MINUTES: Final = 52_596_000
THREAD_TTL_STRATEGIES: Final = ("delete", "keep_latest")
# A stream that holds less stands still behind one large answer, or one request.
LEAST_EXCHANGE_BYTES: Final = 1024 * 1024


class SettingsError(ValueError):
    """A setting cannot be used; the message names it and says what it takes."""


class PortTaken(SettingsError):
    """Another process listens on the port, or the address is not of this machine."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            f"can't listen on {settings.address}: another process does, or the address is not of this machine; --port names another port"
        )


def _setting(default: Any, variable: str, meaning: str) -> Any:
    return field(default=default, metadata={"variable": variable, "meaning": meaning})


def _positive(default: float, variable: str, meaning: str) -> Any:
    """A number of which 0 would let nothing through, or everything."""
    return field(default=default, metadata={"variable": variable, "meaning": meaning, "positive": True})


@dataclass(frozen=True, slots=True)
class Limits:
    """What a request may hold."""

    message_bytes: int = _positive(64 * 1024 * 1024, "STORAGE_MESSAGE_BYTES", "largest message, both ways, in bytes")
    json_bytes: int = _positive(16 * 1024 * 1024, "STORAGE_JSON_BYTES", "largest JSON field in bytes")
    blob_bytes: int = _positive(
        64 * 1024 * 1024, "STORAGE_BLOB_BYTES", "largest value of a channel or a write of a checkpoint in bytes"
    )
    json_depth: int = _positive(100, "STORAGE_JSON_DEPTH", "deepest nesting of a JSON field")
    namespace_labels: int = _positive(32, "STORAGE_NAMESPACE_LABELS", "most labels of a namespace, up to 32")
    batch_operations: int = _positive(1000, "STORAGE_BATCH_OPERATIONS", "most operations of a batch, up to 1,000")
    filter_keys: int = _positive(100, "STORAGE_FILTER_KEYS", "most keys of a metadata or values filter")
    call_seconds: float = _positive(
        30.0, "STORAGE_CALL_SECONDS", "longest time of a call, and that of one without a deadline"
    )
    stream_seconds: float = _positive(3600.0, "STORAGE_STREAM_SECONDS", "longest time of a stream")
    calls_in_flight: int = _positive(
        4000,
        "STORAGE_CALLS_IN_FLIGHT",
        "most calls at work at once; more are refused, and of calls that wait, and streams, those beyond four fifths",
    )
    exchange_calls: int = _positive(
        1000, "STORAGE_EXCHANGE_CALLS", "most calls at work at once on one stream of the exchange; more are refused"
    )
    exchange_bytes: int = _setting(
        64 * 1024 * 1024,
        "STORAGE_EXCHANGE_BYTES",
        "most bytes of requests and unread replies on one stream of the exchange",
    )
    exchange_streams: int = _setting(
        1000, "STORAGE_EXCHANGE_STREAMS", "most streams of the exchange at once; clients make plain calls then"
    )
    run_attempts: int = _positive(
        5, "STORAGE_RUN_ATTEMPTS", "leases of a run that may lapse; the last one of them ends it in ERROR"
    )
    bytes_in_flight: int = _positive(
        512 * 1024 * 1024, "STORAGE_BYTES_IN_FLIGHT", "most bytes of requests at work at once; more are refused"
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one server."""

    database_url: str = _setting("", "DATABASE_URL", "Postgres; empty for memory, whose data ends with the process")
    pool_min_size: int = _setting(2, "DATABASE_POOL_MIN_SIZE", "connections that are always open")
    pool_max_size: int = _setting(10, "DATABASE_POOL_MAX_SIZE", "most connections")
    pool_timeout: float = _positive(30.0, "DATABASE_POOL_TIMEOUT", "longest wait for a free connection in seconds")
    statement_timeout: float = _positive(30.0, "DATABASE_STATEMENT_TIMEOUT", "longest statement in seconds")
    lock_timeout: float = _positive(2.0, "DATABASE_LOCK_TIMEOUT", "longest wait for a row lock in seconds")
    transaction_pooler: bool = _setting(
        False, "DATABASE_TRANSACTION_POOLER", "true behind a pooler in transaction mode (pgbouncer, Supavisor)"
    )
    prepared_statements: bool = _setting(
        True, "DATABASE_PREPARED_STATEMENTS", "false prepares no statement and pipelines none; slower"
    )
    migrate: bool = _setting(
        True, "STORAGE_MIGRATE", "false leaves bringing the schema up to date to storage-service migrate"
    )
    probe_seconds: float = _setting(
        5.0, "DATABASE_PROBE_SECONDS", "wait for the database at start before serving without it"
    )
    sweep_seconds: float = _setting(
        60.0, "STORAGE_SWEEP_SECONDS", "time between two sweeps of what has outlived its time; 0 for none"
    )
    thread_ttl_minutes: float = _setting(
        0.0, "STORAGE_THREAD_TTL_MINUTES", "time to live of new threads that name none, from their last use; 0 for good"
    )
    thread_ttl_strategy: str = _setting(
        "delete", "STORAGE_THREAD_TTL_STRATEGY", "what then becomes of them: delete or keep_latest"
    )
    checkpoint_days: float = _setting(
        0.0, "STORAGE_CHECKPOINT_DAYS", "age at which checkpoints are deleted that are not needed any more; 0 for none"
    )
    lease_sweep_seconds: float = _setting(
        2.0, "STORAGE_LEASE_SWEEP_SECONDS", "time between two looks for leases that have lapsed; 0 for none"
    )
    event_days: float = _setting(
        7.0, "STORAGE_EVENT_DAYS", "age at which the events of runs are deleted that ended; 0 for none"
    )
    cron_seconds: float = _setting(
        0.0, "STORAGE_CRON_SECONDS", "time between two looks for crons that are due; 0 fires none by itself"
    )
    host: str = _setting("127.0.0.1", "STORAGE_HOST", "address to listen on")
    port: int = _setting(50051, "STORAGE_PORT", "port to listen on; 0 for any free one")
    workers: int = _setting(
        1,
        "STORAGE_WORKERS",
        "processes that serve on the port, each with a pool of its own; more than 1 need a database",
    )
    token_file: str = _setting(
        "", "STORAGE_TOKEN_FILE", "TOML file of the tokens; without it every caller is anonymous"
    )
    tls_cert_file: str = _setting("", "STORAGE_TLS_CERT_FILE", "PEM certificate chain of the server")
    tls_key_file: str = _setting("", "STORAGE_TLS_KEY_FILE", "PEM private key of the server")
    allow_insecure_listen: bool = _setting(
        False, "STORAGE_ALLOW_INSECURE_LISTEN", "true listens beyond loopback without a token file or TLS"
    )
    anonymous_rights: str = _setting(
        "", "STORAGE_ANONYMOUS_RIGHTS", "rights of anonymous callers: unscoped, admin, or both with a comma"
    )
    reflection: str = _setting(
        "loopback", "STORAGE_REFLECTION", "server reflection: on, off, or loopback for on there only"
    )
    allow_truncate: bool = _setting(False, "STORAGE_ALLOW_TRUNCATE", "true lets admin callers Truncate; for tests")
    drain_seconds: float = _setting(
        1.0, "STORAGE_DRAIN_SECONDS", "time between NOT_SERVING and refusing calls at a stop"
    )
    grace_seconds: float = _setting(20.0, "STORAGE_GRACE_SECONDS", "time for calls at work to end at a stop")
    log_level: str = _setting(
        "INFO", "STORAGE_LOG_LEVEL", "DEBUG, INFO (a line per call), WARNING (failures of the server) or ERROR"
    )
    limits: Limits = field(default_factory=Limits)

    @property
    def address(self) -> str:
        """Where the server listens, as gRPC takes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def target(self, port: int = 0) -> str:
        """Where a client on this machine finds the server, on another port when one is given; one that listens on every address too."""
        host = self.host.strip("[]")
        with contextlib.suppress(ValueError):
            address = ipaddress.ip_address(host)
            if address.is_unspecified:
                host = "127.0.0.1" if address.version == 4 else "::1"
        return f"[{host}]:{port or self.port}" if ":" in host else f"{host}:{port or self.port}"

    @property
    def listens_on_loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False

    @property
    def uses_reflection(self) -> bool:
        """Whether the server describes itself."""
        return self.reflection == "on" or (self.reflection == "loopback" and self.listens_on_loopback)

    @property
    def rights(self) -> frozenset[str]:
        """The rights of anonymous callers."""
        return frozenset(filter(None, (right.strip() for right in self.anonymous_rights.split(","))))

    def check_listening(self) -> None:
        """Raises SettingsError where a server may not listen as these settings say."""
        if bool(self.tls_cert_file) != bool(self.tls_key_file):
            raise SettingsError("STORAGE_TLS_CERT_FILE and STORAGE_TLS_KEY_FILE go together: set both or none")
        if not (self.listens_on_loopback or self.allow_insecure_listen or (self.token_file and self.tls_cert_file)):
            raise SettingsError(
                f"listening on {self.host} needs a token file and TLS (STORAGE_TOKEN_FILE, STORAGE_TLS_CERT_FILE,"
                " STORAGE_TLS_KEY_FILE); --allow-insecure-listen does without, on a network that you trust"
            )

    def check(self) -> None:
        """Raises SettingsError for settings that do not go together, or that are out of their range."""
        if not self.rights <= RIGHTS:
            raise SettingsError(f"STORAGE_ANONYMOUS_RIGHTS takes {' and '.join(sorted(RIGHTS))}, with a comma between")
        if self.reflection not in ("on", "off", "loopback"):
            raise SettingsError("STORAGE_REFLECTION takes on, off or loopback")
        if self.log_level.upper() not in ("DEBUG", "INFO", "WARNING", "ERROR"):
            raise SettingsError("STORAGE_LOG_LEVEL takes DEBUG, INFO, WARNING or ERROR")
        if self.thread_ttl_strategy not in THREAD_TTL_STRATEGIES:
            raise SettingsError("STORAGE_THREAD_TTL_STRATEGY takes delete or keep_latest")
        if self.thread_ttl_minutes > MOST_TTL_MINUTES:
            raise SettingsError(
                f"STORAGE_THREAD_TTL_MINUTES takes a number up to {MOST_TTL_MINUTES}, which is 100 years"
            )
        if not 0 <= self.port <= 65535:
            raise SettingsError("STORAGE_PORT takes a number from 0 to 65535")
        if not 1 <= self.workers <= MOST_WORKERS:
            raise SettingsError(f"STORAGE_WORKERS takes a number from 1 to {MOST_WORKERS}")
        if not 1 <= self.pool_min_size <= self.pool_max_size:
            raise SettingsError("DATABASE_POOL_MIN_SIZE must be 1 or more, and not above DATABASE_POOL_MAX_SIZE")
        if self.limits.exchange_bytes < LEAST_EXCHANGE_BYTES:
            raise SettingsError(f"STORAGE_EXCHANGE_BYTES takes a number of {LEAST_EXCHANGE_BYTES} or more")


def described() -> list[tuple[str, str, str]]:
    """Every variable with its default and its meaning, in order."""
    found = []
    for item in (*fields(Settings), *fields(Limits)):
        if "variable" in item.metadata:
            default = item.default
            text = (
                str(default).lower()
                if isinstance(default, bool)
                else f"{default:g}"
                if isinstance(default, float)
                else str(default)
            )
            found.append((item.metadata["variable"], text, item.metadata["meaning"]))
    return found


def load(environment: Mapping[str, str] = os.environ, **given: Any) -> Settings:
    """The settings from the environment; what is ``given`` and not None wins. Raises SettingsError."""
    _refuse_misspelt(environment)
    values = _read(Settings, environment)
    values["limits"] = Limits(**_read(Limits, environment))
    if file := environment.get("DATABASE_URL_FILE", "").strip():
        if values.get("database_url"):
            raise SettingsError("DATABASE_URL and DATABASE_URL_FILE are both set: set one")
        try:
            values["database_url"] = Path(file).read_text().strip()
        except OSError as error:
            raise SettingsError(f"DATABASE_URL_FILE can't be read: {error.strerror}") from error
    values.update({name: value for name, value in given.items() if value is not None})
    settings = Settings(**values)
    settings.check()
    return settings


def _refuse_misspelt(environment: Mapping[str, str]) -> None:
    """Raises SettingsError for a variable that is nearly one of ours.

    What is not like any may be another program's, and so may what is like one that is set.
    """
    known = ("DATABASE_URL_FILE", *(variable for variable, _, _ in described()))
    for name in environment:
        if name.startswith(("STORAGE_", "DATABASE_")) and name not in known:
            near = _nearest(name, known)
            is_set = any(environment.get(n, "").strip() or environment.get(f"{n}_FILE", "").strip() for n in near)
            if near and not is_set:
                raise SettingsError(f"{name} is no setting; did you mean {' or '.join(near)}?")


def _nearest(name: str, known: Sequence[str]) -> list[str]:
    """What a name is nearly: one of those that are known, or several that are about as near."""
    likeness = {other: difflib.SequenceMatcher(None, other, name).ratio() for other in known}
    least = max(0.9, max(likeness.values()) - 0.02)
    return [other for other in known if likeness[other] >= least]


def _read(kind: type[Settings] | type[Limits], environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for item in fields(kind):
        variable = item.metadata.get("variable", "")
        if text := environment.get(variable, "").strip():
            values[item.name] = _parse(
                variable, text, type(item.default), positive=item.metadata.get("positive", False)
            )
    return values


def _parse(variable: str, text: str, kind: type, *, positive: bool) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false", "1", "0", "yes", "no", "on", "off"):
            raise SettingsError(f"{variable} takes true or false")
        return text.lower() in ("true", "1", "yes", "on")
    if kind is str:
        return text
    try:
        number = kind(text)
    except ValueError as error:
        raise SettingsError(f"{variable} takes a number") from error
    if positive and not 0 < number < float("inf"):
        raise SettingsError(f"{variable} takes a number above 0")
    if not 0 <= number < float("inf"):
        raise SettingsError(f"{variable} takes a number that is not negative")
    return number
