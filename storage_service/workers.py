"""Several processes on one port, each a server with its own loop and pool, and the one that starts them and replaces those that die.

    supervisor ─> holds the port ─> starts workers: its own command with --as-worker ─> each reports on its standard output that it listens

A worker is a new program and no fork, which gRPC does not survive. It reads its standard input, which ends with the supervisor, however
that ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import errno
import json
import logging
import os
import signal
import socket
import sys
import threading
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

from storage_service.settings import PortTaken, Settings, SettingsError

log = logging.getLogger(__name__)

# What a worker may take to say that it listens beyond its wait for the database, on a machine that does much else.
_START_SECONDS: Final = 60.0
# An end is a quick one when the worker lived for less or never listened.
_YOUNG_SECONDS: Final = 10.0
# Before another worker starts, by how many quick ends in a row there were; after more than are here, the last one.
_PAUSES: Final = (0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0)
# With so many in a row the first start of the service has failed.
_QUICK_ENDS: Final = 6
# What a worker may take to end beyond the time that the settings give it.
_LATE_SECONDS: Final = 10.0
# From linux/prctl.h.
_PR_SET_PDEATHSIG: Final = 1


class WorkerFailed(Exception):
    """A worker ended again and again, so that the service never came to serve with all of them."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a worker says of its start: the store that it serves from and whether it waits for that, or why it cannot serve."""

    store: str = ""
    waits: bool = False
    problem: str = ""

    def send(self) -> None:
        """Tell the supervisor."""
        # On a line of its own, whatever was printed before.
        sys.stdout.write("\n" + json.dumps(asdict(self)) + "\n")
        sys.stdout.flush()
        # Nobody reads what is printed from now on.
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def end_with_supervisor() -> None:
    """Let this process end at once when the one that started it has gone, however that went; for a worker, before all else."""
    if sys.platform == "linux":
        # Also where this process is stopped and reads nothing.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_blocking(sys.stdin.fileno(), True)

    def watch() -> None:
        os.read(sys.stdin.fileno(), 1)
        os.kill(os.getpid(), signal.SIGKILL)

    # A thread, since the loop may be busy.
    threading.Thread(target=watch, name="supervisor", daemon=True).start()


@contextlib.contextmanager
def held_port(settings: Settings) -> Iterator[int]:
    """Hold the port for this process and its workers until the block ends; gives the port, chosen where the settings say 0.

    Raises PortTaken. No other service can take the port, not even between a worker's end and its replacement's start; only a program of the
    same user that asks for SO_REUSEPORT could, which this service does for a port that it holds alone.
    """
    with contextlib.ExitStack() as held:
        port, last = 0, None
        for family, address in _addresses(settings):
            try:
                port = held.enter_context(_hold(family, address, port or settings.port)).getsockname()[1]
            except OSError as error:
                # Of a name's addresses, such as those of localhost, some may not be there.
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise PortTaken(settings) from error
                last = error
        if not port:
            raise PortTaken(settings) from last
        yield port


def _addresses(settings: Settings) -> list[tuple[socket.AddressFamily, str]]:
    """Where gRPC listens for this host."""
    host = settings.host.strip("[]")
    if host in ("0.0.0.0", "::"):  # noqa: S104 - compared
        # Both mean every address, by one socket for both families where there are two.
        return [(socket.AF_INET6, "::") if socket.has_dualstack_ipv6() else (socket.AF_INET, "0.0.0.0")]  # noqa: S104
    try:
        found = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PortTaken(settings) from error
    return [(family, str(address[0])) for family, _, _, _, address in found]


def _hold(family: socket.AddressFamily, address: str, port: int) -> socket.socket:
    """A socket that is bound and does not listen, beside which others with SO_REUSEPORT, and no others, may. Raises OSError.

    Linux lets two sockets with SO_REUSEADDR, which a port that was just in use needs, bind to the same port while neither listens: only
    ``listen`` tells which of them has it. So this one listens, for as long as it takes to go over from SO_REUSEADDR, which would let
    others in, to SO_REUSEPORT. Other systems refuse the second ``bind``.
    """
    held, chosen = _reusing(family, address), _reusing(family, address)
    try:
        if sys.platform == "linux" and not port:
            # Of a port that ``bind`` chose, ``shutdown`` would let go.
            chosen.bind((address, 0))
            port = chosen.getsockname()[1]
        held.bind((address, port))
        if sys.platform == "linux":
            held.listen()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if sys.platform == "linux":
            # It stays bound.
            held.shutdown(socket.SHUT_RDWR)
    except OSError:
        held.close()
        raise
    finally:
        chosen.close()
    return held


def _reusing(family: socket.AddressFamily, address: str) -> socket.socket:
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address != "::"))
    return made


