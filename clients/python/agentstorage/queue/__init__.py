"""Runs as a queue: workers that execute them, the events that they leave, and waiting for their end.

    async def handler(run: ClaimedRun) -> dict[str, Any]:
        await run.emit("progress", {"step": 1})
        return {"answer": 42}

    async with Connection("localhost:50051", owner_id="alice") as connection:
        async with Worker(connection, handler, concurrency=4) as worker:
            await worker.wait()

Runs are queued by ``GrpcStorage.runs.submit``. Each is executed at least once: a worker that dies, or loses touch with the
service for longer than its lease, leaves its run to another, which gets it with ``attempt`` one greater. What a handler
does beside the service has to bear that; to the service itself nothing of a worker whose lease is lost gets through.
"""

from agentstorage.queue.claimed import ClaimedRun, Handler, Interrupted, Result, StopReason
from agentstorage.queue.following import follow_run, follow_thread, wait_run
from agentstorage.queue.records import Cancelled, Event, QueuedRun
from agentstorage.queue.worker import Worker

__all__ = [
    "Cancelled",
    "ClaimedRun",
    "Event",
    "Handler",
    "Interrupted",
    "QueuedRun",
    "Result",
    "StopReason",
    "Worker",
    "follow_run",
    "follow_thread",
    "wait_run",
]
