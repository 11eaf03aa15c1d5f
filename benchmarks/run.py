"""One run: every operation, payload and number of callers, all peers in turn, several times over."""

from __future__ import annotations

import contextlib
import datetime
import gc
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from benchmarks import aegra, machine, postgres
from benchmarks.checkpoints import CHECKPOINTS
from benchmarks.load import Load
from benchmarks.operations import METHODS, Operation, Rows
from benchmarks.peers import Echo, Peer, Service, ThroughClient, TwoClients
from benchmarks.postgres import Database
from benchmarks.savers import GrpcSaver, PostgresSaver

#: What ``--only`` takes.
OPERATIONS: Final = METHODS | CHECKPOINTS
#: What ``--peers`` takes.
PEERS: Final = ("echo", "memory", "postgres", "client", "exchange", "workers", "savers", "aegra")

# What the calls that add rows may add in one repeat, in bytes of documents: the memory backend keeps them all.
_GROWTH_BYTES = 64 * 2**20
_WARM_UP_SECONDS = 0.3


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure. ``seconds`` is the length of one repeat, ``memory_calls`` how many calls the memory is measured over."""

    operations: tuple[str, ...] = tuple(OPERATIONS)
    payloads: tuple[int, ...] = (1024, 32768)
    callers: tuple[int, ...] = (1, 8, 16, 64)
    peers: tuple[str, ...] = PEERS
    seconds: float = 1.5
    repeats: int = 3
    memory_calls: int = 100_000
    log_level: str = "INFO"


@dataclass(slots=True)
class _Measured:
    loads: list[Load] = field(default_factory=list)
    server_us: list[float] = field(default_factory=list)
    database_us: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)


async def measure(plan: Plan) -> dict[str, Any]:
    """Do what the plan says and give all of its results, ready for JSON."""
    load_before = machine.load_average()
    with tempfile.TemporaryDirectory(prefix="benchmark") as directory:
        async with postgres.running(Path(directory), "postgres" in plan.peers) as database:
            environment = {"STORAGE_LOG_LEVEL": plan.log_level}
            peers = make_peers(plan.peers, database.url, environment)
            described = machine.describe(Path(directory))
            async with _opened(peers):
                figures = await _measure_operations(plan, peers, database)
                memory = await _measure_memory(plan, peers)
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "plan": asdict(plan),
        "machine": described,
        "versions": machine.versions(database.version) | (aegra.versions() if "aegra" in plan.peers else {}),
        "load_average": {"before": load_before, "after": machine.load_average()},
        "figures": figures,
        "memory": memory,
    }


def make_peers(names: Sequence[str], database_url: str, environment: dict[str, str]) -> list[Peer]:
    """The peers of these names, in the order in which they take turns. The echo learns its sizes from the first service."""
    services = [
        Service(name, database_url if name == "postgres" else "", environment)
        for name in ("memory", "postgres")
        if name in names
    ]
    assert services, "at least one backend"
    made: list[Peer] = [Echo(services[0].answer_bytes)] if "echo" in names else []
    for service in services:
        made.append(service)
        if "client" in names:
            made.append(ThroughClient(f"{service.name}, client stubs", service, exchange=False))
        if "exchange" in names:
            made.append(ThroughClient(f"exchange {service.name}", service, exchange=True))
        if "workers" in names and service.name == "postgres":
            two = Service("postgres", database_url, environment, workers=2)
            made += [
                TwoClients("postgres, 1 worker", service, owns_service=False),
                TwoClients("postgres, 2 workers", two, owns_service=True),
            ]
        if "savers" in names and service.name == "postgres":
            made += [
                PostgresSaver(database_url),
                GrpcSaver("AsyncGrpcSaver", service, exchange=True),
                GrpcSaver("AsyncGrpcSaver, plain", service, exchange=False),
            ]
        if "aegra" in names and service.name == "postgres" and aegra.interpreter():
            made.append(aegra.Aegra(database_url))
    return made


async def _measure_operations(plan: Plan, peers: list[Peer], database: Database) -> list[dict[str, Any]]:
    figures = []
    for payload in plan.payloads:
        rows = Rows.of_size(payload)
        for peer in peers:
            _say(f"{payload} bytes: rows of {peer.name}")
            await peer.prepare(rows)
        for name in plan.operations:
            for callers in plan.callers:
                figures += await _measure_point(plan, peers, database, OPERATIONS[name], rows, payload, callers)
    return figures


async def _measure_point(
    plan: Plan, peers: list[Peer], database: Database, operation: Operation, rows: Rows, payload: int, callers: int
) -> list[dict[str, Any]]:
    """One operation, payload and number of callers: the peers take turns, so that a slow minute strikes all of them."""
    peers = [peer for peer in peers if operation.name in peer.operations]
    measured: dict[str, _Measured] = {}
    most = _GROWTH_BYTES // payload if operation.grows else sys.maxsize
    for repeat in range(plan.repeats):
        for peer in peers:
            gc.collect()
            if not repeat:
                await peer.load(operation, rows, callers, _WARM_UP_SECONDS, most)
            busy, server, kept = machine.busy_seconds(), peer.server_cpu(), database.cpu()
            load = await peer.load(operation, rows, callers, plan.seconds, most)
            if load is None:
                continue
            into = measured.setdefault(peer.name, _Measured())
            into.loads.append(load)
            busy, server, kept = machine.busy_seconds() - busy, peer.server_cpu() - server, database.cpu() - kept
            into.server_us.append(server / load.calls * 1e6)
            into.database_us.append(kept / load.calls * 1e6)
            into.others.append(max(0.0, busy - server - kept - load.client_cpu) / load.seconds)
    figures = []
    for peer in peers:
        if peer.name in measured:
            point = {"operation": operation.name, "kind": operation.kind, "payload": payload, "callers": callers}
            connections = await peer.database_connections()
            figures.append(point | {"peer": peer.name} | _medians(measured[peer.name]) | {"connections": connections})
            _say("  ".join(f"{value}" for value in figures[-1].values()))
    return figures


def _medians(measured: _Measured) -> dict[str, Any]:
    loads = measured.loads

    def milliseconds(times: Iterable[float]) -> float:
        return round(statistics.median(times) * 1000, 3)

    rates = [load.calls / load.seconds for load in loads]
    return {
        "calls_per_second": _rate(statistics.median(rates)),
        "slowest_repeat": _rate(min(rates)),
        "fastest_repeat": _rate(max(rates)),
        "p50_ms": milliseconds(load.p50 for load in loads),
        "p95_ms": milliseconds(load.p95 for load in loads),
        "p99_ms": milliseconds(load.p99 for load in loads),
        "server_cpu_us": round(statistics.median(measured.server_us)),
        "client_cpu_us": round(statistics.median(load.client_cpu / load.calls * 1e6 for load in loads)),
        "database_cpu_us": round(statistics.median(measured.database_us)),
        "others_cores": round(statistics.median(measured.others), 2),
    }


def _rate(calls_per_second: float) -> float:
    """As many digits as say something; whole graphs are few in a second."""
    return round(calls_per_second, 1) if calls_per_second < 100 else round(calls_per_second)


async def _measure_memory(plan: Plan, peers: list[Peer]) -> list[dict[str, Any]]:
    """The memory of a service on Postgres as calls go by: reads and writes of rows that are there, in tenths."""
    found: list[dict[str, Any]] = []
    for peer in peers:
        if peer.name != "postgres" or not plan.memory_calls:
            continue
        rows = Rows.of_size(min(plan.payloads))
        done = 0
        found.append({"calls": done, "resident_mib": round(peer.resident_bytes() / 2**20, 1)})
        for _ in range(10):
            for name in ("GetThread", "PutItem"):
                load = await peer.load(OPERATIONS[name], rows, 16, 600, max(1, plan.memory_calls // 20))
                assert load is not None
                done += load.calls
            found.append({"calls": done, "resident_mib": round(peer.resident_bytes() / 2**20, 1)})
        _say(f"resident memory: {found}")
    return found


@contextlib.asynccontextmanager
async def _opened(peers: list[Peer]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for peer in peers:
            await peer.open()
            stack.push_async_callback(peer.close)
        yield


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