class Workers:
    """The workers on a port that is held. ``all_listen`` is called once, when every one of them listens for the first time."""

    def __init__(
        self, settings: Settings, port: int, environment: dict[str, str], all_listen: Callable[[Report], None]
    ) -> None:
        self._settings = settings
        self._port = port
        self._environment = environment
        self._all_listen = all_listen
        self._processes: dict[int, Process] = {}
        # The numbers of those that have said so and live.
        self._listening: set[int] = set()
        self._listened = False
        self._stopping = asyncio.Event()

    async def run(self, signals: asyncio.Queue[signal.Signals]) -> int:
        """Keep all of them at work until a first signal; then let them end, or kill them at a second. Gives the exit status.

        Raises SettingsError for what a worker says at the first start, and WorkerFailed when that start fails otherwise.
        """
        keeping = [asyncio.create_task(self._keep(number)) for number in range(1, self._settings.workers + 1)]
        told = asyncio.create_task(signals.get())
        awaited: set[asyncio.Task[Any]] = {told, *keeping}
        try:
            await asyncio.wait(awaited, return_when=asyncio.FIRST_COMPLETED)
            told.cancel()
            return await self._stop(keeping, signals)
        finally:
            self._kill()

    async def _stop(self, keeping: list[asyncio.Task[int]], signals: asyncio.Queue[signal.Signals]) -> int:
        self._stopping.set()
        if self._listening:
            log.info("stopping")
        for number, process in self._running():
            # One that does not listen yet has no calls to end.
            process.send_signal(signal.SIGTERM if number in self._listening else signal.SIGKILL)
        ending = asyncio.gather(*keeping, return_exceptions=True)
        second = asyncio.create_task(signals.get())
        seconds = self._settings.drain_seconds + self._settings.grace_seconds + _LATE_SECONDS
        awaited: set[asyncio.Future[Any]] = {ending, second}
        done, _ = await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if not done:
            log.error("not all workers ended within %g s; killing them", seconds)
        self._kill()
        statuses: list[int] = []
        for outcome in await ending:
            if isinstance(outcome, BaseException):
                raise outcome
            statuses.append(outcome)
        if second in done:
            return 128 + second.result()
        second.cancel()
        # One that was at its end already may have gone at the signal itself.
        return 0 if {0, -signal.SIGTERM}.issuperset(statuses) else 1

    def _running(self) -> list[tuple[int, Process]]:
        return [(number, process) for number, process in self._processes.items() if process.returncode is None]

    def _kill(self) -> None:
        for _, process in self._running():
            process.kill()

    async def _keep(self, number: int) -> int:
        """Keep one worker at work until all are stopped; gives the exit status of the last one, 0 for one that never listened."""
        clock = asyncio.get_running_loop().time
        quick = 0
        while True:
            started = clock()
            status, problem = await self._live(number)
            if self._stopping.is_set():
                return status
            quick = quick + 1 if problem or clock() - started < _YOUNG_SECONDS else 0
            how = problem or _ended(status)
            if quick >= _QUICK_ENDS and not self._listened:
                raise WorkerFailed(
                    f"worker {number} ended {quick} times in a row, each before it listened or within {_YOUNG_SECONDS:g} s"
                    f" of its start: {how}"
                )
            # One that was told to stop, to be renewed, is no reason for an alarm.
            level = logging.WARNING if problem or status else logging.INFO
            log.log(level, "worker %d ended (%s); starting another in its place", number, how)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _PAUSES[min(quick, len(_PAUSES) - 1)])
                return 0

    async def _live(self, number: int) -> tuple[int, str]:
        """One worker from its start to its end; gives its exit status, or 0 and why it never listened. Raises SettingsError."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *sys.orig_argv[1:],
                *("--as-worker", str(number), "--port", str(self._port)),
                env=self._environment,
                stdin=PIPE,
                stdout=PIPE,
                # Ctrl-C is for the supervisor, which tells them.
                start_new_session=True,
            )
        except (OSError, RuntimeError) as error:
            # The system may have had no memory, no process or no thread to spare.
            return 0, f"it could not be started: {getattr(error, 'strerror', None) or error}"
        self._processes[number] = process
        try:
            problem = await self._start(number, process)
        finally:
            if number not in self._listening and process.returncode is None:
                process.kill()
            status = await process.wait()
        if number not in self._listening:
            return 0, problem or _ended(status)
        self._listening.remove(number)
        return status, ""

    async def _start(self, number: int, process: Process) -> str:
        """Wait until a worker listens; gives what is wrong when it does not. Raises SettingsError for what it says at the first start."""
        if self._stopping.is_set():
            return ""
        seconds = self._settings.probe_seconds + _START_SECONDS
        try:
            report = await asyncio.wait_for(_report(process), seconds)
        except TimeoutError:
            return f"it did not listen within {seconds:g} s"
        if not report or self._stopping.is_set():
            return ""
        if report.problem:
            if self._listened:
                return report.problem
            raise SettingsError(report.problem)
        log.info("worker %d listens", number)
        self._listening.add(number)
        if not self._listened and len(self._listening) == self._settings.workers:
            self._listened = True
            self._all_listen(report)
        return ""


async def _report(process: Process) -> Report | None:
    """What a worker says of its start, or None when it ends without a word. Any other lines are skipped."""
    while process.stdout:
        try:
            line = await process.stdout.readline()
            if not line:
                break
            said = json.loads(line)
            return Report(said["store"], said["waits"], said["problem"])
        except (ValueError, KeyError, TypeError):
            # Something that the worker loads may print, also more at once than a line may have.
            log.debug("skipped a line of a worker that is no report")
    return None


def _ended(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else f"exit status {status}"
