"""Checkpoints of many threads, and graphs that run, while the server and Postgres are killed.

Whatever dies, no acknowledged checkpoint is lost, each one that is there has all of its values and its parent, and a graph that was cut
short goes on from its last checkpoint to the end that it would have come to.

For longer: ``CHECKPOINT_KILLS=100 pytest tests/faults/test_checkpoint_faults.py``; the figures are properties of the test in what
``-o junit_family=xunit1 --junitxml=FILE`` writes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from langgraph.checkpoint.base import ChannelVersions, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from agentstorage import errors
from agentstorage.langgraph import AsyncGrpcSaver
from tests.faults.cluster import Cluster
from tests.faults.servers import Record, Serve, troubles, until
from tests.langgraph.checkpoints import checkpoint, config, id_of, metadata
from tests.langgraph.graphs import delta_graph
from tests.service import ServerProcess

KILLS = int(os.environ.get("CHECKPOINT_KILLS", "3"))
WRITERS, CONVERSATIONS = 24, 8
TASKS = ("first", "second")
# So many more calls are acknowledged between two kills.
CALLS_BETWEEN = 300
_NUMBERS = iter(range(1, 1_000_000_000))


class Failing:
    """Counts calls that were acknowledged and calls that failed."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.failed = 0
        self.stopped = False

    async def tried(self, work: Awaitable[Any]) -> Any:
        """What a call gives; None when the service could not be reached."""
        try:
            result = await work
        except (errors.Unavailable, errors.DeadlineExceeded):
            self.failed += 1
            await asyncio.sleep(0.05)
            return None
        self.acknowledged += 1
        return result

    async def until_more(self, calls: int) -> None:
        """Wait until so many more calls are acknowledged."""
        wanted = self.acknowledged + calls

        async def are() -> bool:
            return self.acknowledged >= wanted

        await until(are, 60)


