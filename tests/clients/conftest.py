"""The drop-in storage against the real server, and owners that no other test has."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentstorage import GrpcStorage


@pytest.fixture(params=("exchange", "plain"))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How the unary calls of every connection of the test travel."""
    monkeypatch.setenv("AGENTSTORAGE_EXCHANGE", "true" if request.param == "exchange" else "false")
    return str(request.param)


@pytest.fixture
async def storage(server: Any, way: str) -> AsyncIterator[GrpcStorage]:
    async with GrpcStorage(server.target) as made:
        yield made


@pytest.fixture
def alice() -> str:
    return f"alice-{uuid.uuid4().hex}"


@pytest.fixture
def bob() -> str:
    return f"bob-{uuid.uuid4().hex}"
