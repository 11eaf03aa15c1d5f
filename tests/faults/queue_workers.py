"""A process of workers, or of a scheduler, that a test kills and freezes, and the crew of all of them.

What a worker does and is answered goes to a file, a line of JSON at a time by one write, so that it is there whatever becomes of the
process. The times in it are the database's. ``python -m tests.faults.queue_workers --help``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import grpc

from agentstorage.v1 import (
    checkpoints_pb2,
    checkpoints_pb2_grpc,
    crons_pb2,
    crons_pb2_grpc,
    runs_pb2,
    runs_pb2_grpc,
)

_Answer = TypeVar("_Answer")
# After which the outcome of a call is not known, and it may be sent again.
_UNKNOWN: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_REFUSED: Final = (grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND)
# The ends that workers give to runs, and how often each.
_ENDS: Final = {
    runs_pb2.RUN_STATUS_SUCCESS: 20,
    runs_pb2.RUN_STATUS_ERROR: 2,
    runs_pb2.RUN_STATUS_TIMEOUT: 1,
    runs_pb2.RUN_STATUS_INTERRUPTED: 1,
}
#: Whose the runs and crons are.
OWNER: Final = "crew"
_ROOT: Final = Path(__file__).parents[2]
# How often a call about a lease is sent, and how long each may take.
_SENDINGS, _CALL_SECONDS = 12, 2.0
_STARTING_SECONDS: Final = 30.0


class _LostError(Exception):
    """The lease is another's, or nobody's, or what became of a call was never known."""


@dataclass
class Worker:
    """Claims runs, one at a time, and ends them; goes on with a lease as long as it is not refused."""

    name: str
    stubs: Sequence[Any]
    lease_seconds: float
    work_seconds: float
    note: Callable[..., None]
    dice: random.Random
    stopped: asyncio.Event
    checkpoints: Sequence[Any] = ()
    slow_share: float = 0.0

    async def run(self) -> None:
        """Work until the process is told to stop."""
        while not self.stopped.is_set():
            request = runs_pb2.ClaimRunsRequest(
                owner_id=OWNER, worker_id=self.name, wait_seconds=0.5, lease_seconds=self.lease_seconds
            )
            try:
                answer = await self.dice.choice(self.stubs).ClaimRuns(request, timeout=3)
            except grpc.aio.AioRpcError as error:
                if error.code() not in _UNKNOWN:
                    raise
                await asyncio.sleep(0.05)
                continue
            for claimed in answer.runs:
                try:
                    await self._work(claimed)
                except _LostError:
                    continue

    async def _work(self, claimed: runs_pb2.ClaimedRun) -> None:
        run, held = claimed.run, {"run": claimed.run.run_id, "token": claimed.lease_token}
        lapses = run.lease.expires_at.ToMicroseconds()
        self.note(
            "claimed",
            **held,
            thread=run.thread_id,
            worker=self.name,
            attempt=run.attempt,
            since=lapses - round(self.lease_seconds * 1_000_000),
            lapses=lapses,
        )
        last = run.last_sequence
        if self.checkpoints:
            await self._checkpoint(run, claimed.lease_token)
        for step in range(self.dice.randrange(5)):
            last = await self._append(held, last, step)
            # Now and then longer than the lease lasts: what comes then must be refused.
            slow = self.dice.random() < self.slow_share
            await asyncio.sleep(self.lease_seconds * 1.5 if slow else self.dice.uniform(0, self.work_seconds))
            if self.dice.random() < 0.5 and await self._beat(held):
                await self._finish(held, runs_pb2.RUN_STATUS_INTERRUPTED)
                return
        if self.dice.random() < 0.05:
            await self._release(held)
        else:
            await self._finish(held, self.dice.choices(tuple(_ENDS), tuple(_ENDS.values()))[0])

    async def _checkpoint(self, run: runs_pb2.Run, token: int) -> None:
        """Leave a checkpoint of the run, as a graph does after a step."""
        request = checkpoints_pb2.PutCheckpointRequest(
            owner_id=OWNER,
            thread_id=run.thread_id,
            checkpoint_id=f"{token:032x}",
            checkpoint='{"v": 4, "channel_versions": {}, "channel_values": {}}',
            metadata=json.dumps({"run_id": run.run_id}),
        )
        await self.dice.choice(self.checkpoints).PutCheckpoint(request, timeout=10)

    async def _append(self, held: dict[str, Any], last: int, step: int) -> int:
        data = [f"{held['token']}/{step}/{number}" for number in range(self.dice.randrange(1, 4))]
        self.note("appending", **held, first=last + 1, data=data)
        request = runs_pb2.AppendRunEventsRequest(
            **_held(held),
            first_sequence=last + 1,
            events=[runs_pb2.NewRunEvent(type="step", data=text.encode()) for text in data],
        )
        answer, _ = await self._call("AppendRunEvents", request, held)
        self.note("appended", **held, first=last + 1)
        return int(answer.last_sequence)

    async def _beat(self, held: dict[str, Any]) -> int:
        self.note("beating", **held)
        request = runs_pb2.HeartbeatRunRequest(**_held(held), lease_seconds=self.lease_seconds)
        answer, again = await self._call("HeartbeatRun", request, held)
        lapses = answer.expires_at.ToMicroseconds()
        since = lapses - round(self.lease_seconds * 1_000_000)
        self.note("beat", **held, lapses=lapses, at=since, again=again)
        return int(answer.cancel)

    async def _finish(self, held: dict[str, Any], status: runs_pb2.RunStatus) -> None:
        self.note("finishing", **held, status=status)
        values = json.dumps({"by": str(held["token"])})
        request = runs_pb2.FinishRunRequest(**_held(held), status=status, values=values)
        answer, _ = await self._call("FinishRun", request, held)
        self.note("finished", **held, at=answer.run.finished_at.ToMicroseconds() if answer.HasField("run") else 0)

    async def _release(self, held: dict[str, Any]) -> None:
        self.note("releasing", **held)
        await self._call("ReleaseRun", runs_pb2.ReleaseRunRequest(**_held(held)), held)
        self.note("released", **held)

    async def _call(self, method: str, request: Any, held: dict[str, Any]) -> tuple[Any, bool]:
        """Send a call until it is known what became of it; gives its answer, and whether it was sent before. Raises _LostError."""
        for sending in range(_SENDINGS):
            try:
                answer = await getattr(self.dice.choice(self.stubs), method)(request, timeout=_CALL_SECONDS)
                return answer, sending > 0
            except grpc.aio.AioRpcError as error:
                if error.code() in _REFUSED:
                    self.note("refused", **held, call=method, again=sending > 0)
                    if method == "AppendRunEvents":
                        # A zombie does not give up at once.
                        await self._beat(held)
                    raise _LostError(method) from None
                if error.code() not in _UNKNOWN:
                    raise
                await asyncio.sleep(0.1)
        raise _LostError(method)


def _held(held: dict[str, Any]) -> dict[str, Any]:
    return {"owner_id": OWNER, "run_id": held["run"], "lease_token": held["token"]}


async def fire(stubs: Sequence[Any], note: Callable[..., None], dice: random.Random, stopped: asyncio.Event) -> None:
    """Fire crons until the process is told to stop."""
    while not stopped.is_set():
        request = crons_pb2.FireDueCronsRequest(owner_id=OWNER, limit=dice.choice((1, 5, 0)))
        try:
            answer = await dice.choice(stubs).FireDueCrons(request, timeout=3)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _UNKNOWN:
                raise
            answer = crons_pb2.FireDueCronsResponse()
        for fired in answer.crons:
            note("fired", cron=fired.cron_id, tick=fired.tick.ToMicroseconds(), outcome=fired.outcome, run=fired.run_id)
        await asyncio.sleep(dice.uniform(0, 0.1))


async def _serve(arguments: argparse.Namespace) -> None:
    file = os.open(arguments.out, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)

    def note(what: str, **entry: Any) -> None:
        os.write(file, (json.dumps({"what": what, **entry}) + "\n").encode())

    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    # A server that comes back is to be noticed at once.
    options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
    channels = [grpc.aio.insecure_channel(target, options=options) for target in arguments.target]
    dice = random.Random(arguments.seed)
    if arguments.schedule:
        work = [fire([crons_pb2_grpc.CronServiceStub(channel) for channel in channels], note, dice, stopped)]
    else:
        stubs = [runs_pb2_grpc.RunServiceStub(channel) for channel in channels]
        checkpoints = (
            [checkpoints_pb2_grpc.CheckpointServiceStub(channel) for channel in channels]
            if arguments.checkpoints
            else []
        )
        work = [
            Worker(
                f"{arguments.name}/{number}",
                stubs,
                arguments.lease,
                arguments.work,
                note,
                random.Random(dice.random()),
                stopped,
                checkpoints,
                arguments.slow,
            ).run()
            for number in range(arguments.workers)
        ]
    note("started")
    await asyncio.gather(*work)
    for channel in channels:
        await channel.close(None)


@dataclass
class Crew:
    """Processes of workers, or of schedulers, with what breaks them."""

    directory: Path
    targets: Sequence[str]
    arguments: Sequence[str]
    dice: random.Random
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=lambda: {"killed": 0, "frozen": 0})
    _started: int = 0

    def start(self, count: int = 1) -> None:
        """Start more processes."""
        for _ in range(count):
            name = f"p{self._started}"
            self._started += 1
            command = [sys.executable, "-m", "tests.faults.queue_workers", "--name", name, *self.arguments]
            for target in self.targets:
                command += ["--target", target]
            command += ["--out", str(self.directory / f"{name}.jsonl"), "--seed", str(self.dice.randrange(1_000_000))]
            with (self.directory / f"{name}.err").open("wb") as errors:
                self.running.append(subprocess.Popen(command, cwd=_ROOT, stdin=subprocess.DEVNULL, stderr=errors))

    async def until_started(self) -> None:
        """Wait until each process that runs is at work."""
        deadline = time.monotonic() + _STARTING_SECONDS
        while sum(entry["what"] == "started" for entry in self.entries()) < self._started - self.counts["killed"]:
            assert time.monotonic() < deadline, self.troubles()
            await asyncio.sleep(0.05)

    def disturb(self, seconds: float) -> None:
        """Kill a process, for which another one comes, or freeze one for some time up to so long."""
        process = self.dice.choice(self.running)
        if self.dice.random() < 0.4:
            self.running.remove(process)
            process.kill()
            process.wait(timeout=10)
            self.counts["killed"] += 1
            self.start()
        else:
            self.counts["frozen"] += 1
            process.send_signal(signal.SIGSTOP)
            asyncio.get_running_loop().call_later(self.dice.uniform(0.1, seconds), process.send_signal, signal.SIGCONT)

    async def keep_disturbing(self, seconds: float, pause: float, most: int) -> None:
        """Break one after the other, up to so many, and wait until cancelled; a process that is frozen then goes on."""
        try:
            for _ in range(most):
                await asyncio.sleep(self.dice.uniform(0, 2 * pause))
                self.disturb(seconds)
            await asyncio.Event().wait()
        finally:
            self.thaw()

    def thaw(self) -> None:
        """Let every process go on."""
        for process in self.running:
            process.send_signal(signal.SIGCONT)

    async def stop(self) -> None:
        """Let them end what they are at. AssertionError when one fails."""
        for process in self.running:
            process.send_signal(signal.SIGTERM)
        statuses = [await asyncio.to_thread(process.wait, 30) for process in self.running]
        self.running.clear()
        # One that had only just been started does not know yet that it is to end what it is at.
        assert set(statuses) <= {0, -signal.SIGTERM}, (statuses, self.troubles())

    def kill(self) -> None:
        """End all, however they are."""
        for process in self.running:
            process.kill()
            process.wait(timeout=10)
        self.running.clear()

    def troubles(self) -> list[str]:
        """The last words of processes that failed."""
        return [text[-2000:] for path in sorted(self.directory.glob("*.err")) if (text := path.read_text())]

    def entries(self) -> Iterator[dict[str, Any]]:
        """Everything that all of them noted."""
        for path in sorted(self.directory.glob("*.jsonl")):
            for line in path.read_text().splitlines():
                yield json.loads(line)

    def leased_entries(self) -> Iterator[dict[str, Any]]:
        """What workers noted of their leases."""
        return (entry for entry in self.entries() if entry["what"] != "started")


@asynccontextmanager
async def crew(
    directory: Path, targets: Sequence[str], arguments: Sequence[str], count: int, dice: random.Random
) -> AsyncIterator[Crew]:
    """So many processes at work, which end with the block."""
    found = Crew(directory, targets, arguments, dice)
    try:
        found.start(count)
        await found.until_started()
        yield found
    finally:
        found.kill()


async def gather_some(calls: Sequence[Callable[[], Awaitable[_Answer]]], at_once: int = 32) -> list[_Answer]:
    """The answers of many calls, of which so many are made at once."""
    gate = asyncio.Semaphore(at_once)

    async def one(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        async with gate:
            return await call()

    return await asyncio.gather(*(one(call) for call in calls))


def main() -> None:
    """Work, or fire crons, until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.queue_workers", description=__doc__)
    parser.add_argument("--name", required=True, help="of the process")
    parser.add_argument("--target", action="append", required=True, help="a server; for each call one is drawn")
    parser.add_argument("--out", required=True, help="the file of its history")
    parser.add_argument("--seed", type=int, default=0, help="of what it draws")
    parser.add_argument("--workers", type=int, default=2, help="workers of the process")
    parser.add_argument("--lease", type=float, default=0.6, help="seconds of a lease")
    parser.add_argument("--work", type=float, default=0.03, help="most seconds between two calls about a lease")
    parser.add_argument("--slow", type=float, default=0.0, help="share of the steps that take longer than a lease")
    parser.add_argument("--checkpoints", action="store_true", help="leave a checkpoint of each run")
    parser.add_argument("--schedule", action="store_true", help="fire crons instead of working")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
