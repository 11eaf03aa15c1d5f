"""The figures to reach, and what of them a run has reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

#: The most memory of an idle server after the calls of the memory measurement, in MiB.
MOST_MIB: Final = 120


@dataclass(frozen=True, slots=True)
class Rate:
    """How many of another peer's calls per second a peer is to reach with so many callers, by the kind of the method.

    ``cores`` is how many the machine needs for the figure to say anything; ``only`` are the methods that it is about, where not all.
    """

    peer: str
    against: str
    callers: int
    least: dict[str, float]
    what: str
    cores: int = 1
    only: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Cpu:
    """The most CPU of the server for a call, in microseconds, by the kind of the method; ``beyond`` is a peer whose own is taken off."""

    peer: str
    beyond: str
    callers: int
    most: dict[str, int]
    what: str


#: Two workers need two cores that nobody else uses; next to them are two clients and Postgres.
_CORES_OF_TWO_WORKERS: Final = 6


def _checkpointer(callers: int, least: dict[str, float]) -> Rate:
    return Rate(
        "AsyncGrpcSaver", "AsyncPostgresSaver", callers, least, "through the service: of AsyncPostgresSaver's calls/s"
    )


def _than_aegra(peer: str, way: str) -> tuple[Rate, Rate]:
    what = f"{way}: of the calls/s of Aegra's HTTP API"
    return (
        Rate(
            peer,
            "Aegra",
            16,
            dict.fromkeys(("read", "write", "page"), 5),
            what,
            only=("CreateThread", "GetThread", "SearchThreads"),
        ),
        Rate(peer, "Aegra", 16, {"read": 2.5, "write": 2.5}, what, only=("GetItem", "PutItem")),
    )


RATES: Final = (
    Rate("postgres", "echo", 16, {"read": 0.6, "write": 0.45}, "plain: of the echo's calls/s"),
    Rate("exchange postgres", "echo", 64, {"read": 1.2, "write": 1.0}, "by the exchange: of the plain echo's calls/s"),
    Rate(
        "exchange memory",
        "memory, client stubs",
        64,
        {"read": 6, "write": 6},
        "by the exchange, on memory: of the same client's plain calls/s",
    ),
    Rate(
        "exchange memory",
        "memory, client stubs",
        1,
        {"read": 1.3, "write": 1.3},
        "by the exchange, on memory: of the same client's plain calls/s",
    ),
    Rate(
        "postgres, 2 workers",
        "postgres, 1 worker",
        64,
        {"read": 1.7, "write": 1.7},
        "two workers: of one's calls/s, with two clients",
        _CORES_OF_TWO_WORKERS,
    ),
    *_than_aegra("postgres", "plain"),
    *_than_aegra("exchange postgres", "by the exchange"),
    _checkpointer(64, {"read": 2.5, "write": 2.5, "graph": 1.8}),
    _checkpointer(16, {"read": 2, "write": 2}),
    _checkpointer(1, {"read": 0.8, "write": 0.8}),
)
CPUS: Final = (
    Cpu("postgres", "echo", 16, {"read": 150, "write": 200}, "plain: server us beyond the echo's"),
    Cpu("exchange postgres", "", 64, {"read": 150, "write": 200}, "by the exchange: server us, all in"),
)


def rows(results: dict[str, Any]) -> list[list[str]]:
    """For each figure that the run has: what it is, as measured, what to reach, and whether it is reached."""
    found = {
        (figure["operation"], figure["payload"], figure["callers"], figure["peer"]): figure
        for figure in results["figures"]
    }
    made: list[list[str]] = []
    for operation, payload, kind in dict.fromkeys(
        (figure["operation"], figure["payload"], figure["kind"]) for figure in results["figures"]
    ):
        made += _of(operation, payload, kind, found, results["machine"]["cores"])
    if results["memory"]:
        last = results["memory"][-1]
        what = f"resident memory in MiB after {last['calls']} calls more"
        made.append([what, str(last["resident_mib"]), f"< {MOST_MIB}", _verdict(last["resident_mib"] < MOST_MIB)])
    return made


def _of(
    operation: str, payload: int, kind: str, found: dict[tuple[Any, ...], dict[str, Any]], cores: int
) -> Iterator[list[str]]:
    """The rows of one method with one payload."""

    def figure(peer: str, callers: int) -> dict[str, Any] | None:
        return found.get((operation, payload, callers, peer))

    for rate in RATES:
        own, other = figure(rate.peer, rate.callers), figure(rate.against, rate.callers)
        if own and other and kind in rate.least and operation in (rate.only or (operation,)):
            ratio, least = own["calls_per_second"] / other["calls_per_second"], rate.least[kind]
            verdict = _verdict(ratio >= least)
            if ratio < least and cores < rate.cores:
                verdict = f"not to be seen on {cores} cores, which clients and Postgres share"
            yield [_what(operation, payload, rate.callers, rate.what), f"{ratio:.2f}", f">= {least:g}", verdict]
    for cpu in CPUS:
        own, other = figure(cpu.peer, cpu.callers), figure(cpu.beyond, cpu.callers)
        if own and (other or not cpu.beyond) and kind in cpu.most:
            used = own["server_cpu_us"] - (other["server_cpu_us"] if other else 0)
            most = cpu.most[kind]
            yield [_what(operation, payload, cpu.callers, cpu.what), str(used), f"< {most}", _verdict(used < most)]


def _what(operation: str, payload: int, callers: int, what: str) -> str:
    return f"{operation}, {payload} bytes, {callers} callers, {what}"


def _verdict(reached: bool) -> str:
    return "reached" if reached else "missed"
