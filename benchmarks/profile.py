"""Where the time goes: the service under load with a profiler inside, and for LangGraph's checkpointers one inside of the client too.

``python -m benchmarks --profile GetThread --peers postgres``. The sampler looks at what the event loop's thread does with every tick of
the CPU's clock (some 250 in a second), which costs little and so changes little; ``--counting`` uses cProfile, which counts calls but
makes small functions look dear. As a module this is the server: ``python -m benchmarks.profile sampling FILE serve --port 0``.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import cProfile
import io
import pstats
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from benchmarks import postgres
from benchmarks.load import drive
from benchmarks.operations import METHODS, Rows
from benchmarks.peers import Service
from benchmarks.run import OPERATIONS, Plan
from benchmarks.savers import GrpcSaver
from storage_service.cli import main as service

_INTERVAL = 0.001
_SHOWN = 45


async def show(operation: str, plan: Plan, *, counting: bool) -> None:
    """Load one operation and print the functions that took the time, on each backend that the plan names."""
    for backend in ("memory", "postgres"):
        if backend in plan.peers:
            with tempfile.TemporaryDirectory(prefix="benchmark") as directory:
                async with postgres.running(Path(directory), backend == "postgres") as database:
                    await _show(operation, plan, counting, backend, database.url, Path(directory) / "profile")


async def _show(operation: str, plan: Plan, counting: bool, backend: str, url: str, file: Path) -> None:
    service = Service(backend, url, {"STORAGE_LOG_LEVEL": plan.log_level})
    service.arguments = [
        "-m",
        "benchmarks.profile",
        "counting" if counting else "sampling",
        str(file),
        *service.arguments[2:],
    ]
    rows = Rows.of_size(plan.payloads[0])
    callers = plan.callers[0] if len(plan.callers) == 1 else 16
    here = _profiler(counting)
    async with contextlib.AsyncExitStack() as stack:
        peer: Service | GrpcSaver = service
        await service.open()
        stack.push_async_callback(service.close)
        if operation not in METHODS:
            peer = GrpcSaver("AsyncGrpcSaver", service, exchange=True)
            await peer.open()
            stack.push_async_callback(peer.close)
        await peer.prepare(rows)
        call = await peer.caller(OPERATIONS[operation], rows)
        # Tells the server to begin: what came before was the rows.
        service.server.signal(signal.SIGUSR1)
        if peer is not service:
            here.begin()
        cpu = service.server_cpu()
        load = await drive(call, callers, max(plan.seconds, 5), sys.maxsize)
        cpu = service.server_cpu() - cpu
        client = "" if peer is service else f"\nThe client:\n{here.end()}"
    print(
        f"\n{operation} on {backend}, {plan.payloads[0]} bytes, {callers} callers, under the profiler: "
        f"{load.calls / load.seconds:.0f} calls/s, CPU per call: server {cpu / load.calls * 1e6:.0f} us, "
        f"client {load.client_cpu / load.calls * 1e6:.0f} us\n"
    )
    print(f"The server:\n{await asyncio.to_thread(file.read_text)}{client}", end="")


# The profilers.


class _Sampler:
    """Looks at the stack of the main thread with each tick of CPU that the process uses."""

    def __init__(self) -> None:
        self._own: collections.Counter[str] = collections.Counter()
        self._all: collections.Counter[str] = collections.Counter()
        self._samples = 0

    def begin(self) -> None:
        self._started = time.process_time(), time.thread_time()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL, _INTERVAL)

    def _look(self, _: int, frame: FrameType | None) -> None:
        self._samples += 1
        seen = set()
        first = True
        while frame is not None:
            name = _name_of(frame)
            if first:
                self._own[name] += 1
                first = False
            if name not in seen:
                seen.add(name)
                self._all[name] += 1
            frame = frame.f_back

    def end(self) -> str:
        signal.setitimer(signal.ITIMER_PROF, 0)
        process, thread = (
            now - then for now, then in zip((time.process_time(), time.thread_time()), self._started, strict=True)
        )
        lines = [
            f"{self._samples} samples; {thread / process:.0%} of the CPU was the event loop's thread, the rest grpc's.",
            "Time inside of a function written in C counts as its caller's own.",
        ]
        modules: collections.Counter[str] = collections.Counter()
        for name, count in self._own.items():
            modules[name.split()[-1].partition(":")[0]] += count
        # What is in every sample is the way to the loop.
        called = collections.Counter({name: count for name, count in self._all.items() if count < self._samples})
        for title, counts in (("own, by file", modules), ("own", self._own), ("with what it calls", called)):
            lines += ["", f"{title}:"]
            lines += [f"{count / self._samples:7.1%}  {name}" for name, count in counts.most_common(_SHOWN)]
        return "\n".join(lines) + "\n"


class _Counter:
    """cProfile."""

    def __init__(self) -> None:
        self._profiler = cProfile.Profile()

    def begin(self) -> None:
        self._profiler.enable()

    def end(self) -> str:
        self._profiler.disable()
        text = io.StringIO()
        for order in ("tottime", "cumtime"):
            pstats.Stats(self._profiler, stream=text).strip_dirs().sort_stats(order).print_stats(_SHOWN)
        return text.getvalue()


def _profiler(counting: bool) -> _Sampler | _Counter:
    return _Counter() if counting else _Sampler()


def _name_of(frame: FrameType) -> str:
    code = frame.f_code
    return f"{code.co_qualname}  {'/'.join(Path(code.co_filename).parts[-2:])}:{code.co_firstlineno}"


def _serve(way: str, file: Path, arguments: list[str]) -> None:
    """Run the service's command with a profiler that begins at SIGUSR1, and leave the report in a file."""
    profiler = _profiler(way == "counting")
    signal.signal(signal.SIGUSR1, lambda *_: profiler.begin())
    with contextlib.suppress(SystemExit):
        service(arguments)
    file.write_text(profiler.end())


if __name__ == "__main__":
    _serve(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
