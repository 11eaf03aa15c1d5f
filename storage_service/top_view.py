"""What ``storage-service top`` shows: two looks at a server become figures, and these lines or JSON."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from google.protobuf.descriptor import MethodDescriptor

from agentstorage.v1 import (
    assistants_pb2,
    checkpoints_pb2,
    crons_pb2,
    options_pb2,
    owner_pb2,
    runs_pb2,
    server_pb2,
    store_pb2,
    threads_pb2,
)
from storage_service.store.tables import RUN_STATUS
from storage_service.terminal import clean, short, shorten, span, table, width

_FIRE: Final = "(fired by STORAGE_CRON_SECONDS or FireDueCrons)"
#: The most methods that are shown.
MOST_METHODS: Final = 12
# Where the second column of the text begins.
_INDENT: Final = 10
_MODULES: Final = (
    assistants_pb2,
    threads_pb2,
    runs_pb2,
    store_pb2,
    crons_pb2,
    checkpoints_pb2,
    owner_pb2,
    server_pb2,
)


def _descriptors() -> Iterator[MethodDescriptor]:
    for module in _MODULES:
        for service in module.DESCRIPTOR.services_by_name.values():
            yield from service.methods


def _waits(method: MethodDescriptor) -> bool:
    rule: options_pb2.MethodRule = method.GetOptions().Extensions[options_pb2.admission]  # type: ignore[index]  # the stubs know no extension
    return rule.waits or method.server_streaming


# The methods whose calls last as long as there is something to wait for, which says nothing of how fast they are.
_WAITING: Final = frozenset(
    f"{method.containing_service.full_name}/{method.name}" for method in _descriptors() if _waits(method)
)


@dataclass(frozen=True, slots=True)
class Look:
    """What a server said at a time.

    ``problem`` says why it said nothing, ``refused`` why nothing of its runs; ``seconds`` is a clock that only goes forward.
    """

    seconds: float
    time: datetime
    info: server_pb2.GetServerInfoResponse | None = None
    stats: runs_pb2.GetRunStatsResponse | None = None
    problem: str = ""
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Method:
    """How the calls of a method go: ``calls``, ``failed`` and ``longest`` since the server started, the rest of late.

    ``seconds`` is the time that the calls of late took together, ``mean`` that of one of them. Without a look before, late is since the
    server started and there is no rate.
    """

    name: str
    calls: int
    failed: int
    longest: float
    seconds: float
    mean: float | None
    per_second: float | None
    waits: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """What follows from a look and the one before it; rates are None where there is nothing to compare with."""

    look: Look
    methods: list[Method] = field(default_factory=list)
    claims_per_second: float | None = None
    calls_per_second: float | None = None

    def share(self, method: Method) -> float | None:
        """The method's part of the time that calls took which wait for nothing, from 0 to 1; None for one that waits."""
        whole = sum(other.seconds for other in self.methods if not other.waits)
        return method.seconds / whole if whole and not method.waits else None


def figures(look: Look, before: Look | None) -> Figures:
    """The figures of a look."""
    elapsed = look.seconds - before.seconds if before is not None else 0.0
    if look.info is None:
        return Figures(look)
    old: dict[str, server_pb2.MethodFigures] | None = None
    if before is not None and before.info is not None and elapsed > 0 and _is_same_process(look.info, before.info):
        old = {method.method: method for method in before.info.methods}
    methods = sorted(
        (_method(method, old, elapsed) for method in look.info.methods),
        key=lambda method: (method.waits, -method.seconds, -method.longest, method.name),
    )
    claims = calls = None
    if before is not None and before.stats is not None and look.stats is not None and elapsed > 0:
        claims = max(0, look.stats.claims - before.stats.claims) / elapsed
    if old is not None:
        calls = sum(method.per_second or 0.0 for method in methods)
    return Figures(look, methods, claims, calls)


