"""First steps with the Python client: every resource once. Start a server with `make serve`, then run this file.

The target comes from the environment (AGENTSTORAGE_TARGET) and is localhost:50051 without it.
"""

from __future__ import annotations

import asyncio
import uuid

from agentstorage import GrpcStorage

OWNER = f"first-steps-{uuid.uuid4().hex[:8]}"


async def main() -> None:
    """Create, read, change and delete one of each."""
    async with GrpcStorage(owner_id=OWNER) as storage:
        assistant = await storage.assistants.create({"graph_id": "agent", "name": "Tea expert"})
        print("assistant", assistant.name, "is at version", assistant.version)
        changed = await storage.assistants.update(assistant.assistant_id, {"description": "Knows tea"})
        print("after an update at version", changed.version if changed else None)

        thread = await storage.threads.create({"metadata": {"topic": "tea"}})
        await storage.threads.add_state_snapshot(
            thread.thread_id, {"values": {"messages": ["hello"]}, "next": ["answer"]}
        )
        state = await storage.threads.get_state(thread.thread_id)
        print("newest state", state.values if state else None, "then", state.next if state else None)

        run = await storage.runs.create({"thread_id": thread.thread_id, "assistant_id": assistant.assistant_id})
        print("active run is ours:", await storage.runs.get_active_run(thread.thread_id) == run)
        await storage.runs.update_status(run.run_id, "success")
        print("active run after its end:", await storage.runs.get_active_run(thread.thread_id))

        await storage.store.put(["users", OWNER], "drink", {"tea": "green"})
        print("remembered", [item.value for item in await storage.store.search(["users", OWNER])])

        cron = await storage.crons.create(
            {"assistant_id": assistant.assistant_id, "schedule": "0 7 * * 1-5", "timezone": "Europe/Berlin"}
        )
        print("a cron has a next tick:", cron.next_run_date is not None)

        print("another owner sees", await storage.threads.get(thread.thread_id, "somebody-else"))
        print("deleted", await storage.threads.delete(thread.thread_id))
        print("now", await storage.threads.get(thread.thread_id))


if __name__ == "__main__":
    asyncio.run(main())
