"""The client while its server goes and comes back, and against a server that wants tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentstorage import Connection, GrpcStorage, errors
from tests.service import ServerProcess

pytestmark = pytest.mark.usefixtures("way")


async def test_calls_work_again_once_the_server_is_back(alice: str) -> None:
    server = ServerProcess("memory").start()
    async with GrpcStorage(server.target) as storage:
        await storage.threads.create({}, alice)
        server.kill()
        with pytest.raises(errors.Unavailable):
            await storage.threads.count(alice)
        server = ServerProcess("memory", port=server.port).start()
        try:
            async with asyncio.timeout(3):
                while True:
                    try:
                        assert await storage.threads.count(alice) == 0
                        break
                    except errors.Unavailable:
                        await asyncio.sleep(0.05)
        finally:
            server.stop()


async def test_tokens(tmp_path: Path, alice: str, bob: str) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(f'[[token]]\nname = "runtime"\ntoken = "a-token-for-this-test"\nowners = ["{alice}"]\n')
    server = ServerProcess("memory", environment={"STORAGE_TOKEN_FILE": str(file)}).start()
    try:
        async with GrpcStorage(server.target, token="a-token-for-this-test") as storage:
            thread = await storage.threads.create({}, alice)
            assert await storage.threads.get(thread.thread_id, alice) == thread
            with pytest.raises(errors.PermissionDenied):
                await storage.threads.get(thread.thread_id, bob)
            with pytest.raises(errors.OwnerRequired):
                await storage.threads.get(thread.thread_id)
            with pytest.raises(errors.PermissionDenied):
                await storage.threads.clear()
        for connection in (Connection(server.target), Connection(server.target, token="another-one")):
            async with GrpcStorage(connection) as storage, connection:
                with pytest.raises(errors.Unauthenticated):
                    await storage.threads.get(thread.thread_id, alice)
    finally:
        server.stop()