def _is_same_process(info: server_pb2.GetServerInfoResponse, before: server_pb2.GetServerInfoResponse) -> bool:
    """Whether figures can be of the process that told those before: none of them ever grows smaller."""
    now = {method.method: method for method in info.methods}
    for old in before.methods:
        new = now.get(old.method, server_pb2.MethodFigures())
        if any(getattr(new, name) < getattr(old, name) for name in ("calls", "failed", "seconds", "longest_seconds")):
            return False
    return True


def _method(new: server_pb2.MethodFigures, old: dict[str, server_pb2.MethodFigures] | None, elapsed: float) -> Method:
    base = (old or {}).get(new.method, server_pb2.MethodFigures())
    calls, seconds = new.calls - base.calls, new.seconds - base.seconds
    return Method(
        new.method,
        new.calls,
        new.failed,
        new.longest_seconds,
        seconds,
        seconds / calls if calls else None,
        calls / elapsed if old is not None else None,
        new.method in _WAITING,
    )


# As text.


def lines(shown: Figures, target: str, owner: str | None, columns: int, rows: int | None) -> list[str]:
    """The figures as lines of at most so many columns, and at most so many lines."""
    look = shown.look
    head = [shorten(f"{look.time:%H:%M:%S} UTC  {clean(target)}: {_server(look.info)}", columns)]
    if look.info is None:
        head += _paragraph("", look.problem, columns)
    else:
        whose = "runs and crons of all owners" if owner is None else f"runs and crons of {clean(owner)}"
        head += [shorten(f"{'':<{_INDENT}}{whose}", columns), *_runs(shown, owner, columns)]
        head += _process(shown, columns)
    most = MOST_METHODS if rows is None else max(0, min(MOST_METHODS, rows - len(head) - 3))
    if look.info is not None and shown.methods and most:
        head += ["", *_methods(shown, most, columns)]
    return head if rows is None else head[:rows]


def _server(info: server_pb2.GetServerInfoResponse | None) -> str:
    if info is None:
        return "no answer"
    schema = f", schema {info.schema_revision}" if info.schema_revision else ""
    return clean(f"storage-service {info.version}, {info.backend}{schema}")


def _runs(shown: Figures, owner: str | None, columns: int) -> list[str]:
    look = shown.look
    if look.stats is None:
        return _paragraph("runs", look.refused, columns)
    stats = look.stats
    status = [f"{name} {short(number)}" for name, number in by_status(stats).items()]
    queue = [f"due {short(stats.due)}", f"delayed {short(stats.delayed)}", f"leased {short(stats.leased)}"]
    if stats.due:
        queue.append(f"oldest waits {span(stats.oldest_wait_seconds)}")
    queue.append(f"claims {_rate(shown.claims_per_second)}{'' if owner is None else ', of all owners'}")
    return [
        *_cells("runs", status, columns),
        *_cells("queue", queue, columns),
        *_cells("crons", [f"due {short(stats.crons_due)}", *([_FIRE] if stats.crons_due else [])], columns),
    ]


def _process(shown: Figures, columns: int) -> list[str]:
    info = shown.look.info
    assert info is not None  # noqa: S101 - whoever calls has looked
    found = []
    if info.HasField("pool"):
        pool = info.pool
        cells = [
            f"{pool.size} of {pool.max_size} connections",
            f"{pool.available} free",
            f"{short(pool.waiting)} calls wait",
        ]
        found += _cells("pool", cells, columns)
    elif info.backend == "postgres":
        found += _cells("pool", ["none: the database is away"], columns)
    failed = sum(method.failed for method in shown.methods)
    ended = sum(method.calls for method in shown.methods)
    cells = [_rate(shown.calls_per_second), f"{short(ended)} since the start", f"{short(failed)} of them failed"]
    return found + _cells("calls", cells, columns)


def _rate(per_second: float | None) -> str:
    return "-/s" if per_second is None else f"{short(round(per_second, 1))}/s"


