"""The Python client for the tests of clients in other languages, told what to call line by line.

Started as ``python -m tests.clients.cross_language TARGET [plain]``, it reads a line of JSON for each call, makes the
calls one after another, and answers each with a line of JSON: ``{"result": ...}``, or ``{"error": ..., "message": ...}``
with the name of the class. It ends with its input. Integers of any size are integers, times are text.

    {"storage": ["threads", "get"], "arguments": ["t1", "alice"]}      of the drop-in storage
    {"method": "GetThread", "request": {"thread_id": "t1"}}            of the generated client, in the JSON of protobuf
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message_factory import GetMessageClass

from agentstorage import Connection, GrpcStorage
from agentstorage.v1 import (
    assistants_pb2_grpc,
    checkpoints_pb2_grpc,
    crons_pb2_grpc,
    owner_pb2_grpc,
    runs_pb2_grpc,
    server_pb2_grpc,
    store_pb2_grpc,
    threads_pb2_grpc,
)
from tests.service import METHODS

#: The generated stub of each service.
STUBS = {
    "AssistantService": assistants_pb2_grpc.AssistantServiceStub,
    "ThreadService": threads_pb2_grpc.ThreadServiceStub,
    "RunService": runs_pb2_grpc.RunServiceStub,
    "StoreService": store_pb2_grpc.StoreServiceStub,
    "CronService": crons_pb2_grpc.CronServiceStub,
    "CheckpointService": checkpoints_pb2_grpc.CheckpointServiceStub,
    "OwnerService": owner_pb2_grpc.OwnerServiceStub,
    "ServerService": server_pb2_grpc.ServerServiceStub,
}


async def call_as_json(connection: Connection, name: str, fields: dict[str, Any]) -> Any:
    """Call a method with a request as JSON and give its response as JSON, that of a stream as ``messages``."""
    method = METHODS[name]
    request = ParseDict(fields, GetMessageClass(method.input_type)())
    call = getattr(connection.stub(STUBS[method.containing_service.name]), name)(request)
    if method.server_streaming:
        return {"messages": [_as_json(message) async for message in call]}
    return _as_json(await call)


def _as_json(message: Any) -> Any:
    return MessageToDict(message, preserving_proto_field_name=True)


def _plain(value: Any) -> Any:
    """What a drop-in call returned, as JSON has it."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.to_dict() if hasattr(value, "to_dict") else value


async def _answer(storage: GrpcStorage, command: dict[str, Any]) -> Any:
    if "method" in command:
        return await call_as_json(storage.connection, command["method"], command["request"])
    resource, name = command["storage"]
    return _plain(await getattr(getattr(storage, resource), name)(*command["arguments"]))


async def _main(target: str, exchange: bool) -> None:
    async with GrpcStorage(target, exchange=exchange) as storage:
        while line := await asyncio.to_thread(sys.stdin.readline):
            try:
                answer = {"result": await _answer(storage, json.loads(line))}
            # Whatever it is, the one who asked has to hear of it.
            except Exception as error:
                answer = {"error": type(error).__name__, "message": str(error)}
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    sys.stdin.reconfigure(encoding="utf-8")  # type: ignore[union-attr]  # a text file, whatever its type says
    asyncio.run(_main(sys.argv[1], "plain" not in sys.argv[2:]))
