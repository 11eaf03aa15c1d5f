"""The server describes itself to tools: reflection under both of its names, and grpcurl as a user runs it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2

from tests.faults.servers import Serve
from tests.service import METHODS, ServerProcess

ROOT = Path(__file__).parents[2]
GRPCURL = ROOT / ".tools/bin/grpcurl"
BUF = ROOT / ".venv/bin/buf"
SERVICES = sorted({method.containing_service.full_name for method in METHODS.values()})
VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")


async def ask(target: str, version: str, **question: Any) -> reflection_pb2.ServerReflectionResponse:
    """Ask the reflection service one question. v1 has the messages of v1alpha under another name."""
    async with grpc.aio.insecure_channel(target) as channel:
        call = channel.stream_stream(
            f"/{version}/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )(iter([reflection_pb2.ServerReflectionRequest(**question)]), timeout=10)
        (answer,) = [answer async for answer in call]
    assert isinstance(answer, reflection_pb2.ServerReflectionResponse)
    return answer


async def has_none(target: str, version: str) -> None:
    """Asserts that the server does not know the reflection service."""
    async with grpc.aio.insecure_channel(target) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(f"/{version}/ServerReflectionInfo", bytes, bytes)(b"", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("version", VERSIONS)
async def test_lists_and_describes(server: ServerProcess, version: str) -> None:
    listed = await ask(server.target, version, list_services="")
    names = {service.name for service in listed.list_services_response.service}
    assert {*SERVICES, "grpc.health.v1.Health", VERSIONS[1]} <= names
    for name in SERVICES:
        described = await ask(server.target, version, file_containing_symbol=name)
        files = [
            FileDescriptorProto.FromString(file) for file in described.file_descriptor_response.file_descriptor_proto
        ]
        assert any(name == f"{file.package}.{service.name}" for file in files for service in file.service)
    nothing = await ask(server.target, version, file_containing_symbol="no.such.Service")
    assert nothing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("setting", ["on", "off"])
async def test_the_setting(serve: Serve, setting: str) -> None:
    server = await serve(environment={"STORAGE_REFLECTION": setting})
    for version in VERSIONS:
        if setting == "on":
            assert (await ask(server.target, version, list_services="")).list_services_response.service
        else:
            await has_none(server.target, version)


async def test_off_beyond_loopback(serve: Serve) -> None:
    server = await serve("", "--host", "0.0.0.0", "--allow-insecure-listen")  # noqa: S104 - what is tested
    for version in VERSIONS:
        await has_none(server.target, version)


def tool(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def call(target: str, method: str, data: str) -> subprocess.CompletedProcess[str]:
    """Call a method as a user does, with grpcurl or, where there is no Go to install it by, with buf."""
    if GRPCURL.exists():
        return tool(str(GRPCURL), "-plaintext", "-d", data, target, method)
    return tool(
        str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "-d", data, f"http://{target}/{method}"
    )


def test_a_tour_with_a_command(server: ServerProcess, owner: str) -> None:
    target = server.target
    if GRPCURL.exists():
        listed = tool(str(GRPCURL), "-plaintext", target, "list")
        described = tool(str(GRPCURL), "-plaintext", target, "describe", "agentstorage.v1.ThreadService")
        assert "rpc CreateThread ( .agentstorage.v1.CreateThreadRequest )" in described.stdout
        assert "rpc GetThread" in tool(str(GRPCURL), "-plaintext", target, "describe").stdout
    else:
        listed = tool(
            str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-services", f"http://{target}"
        )
        described = tool(
            str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--list-methods", f"http://{target}"
        )
        assert "agentstorage.v1.ThreadService/CreateThread" in described.stdout
    assert set(SERVICES) <= set(listed.stdout.split())
    thread_id = f"tour-{owner}"
    data = json.dumps({"owner_id": owner, "thread_id": thread_id, "metadata": '{"topic": "tour"}'})
    made = call(target, "agentstorage.v1.ThreadService/CreateThread", data)
    assert (made.returncode, made.stderr) == (0, "")
    thread = json.loads(made.stdout)["thread"]
    assert thread_id in (thread.get("thread_id"), thread.get("threadId"))
    assert json.loads(thread["metadata"]) == {"topic": "tour", "owner": owner}
    wanted = json.dumps({"owner_id": owner, "thread_id": thread_id})
    found = call(target, "agentstorage.v1.ThreadService/GetThread", wanted)
    assert json.loads(found.stdout)["thread"] == thread
    absent = call(target, "agentstorage.v1.ThreadService/GetThread", json.dumps({"owner_id": owner, "thread_id": "no"}))
    assert absent.returncode != 0
    # The details are read by means of reflection too, where the tool has their types.
    assert "NotFound" in absent.stderr or "not_found" in absent.stderr
    wrong = call(target, "agentstorage.v1.ThreadService/GetThread", json.dumps({"owner_id": owner}))
    assert wrong.returncode != 0
    assert "thread_id: must not be empty" in wrong.stderr