def _methods(shown: Figures, most: int, columns: int) -> list[str]:
    rows = [("method", "calls/s", "mean", "share", "longest", "failed")]
    for method in shown.methods[:most]:
        share = shown.share(method)
        rows.append(
            (
                # The names are unique over the services.
                clean(method.name.rpartition("/")[2]),
                "-" if method.per_second is None else short(round(method.per_second, 1)),
                "-" if method.mean is None else span(method.mean),
                "waits" if method.waits else "-" if share is None else f"{share:.0%}",
                span(method.longest),
                short(method.failed),
            )
        )
    left = len(shown.methods) - most
    more = f"; {left} more methods" if left > 0 else ""
    about = "longest and failed are since the start" if shown.calls_per_second is not None else "all since the start"
    text = table(rows, right=range(1, 6), cut=(0,), columns=columns)
    return [*(shorten(line, columns) for line in text), shorten(f"({about}{more})", columns)]


def _cells(title: str, cells: Sequence[str], columns: int) -> list[str]:
    """Short texts beside a title, as many on a line as fit."""
    rows = [cells[0]]
    for cell in cells[1:]:
        longer = f"{rows[-1]}  {cell}"
        if width(longer) <= columns - _INDENT:
            rows[-1] = longer
        else:
            rows.append(cell)
    return _beside(title, rows, columns)


def _paragraph(title: str, text: str, columns: int) -> list[str]:
    """A sentence beside a title, on as many lines as it takes."""
    return _beside(title, textwrap.wrap(clean(text), max(20, columns - _INDENT)), columns)


def _beside(title: str, rows: Sequence[str], columns: int) -> list[str]:
    return [shorten(f"{'' if number else title:<{_INDENT}}{row}", columns) for number, row in enumerate(rows)]


# As JSON.


def by_status(stats: runs_pb2.GetRunStatsResponse) -> dict[str, int]:
    """The runs by the word of their status; "other" for statuses that this version does not know, where there are any."""
    found = dict.fromkeys(RUN_STATUS.values(), 0)
    for each in stats.runs:
        word = RUN_STATUS.get(each.status, "other")
        found[word] = found.get(word, 0) + each.count
    return found


def as_json(shown: Figures, target: str, owner: str | None) -> dict[str, Any]:
    """The figures as an object for JSON; times in seconds."""
    look = shown.look
    found: dict[str, Any] = {"time": look.time.isoformat(), "target": target, "problem": look.problem or look.refused}
    if look.info is None:
        return found
    info, stats = look.info, look.stats
    found["server"] = {
        "version": info.version,
        "backend": info.backend,
        "schema_revision": info.schema_revision,
    }
    found["owner_id"] = owner
    found["runs"] = None if stats is None else by_status(stats)
    found["queue"] = None if stats is None else _queue_as_json(stats, shown.claims_per_second)
    found["pool"] = None
    if info.HasField("pool"):
        pool = info.pool
        found["pool"] = {
            "size": pool.size,
            "max_size": pool.max_size,
            "available": pool.available,
            "waiting": pool.waiting,
        }
    found["calls_per_second"] = _rounded(shown.calls_per_second)
    found["methods"] = [
        {
            "method": method.name,
            "calls": method.calls,
            "failed": method.failed,
            "calls_per_second": _rounded(method.per_second),
            "mean_seconds": _rounded(method.mean),
            "longest_seconds": _rounded(method.longest),
            "share": _rounded(shown.share(method)),
            "waits": method.waits,
        }
        for method in shown.methods
    ]
    return found


def _queue_as_json(stats: runs_pb2.GetRunStatsResponse, claims_per_second: float | None) -> dict[str, Any]:
    return {
        "due": stats.due,
        "delayed": stats.delayed,
        "leased": stats.leased,
        "oldest_wait_seconds": _rounded(stats.oldest_wait_seconds),
        "crons_due": stats.crons_due,
        "claims": stats.claims,
        "claims_per_second": _rounded(claims_per_second),
    }


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 6)
