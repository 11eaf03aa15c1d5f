"""Checkpointers on real servers, on both backends."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Iterator

import pytest

from agentstorage.langgraph import AsyncGrpcSaver, GrpcSaver
from tests.service import ServerProcess


@pytest.fixture
def thread() -> str:
    """A thread that nothing belongs to yet."""
    return str(uuid.uuid4())


@pytest.fixture
async def saver(server: ServerProcess, owner: str) -> AsyncIterator[AsyncGrpcSaver]:
    async with AsyncGrpcSaver(server.target, owner_id=owner) as made:
        yield made


@pytest.fixture
def waiting_saver(server: ServerProcess, owner: str) -> Iterator[GrpcSaver]:
    """The saver for callers that wait, of the same owner as ``saver``."""
    with GrpcSaver(server.target, owner_id=owner) as made:
        yield made
