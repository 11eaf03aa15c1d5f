"""A LangGraph agent that workers run from the queue. The one that has the run is killed in the middle, and another one finishes it.

Start a server with `make serve`, then run this file:

    python examples/queue_agent.py

It starts two workers and a follower, each a process of its own, queues a run, and kills (`kill -9`) the worker that executes it after
its second step. Its lease of 2 seconds lapses, the other worker claims the run and goes on at the checkpoint of that step. The follower
sees every event of both attempts once, in order. The target comes from AGENTSTORAGE_TARGET, else localhost:50051.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import uuid
from typing import Any, TypedDict

from langchain_core.runnables import RunnableConfig
from langgraph.graph import END, START, StateGraph

from agentstorage import GrpcStorage
from agentstorage.langgraph import AsyncGrpcSaver
from agentstorage.queue import ClaimedRun, Worker, follow_run, wait_run

LEASE_SECONDS = 2.0
STEP_SECONDS = 0.4
STEPS = ("find a train", "find a hotel", "ask for the weather", "write the plan")


class Trip(TypedDict, total=False):
    """What the agent knows."""

    city: str
    plan: list[str]


def build(saver: AsyncGrpcSaver) -> Any:
    """Build the graph: one step after another, each of which takes its time, as a model does."""

    def add(name: str, before: str) -> None:
        async def node(state: Trip) -> Trip:
            await asyncio.sleep(STEP_SECONDS)
            return {"plan": [*state.get("plan", []), f"{name} in {state['city']}"]}

        builder.add_node(name, node)
        builder.add_edge(before, name)

    builder = StateGraph(Trip)
    for name, before in zip(STEPS, (START, *STEPS), strict=False):
        add(name, before)
    builder.add_edge(STEPS[-1], END)
    return builder.compile(checkpointer=saver)


async def work(owner: str, name: str) -> None:
    """Be a worker until SIGTERM."""
    async with GrpcStorage(owner_id=owner) as storage, AsyncGrpcSaver(storage.connection, owner_id=owner) as saver:
        graph = build(saver)

        async def handler(run: ClaimedRun) -> dict[str, Any]:
            config: RunnableConfig = {
                "configurable": {"thread_id": run.thread_id},
                "metadata": {"run_id": run.run_id},
            }
            await run.emit("begin", f"attempt {run.attempt}, {name} begins")
            state = await graph.aget_state(config)
            # A checkpoint of this very run is where an earlier attempt has come to: go on there, without an input.
            is_begun = state.metadata is not None and state.metadata.get("run_id") == run.run_id
            given = None if is_begun else run.kwargs["input"]
            async for update in graph.astream(given, config, stream_mode="updates"):
                for node in update:
                    await run.emit("step", f"attempt {run.attempt}, {name}: {node}")
            return dict((await graph.aget_state(config)).values)

        worker = Worker(storage, handler, worker_id=name, lease_seconds=LEASE_SECONDS)
        await worker.run([signal.SIGTERM])


async def follow(owner: str, run_id: str) -> None:
    """Print the events of a run as they come, to its end."""
    async with GrpcStorage(owner_id=owner) as storage:
        async for event in follow_run(storage, run_id):
            print(event.sequence, f"end: {event.end}" if event.end else event.text(), flush=True)


async def start(*arguments: str, **options: Any) -> asyncio.subprocess.Process:
    """Start this file again as another process."""
    return await asyncio.create_subprocess_exec(sys.executable, __file__, *arguments, **options)


async def main() -> None:
    """Start the others, queue a run, kill who executes it, and wait for its end."""
    owner = f"queue-agent-{uuid.uuid4().hex[:8]}"
    async with GrpcStorage(owner_id=owner) as storage:
        assistant = await storage.assistants.create({"graph_id": "trip"})
        run = await storage.runs.submit(
            uuid.uuid4().hex, assistant.assistant_id, {"input": {"city": "Rome"}}, if_not_exists="create"
        )
        print("queued a run; two workers and a follower start", flush=True)
        workers = {name: await start("work", owner, name) for name in ("worker-1", "worker-2")}
        follower = await start("follow", owner, run.run_id, stdout=asyncio.subprocess.PIPE)
        try:
            async with asyncio.timeout(60):
                await watch(follower.stdout or asyncio.StreamReader(), workers)
                ended = await wait_run(storage, run.run_id)
        finally:
            await stop(*workers.values(), follower)
        thread = await storage.threads.get(run.thread_id)
    print(f"the run ended as {ended.status} after {ended.attempt} attempts; its thread holds the plan:")
    for line in thread.values["plan"] if thread else []:
        print("  ", line)


async def watch(lines: asyncio.StreamReader, workers: dict[str, asyncio.subprocess.Process]) -> None:
    """Print what the follower prints, and kill the worker that has done the second step."""
    is_killed = False
    async for line in lines:
        text = line.decode().strip()
        print("event", text, flush=True)
        if text.endswith(STEPS[1]) and not is_killed:
            is_killed = True
            name = next(name for name in workers if name in text)
            workers[name].kill()
            print(f"killed {name}; its lease lapses after {LEASE_SECONDS:g} seconds", flush=True)


async def stop(*processes: asyncio.subprocess.Process) -> None:
    """End those that have not ended."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
    await asyncio.gather(*(process.wait() for process in processes))


if __name__ == "__main__":
    roles = {"work": work, "follow": follow}
    if len(sys.argv) > 1:
        asyncio.run(roles[sys.argv[1]](*sys.argv[2:]))
    else:
        asyncio.run(main())
