"""The least that a Python gRPC server can do: answer as many bytes as it is asked for. ``python -m benchmarks.echo``.

The first four bytes of a request say how many bytes the answer has. It runs as the service does: grpc.aio on uvloop, in a process of its
own, with a handler that takes and gives bytes.
"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import grpc
import uvloop

PATH = "/benchmarks.Echo/Call"


def request_of(answer_bytes: int, data: bytes) -> bytes:
    """A request with ``data`` in it, to be answered with ``answer_bytes`` bytes."""
    return answer_bytes.to_bytes(4, "big") + data


class _Echo(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in its stubs only
    def __init__(self) -> None:
        answers: dict[bytes, bytes] = {}

        async def answer(request: bytes, _: Any) -> bytes:
            size = request[:4]
            known = answers.get(size)
            if known is None:
                known = answers[size] = bytes(int.from_bytes(size, "big"))
            return known

        self._handler = grpc.unary_unary_rpc_method_handler(answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The one handler, whatever the path."""
        return self._handler


async def serve() -> None:
    """Serve on any free port, which the first line of the output names, until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", 64 * 1024 * 1024)])
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"echo serves on 127.0.0.1:{port} ", flush=True)
    await stop.wait()
    await server.stop(None)


if __name__ == "__main__":
    uvloop.run(serve())
