"""A client in a process of its own, for servers that one client cannot load: ``python -m benchmarks.client TARGET``.

It reads an order a line, as JSON, does it, and answers with a line of JSON. Calls go through ``agentstorage`` as it is by default, over the
exchange.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from agentstorage import Connection
from agentstorage.v1 import store_pb2_grpc, threads_pb2_grpc
from benchmarks.load import CallOnce, Loop, run
from benchmarks.operations import METHODS, Operation, Rows

# The times of a repeat's calls are one line.
_LINE_BYTES = 64 * 2**20


@dataclass(frozen=True, slots=True)
class Order:
    """What a client is to call, how, and for how long; ``begin`` is the part of the rows that it begins behind, from 0 to 1."""

    operation: str
    payload: int
    callers: int
    seconds: float
    most_calls: int
    begin: float


def through(connection: Connection, operation: Operation, rows: Rows) -> CallOnce:
    """What makes one call of an operation through the generated stubs."""
    stub_class: Any = (
        threads_pb2_grpc.ThreadServiceStub
        if operation.path.startswith("ThreadService/")
        else store_pb2_grpc.StoreServiceStub
    )
    method = getattr(connection.stub(stub_class), operation.name)
    requests = operation.requests(rows)
    return lambda: method(next(requests))


class Client:
    """A client process, as the one who gives its orders sees it."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, target: str) -> Client:
        """Start one that calls the server of a target."""
        arguments = ("-m", "benchmarks.client", target)
        return cls(
            await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=PIPE, stdout=PIPE, limit=_LINE_BYTES)
        )

    async def do(self, order: Order) -> Loop:
        """Have an order done. Raises RuntimeError when the client ended over it; it has then said why on standard error."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(order)).encode() + b"\n")
        answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"a client ended over {order}")
        return Loop(**json.loads(answer))

    async def close(self) -> None:
        """End it."""
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


async def _work(target: str) -> None:
    known: dict[int, Rows] = {}
    async with Connection(target) as connection:
        while line := await asyncio.to_thread(sys.stdin.readline):
            order = Order(**json.loads(line))
            rows = known.setdefault(order.payload, Rows.of_size(order.payload)).turned(order.begin)
            call = through(connection, METHODS[order.operation], rows)
            loop = await run(call, order.callers, order.seconds, order.most_calls)
            print(json.dumps(asdict(loop)), flush=True)


if __name__ == "__main__":
    uvloop.run(_work(sys.argv[1]))
