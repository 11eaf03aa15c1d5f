"""A closed loop: so many callers, each of which calls again as soon as it has its answer."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

#: Makes one call and waits for its answer.
CallOnce = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Load:
    """What one loop measured, or several at the same time. Times in seconds."""

    calls: int
    seconds: float
    p50: float
    p95: float
    p99: float
    client_cpu: float


@dataclass(frozen=True, slots=True)
class Loop:
    """The time of every call of one process, how long all of them took, and the process's CPU. In seconds."""

    times: list[float]
    seconds: float
    client_cpu: float


def measured(loops: Sequence[Loop]) -> Load:
    """What loops that ran at the same time measured together."""
    times = sorted(time for loop in loops for time in loop.times)
    p50, p95, p99 = (percentile(times, part) for part in (50, 95, 99))
    longest = max(loop.seconds for loop in loops)
    return Load(len(times), longest, p50, p95, p99, sum(loop.client_cpu for loop in loops))


async def drive(call: CallOnce, callers: int, seconds: float, most_calls: int) -> Load:
    """Call for so long, or so many times if that is less. A call that fails ends the measurement with its error."""
    return measured([await run(call, callers, seconds, most_calls)])


async def run(call: CallOnce, callers: int, seconds: float, most_calls: int) -> Loop:
    """As :func:`drive`, with the time of every call."""
    times: list[float] = []
    clock = time.perf_counter
    started, cpu = clock(), time.process_time()
    end = started + seconds
    left = most_calls

    async def caller() -> None:
        nonlocal left
        before = clock()
        while before < end and left > 0:
            left -= 1
            await call()
            after = clock()
            times.append(after - before)
            before = after

    await asyncio.gather(*(caller() for _ in range(callers)))
    return Loop(times, clock() - started, time.process_time() - cpu)


def percentile(ordered: list[float], part: float) -> float:
    """The value that ``part`` percent of an ordered list do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * part / 100) - 1)]