class Writer:
    """Writes one thread: each checkpoint follows the last one that was acknowledged, and two tasks write for it."""

    def __init__(self, saver: AsyncGrpcSaver, thread: str, failing: Failing) -> None:
        self.saver = saver
        self.thread = thread
        self._failing = failing
        # Of each checkpoint, its values and its parent; of each task of one, what it wrote.
        self.attempted: dict[str, tuple[dict[str, Any], str | None]] = {}
        self.acked: list[str] = []
        self.writes: dict[tuple[str, str], list[tuple[str, str, Any]]] = {}
        self.acked_writes: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Write until all is stopped."""
        last = config(self.thread)
        kept = {"kept": next(_NUMBERS)}
        kept_version = f"{next(_NUMBERS):032}.5"
        while not self._failing.stopped:
            number = next(_NUMBERS)
            values = {"kept": kept, "messages": [f"message {number}"] * (number % 40), "number": number}
            new: ChannelVersions = {"messages": f"{number:032}.5", "number": f"{number:032}.5"}
            if not self.acked:
                # Written with the first checkpoint that is there, and by its version in all after it.
                new["kept"] = kept_version
            made = checkpoint(values, {**new, "kept": kept_version})
            self.attempted[made["id"]] = (values, last["configurable"].get("checkpoint_id"))
            where = await self._failing.tried(self.saver.aput(last, made, metadata(len(self.acked)), new))
            if where is None:
                continue
            last = where
            self.acked.append(made["id"])
            await asyncio.gather(*(self._write(last, task) for task in TASKS))

    async def _write(self, where: Any, task: str) -> None:
        number = next(_NUMBERS)
        written = [("messages", f"{task} {number}"), ("number", number)]
        self.writes[id_of(where), task] = [(task, channel, value) for channel, value in written]
        if await self._failing.tried(_true(self.saver.aput_writes(where, written, task))):
            self.acked_writes.add((id_of(where), task))

    async def check(self) -> None:
        """Compare what is there with what was written."""
        found = {id_of(one.config): one async for one in self.saver.alist(config(self.thread))}
        assert set(self.acked) <= found.keys() <= self.attempted.keys()
        for id, one in found.items():
            values, parent = self.attempted[id]
            assert one.checkpoint["channel_values"] == values
            assert (id_of(one.parent_config) if one.parent_config else None) == parent
            assert parent is None or parent in found
            for task in TASKS:
                kept = [write for write in _writes(one) if write[0] == task]
                # All that a task wrote in one call, or nothing of a call that failed.
                assert kept == self.writes.get((id, task)) or (not kept and (id, task) not in self.acked_writes)
        newest = await self.saver.aget_tuple(config(self.thread))
        assert newest is not None
        assert id_of(newest.config) == max(found)


def _writes(found: CheckpointTuple) -> list[tuple[str, str, Any]]:
    return found.pending_writes or []


async def _true(work: Awaitable[Any]) -> bool:
    await work
    return True


class Conversation:
    """Runs a graph turn after turn in one thread, and goes on with a turn that was cut short."""

    def __init__(self, saver: AsyncGrpcSaver, thread: str, failing: Failing) -> None:
        self._graph = delta_graph(saver)
        self._config = config(thread)
        self._failing = failing
        self._turns = 0
        self._result: Any = None

    async def run(self) -> None:
        """Talk until all is stopped."""
        while not self._failing.stopped:
            while (result := await self._failing.tried(self._go_on())) is None:
                pass
            self._result = result
            self._turns += 1

    async def _go_on(self) -> Any:
        """Run the turn, as far as it has not run."""
        state = await self._graph.aget_state(self._config)
        if state.values.get("turn") != self._turns:
            return await self._graph.ainvoke(_said(self._turns), self._config)
        # A task whose writes are kept is not among the next ones, though the step that it is of has not ended.
        return await self._graph.ainvoke(None, self._config) if state.tasks else state.values

    async def check(self) -> None:
        """Compare it with a conversation that nothing happened to."""
        graph, thread, result = delta_graph(InMemorySaver()), config("undisturbed"), None
        for turn in range(self._turns):
            result = await graph.ainvoke(_said(turn), thread)
        assert self._turns
        assert self._result == result
        assert (await self._graph.aget_state(self._config)).values == result


def _said(turn: int) -> dict[str, Any]:
    return {"log": [f"in{turn}"], "rare": ["r"], "turn": turn}


async def kill_things(failing: Failing, server: ServerProcess, cluster: Cluster) -> None:
    """Kill the server, Postgres and both, in turn."""

    def of_server() -> None:
        server.kill()
        server.start()

    def of_postgres() -> None:
        cluster.kill()
        cluster.start()

    kinds: list[list[Callable[[], None]]] = [[of_server], [of_postgres], [of_server, of_postgres]]
    try:
        for number in range(KILLS):
            await failing.until_more(CALLS_BETWEEN)
            await asyncio.gather(*(asyncio.to_thread(kill) for kill in kinds[number % len(kinds)]))
        await failing.until_more(CALLS_BETWEEN)
    finally:
        failing.stopped = True


@pytest.mark.timeout(KILLS * 20 + 120)
async def test_no_acknowledged_checkpoint_is_lost(
    cluster: Cluster, serve: Serve, database: str, owner: str, record_property: Record
) -> None:
    server = await serve(database)
    failing = Failing()
    async with AsyncGrpcSaver(server.target, owner_id=owner) as saver:
        writers = [Writer(saver, f"{owner}-{number}", failing) for number in range(WRITERS)]
        conversations = [Conversation(saver, f"{owner}-talk-{number}", failing) for number in range(CONVERSATIONS)]
        everyone: list[Writer | Conversation] = [*writers, *conversations]
        async with asyncio.TaskGroup() as group:
            for work in (kill_things(failing, server, cluster), *(one.run() for one in everyone)):
                group.create_task(work)
        for one in everyone:
            await one.check()
    for name, value in {
        "kills": KILLS,
        "acknowledged checkpoints": sum(len(writer.acked) for writer in writers),
        "acknowledged writes": sum(len(writer.acked_writes) for writer in writers),
        "failed calls": failing.failed,
    }.items():
        record_property(name, value)
    assert troubles(server.log) == []
