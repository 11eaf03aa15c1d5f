"""LangGraph's own suite for checkpointers: every capability is there, and every test of it passes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from langgraph.checkpoint.conformance import checkpointer_test, validate
from langgraph.checkpoint.conformance.capabilities import ALL_CAPABILITIES

from agentstorage.langgraph import AsyncGrpcSaver
from tests.service import ServerProcess

#: The tests of langgraph-checkpoint-conformance 0.0.2.
TESTS = 81


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "plain"])
async def test_every_capability_conforms(server: ServerProcess, owner: str, exchange: bool) -> None:
    @checkpointer_test(name="AsyncGrpcSaver")
    async def saver() -> AsyncIterator[AsyncGrpcSaver]:
        async with AsyncGrpcSaver(server.target, owner_id=owner, exchange=exchange) as made:
            yield made

    report = await validate(saver)
    failures = {name: result.failures for name, result in report.results.items() if result.failures}
    assert not failures
    assert {name for name, result in report.results.items() if result.detected} == {
        item.value for item in ALL_CAPABILITIES
    }
    assert report.passed_all()
    assert sum(result.tests_passed for result in report.results.values()) == TESTS
