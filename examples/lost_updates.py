"""How concurrent writers and repeated calls lose nothing, with the generated stubs.

Start a server with `make serve`, then run this file. The target comes from AGENTSTORAGE_TARGET, else localhost:50051.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from typing import Any

from agentstorage import Connection
from agentstorage.errors import StatusMismatch, VersionMismatch
from agentstorage.v1 import runs_pb2, runs_pb2_grpc, store_pb2, store_pb2_grpc, threads_pb2, threads_pb2_grpc

OWNER = f"lost-updates-{uuid.uuid4().hex[:8]}"


async def main() -> None:
    """Show merges, expectations and retries."""
    async with Connection(owner_id=OWNER) as connection:
        await merge_metadata(connection)
        await count_with_versions(connection)
        await repeat_a_create(connection)


async def merge_metadata(connection: Connection) -> None:
    """Many writers set different keys of one row at once: each is one statement, so every key stays."""
    threads = connection.stub(threads_pb2_grpc.ThreadServiceStub)
    created = await threads.CreateThread(threads_pb2.CreateThreadRequest(owner_id=OWNER))
    thread_id = created.thread.thread_id

    async def set_key(number: int) -> None:
        metadata = json.dumps({f"key{number}": number})
        await threads.UpdateThread(
            threads_pb2.UpdateThreadRequest(owner_id=OWNER, thread_id=thread_id, metadata=metadata)
        )

    await asyncio.gather(*(set_key(number) for number in range(20)))
    read = await threads.GetThread(threads_pb2.GetThreadRequest(owner_id=OWNER, thread_id=thread_id))
    print("keys that were set:", len(json.loads(read.thread.metadata)) - 1)  # one more is the owner


async def count_with_versions(connection: Connection) -> None:
    """A counter by optimistic locking: a writer whose version is old is refused and reads again."""
    store = connection.stub(store_pb2_grpc.StoreServiceStub)
    place: dict[str, Any] = {"owner_id": OWNER, "namespace": ["counters"], "key": "visits"}
    await store.PutItem(store_pb2.PutItemRequest(**place, value="0", expected_version=0))

    async def add_one() -> None:
        while True:
            item = (await store.GetItem(store_pb2.GetItemRequest(**place))).item
            put = store_pb2.PutItemRequest(**place, value=str(int(item.value) + 1), expected_version=item.version)
            try:
                await store.PutItem(put)
            except VersionMismatch:
                continue
            return

    await asyncio.gather(*(add_one() for _ in range(10)))
    print("counted:", (await store.GetItem(store_pb2.GetItemRequest(**place))).item.value)


async def repeat_a_create(connection: Connection) -> None:
    """A create that is sent twice, as after a lost answer, makes one row; a status moves on once."""
    runs = connection.stub(runs_pb2_grpc.RunServiceStub)
    request = runs_pb2.CreateRunRequest(
        owner_id=OWNER,
        run_id=uuid.uuid4().hex,
        thread_id="thread",
        assistant_id="assistant",
        record_only=True,
        request_id=uuid.uuid4().hex,
    )
    first, second = (await runs.CreateRun(request)).run, (await runs.CreateRun(request)).run
    print("the same run twice:", first == second)
    start = runs_pb2.UpdateRunRequest(
        owner_id=OWNER,
        run_id=first.run_id,
        status=runs_pb2.RUN_STATUS_RUNNING,
        expected_status=[runs_pb2.RUN_STATUS_PENDING],
    )
    await runs.UpdateRun(start)
    try:
        await runs.UpdateRun(start)
    except StatusMismatch as error:
        print("started by somebody already, it is", error.metadata["current"])
    # Its thread was never made; with a thread it would go when the thread does.
    await runs.DeleteRun(runs_pb2.DeleteRunRequest(owner_id=OWNER, run_id=first.run_id))


if __name__ == "__main__":
    asyncio.run(main())
