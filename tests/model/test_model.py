"""Memory against Postgres: a state machine sends the same random calls to a server on each and compares every answer.

A third of the calls are plain RPCs, another third goes through the exchange, and the rest directly to both backends in this process, where
also ticks of crons come and old events go. Half of the examples are about the queue alone.

A longer run: ``MODEL_STEPS=200000 .venv/bin/python -m pytest tests/model``. A failing run prints the calls that lead to
the difference, shrunk, and the seed to repeat it with (``--hypothesis-seed``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model import requests
from tests.model.backends import Both, ExchangeSide, Side
from tests.model.direct import RUN_ATTEMPTS, Direct
from tests.model.machine import Machine
from tests.postgres_server import PostgresServer
from tests.service import ServerProcess

STEPS = int(os.environ.get("MODEL_STEPS", "5000"))


def _settings(steps: int, *, about_the_queue: bool) -> settings:
    """Examples of about so many steps together. One rule about the queue is several calls."""
    rules, steps_of_an_example = (20, 120) if about_the_queue else (50, 45)
    return settings(
        max_examples=steps // steps_of_an_example + 5,
        stateful_step_count=rules,
        deadline=None,
        database=None,
        print_blob=True,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )


@pytest.fixture(scope="module")
def direct(postgres_server: PostgresServer) -> Iterator[Direct]:
    """Both backends in this process."""
    sides = Direct(postgres_server.url(postgres_server.create_database()))
    yield sides
    sides.close()


@pytest.fixture(scope="module")
def ways(postgres_server: PostgresServer, direct: Direct) -> Iterator[dict[str, Both]]:
    """Both servers by each way in; of their own, since calls without an owner and those of the system owner see everybody's rows."""
    url = postgres_server.url(postgres_server.create_database())
    environment = {"STORAGE_RUN_ATTEMPTS": str(RUN_ATTEMPTS)}
    processes = [
        ServerProcess("memory", environment=environment).start(),
        ServerProcess("postgres", url, environment=environment).start(),
    ]
    kinds: dict[str, type[Side]] = {"grpc": Side, "exchange": ExchangeSide}
    found = {way: Both(*(kind(it.backend, it.target) for it in processes)) for way, kind in kinds.items()}
    yield found | {"direct": Both(*direct.sides)}
    for side in (side for both in found.values() for side in both.sides):
        side.close()
    for process in processes:
        process.stop()


# Shrinking what fails takes minutes.
@pytest.mark.timeout(max(600, STEPS // 10))
def test_memory_and_postgres_answer_the_same(ways: dict[str, Both], direct: Direct) -> None:
    Machine.ids, Machine.steps = direct.ids, 0
    Machine.outcomes.clear()
    Machine.found.clear()
    for way, about_the_queue in (("grpc", False), ("exchange", False), ("exchange", True), ("direct", True)):
        Machine.both, Machine.is_direct, Machine.about_the_queue = ways[way], way == "direct", about_the_queue
        run_state_machine_as_test(Machine, settings=_settings(STEPS // 4, about_the_queue=about_the_queue))
    assert Machine.steps >= STEPS
    driven = {method for method, _ in Machine.outcomes}
    never_ok = driven - {method for method, code in Machine.outcomes if code == "OK"}
    assert not never_ok, "methods that never succeeded show nothing"
    assert driven == requests.METHODS_DRIVEN - {"ExportOwner", "EraseOwner"}
    assert sum(Machine.outcomes.values()) == Machine.steps
    assert {name for name, count in Machine.found.items() if count} >= {
        *("claimed", "finished", "undone", "asked", "requeued", "failed", "stopped", "followed"),
        *("TICK_OUTCOME_FIRED", "TICK_OUTCOME_SKIPPED", "TICK_OUTCOME_DISABLED"),
    }
