"""Memory against Postgres: a state machine sends the same random calls to a server on each and compares every answer.

Half of the examples send them as plain RPCs, the others through the exchange.

A longer run: ``MODEL_STEPS=200000 .venv/bin/python -m pytest tests/model``. A failing run prints the calls that lead to
the difference, shrunk, and the seed to repeat it with (``--hypothesis-seed``).
"""

from __future__ import annotations

import os
import uuid
from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from tests.model import requests
from tests.model.backends import Both, ExchangeSide, Failed, Side
from tests.postgres_server import PostgresServer
from tests.service import METHODS, ServerProcess

STEPS = int(os.environ.get("MODEL_STEPS", "10000"))
STEPS_OF_AN_EXAMPLE = 50
_GETS = {"assistants": "GetAssistant", "threads": "GetThread", "runs": "GetRun", "crons": "GetCron", "items": "GetItem"}
_COUNTS = {
    "SearchAssistants": "CountAssistants",
    "SearchThreads": "CountThreads",
    "SearchRuns": "CountRuns",
    "SearchCrons": "CountCrons",
}
_FIRST: tuple[tuple[str, dict[str, Any]], ...] = (
    ("CreateAssistant", {"assistant_id": "assistant-1", "graph_id": "agent"}),
    ("CreateThread", {"thread_id": "thread-1", "metadata": '{"assistant_id": "assistant-1"}'}),
    ("AddThreadState", {"thread_id": "thread-1", "checkpoint_id": "state-1"}),
    ("CreateRun", {"run_id": "run-1", "thread_id": "thread-1", "assistant_id": "assistant-1"}),
    ("CreateCron", {"cron_id": "cron-1", "assistant_id": "assistant-1", "schedule": "0 0 1 1 *"}),
    ("PutItem", {"namespace": ["a", "b"], "key": "k", "value": '{"a": 9.50}'}),
    ("PutCheckpoint", {"thread_id": "thread-1", "checkpoint_id": "state-1", "checkpoint": '{"v": 4}'}),
    # These succeed only where chance names what is there.
    ("GetItem", {"namespace": ["a", "b"], "key": "k"}),
    ("SetLatestAssistantVersion", {"assistant_id": "assistant-1", "version": 1}),
    ("GetDeltaChannelHistory", {"thread_id": "thread-1", "channels": ["a"]}),
)


def ask(method: str, owner: str | None = None, **fields: Any) -> Any:
    """A request of a method."""
    request: Any = GetMessageClass(METHODS[method].input_type)(**fields)
    if owner is not None:
        request.owner_id = owner
    return request


class Machine(RuleBasedStateMachine):
    """Random calls of two owners, the system owner and none, to both servers."""

    ways: ClassVar[dict[str, Both]]
    examples: ClassVar[Counter[str]] = Counter()
    steps: ClassVar[int] = 0
    outcomes: ClassVar[Counter[tuple[str, str]]] = Counter()

    def __init__(self) -> None:
        super().__init__()
        mark = uuid.uuid4().hex[:10]
        self.owners = {"@A": f"a-{mark}", "@B": f"b-{mark}", "@system": "system"}
        self.unscoped = False
        self.count = 0
        self.both = self.ways["grpc"]

    @initialize(way=st.sampled_from(("grpc", "exchange")))
    def begin(self, way: str) -> None:
        """Make some rows, so that the first calls meet something."""
        Machine.examples[way] += 1
        self.both = self.ways[way]
        self.both.forget()
        for method, fields in _FIRST:
            assert not isinstance(self.both.call(method, ask(method, self.owners["@A"], **fields)), Failed)
            Machine.steps += 1
            Machine.outcomes[method, "OK"] += 1

    @rule(drawn=requests.ASSISTANTS)
    def assistants(self, drawn: tuple[str, str, Message]) -> None:
        self.step(*drawn)

    @rule(drawn=requests.THREADS)
    def threads(self, drawn: tuple[str, str, Message]) -> None:
        self.step(*drawn)

    @rule(drawn=requests.RUNS)
    def runs(self, drawn: tuple[str, str, Message]) -> None:
        self.step(*drawn)

    @rule(drawn=requests.CRONS)
    def crons(self, drawn: tuple[str, str, Message]) -> None:
        self.step(*drawn)

    @rule(drawn=requests.ITEMS)
    def items(self, drawn: tuple[str, str, Message]) -> None:
        self.step(*drawn)

    @rule(drawn=requests.CHECKPOINTS)
    def checkpoints(self, drawn: tuple[str, str, Message]) -> None:
        self.step(*drawn)

    def step(self, method: str, owner: str, drawn: Message) -> None:
        """Send a call, and follow up on what it answered."""
        Machine.steps += 1
        request: Any = type(drawn)()
        request.CopyFrom(drawn)
        for name in ("metadata", "values"):
            text = getattr(request, name, "")
            if "@" in text:
                for mark, id in self.owners.items():
                    text = text.replace(mark, id)
                setattr(request, name, text)
        if owner:
            request.owner_id = self.owners[owner]
        else:
            self.unscoped = True
        answer = self.both.call(method, request)
        failed = isinstance(answer, Failed)
        Machine.outcomes[method, answer.code.name if isinstance(answer, Failed) else "OK"] += 1
        if isinstance(answer, Failed):
            if method in _GETS.values() and answer.code.name == "NOT_FOUND":
                self.same_as_absent(method, request, answer)
        elif hasattr(answer[0], "next_page_token") and not request.offset:
            self.pages(method, request, answer)
        self.count += 1
        if self.count % 5 == 0 and not failed:
            for name in self.owners.values():
                self.both.call("ExportOwner", ask("ExportOwner", name))

    def same_as_absent(self, method: str, request: Any, failed: Failed) -> None:
        """What is not there for an owner looks like what is nowhere, whoever has it."""
        absent = type(request)()
        absent.CopyFrom(request)
        field = "key" if method == "GetItem" else f"{method.removeprefix('Get').lower()}_id"
        if method == "GetRun":
            absent.ClearField("thread_id")
        setattr(absent, field, "nowhere")
        nowhere = self.both.call(method, absent)
        assert isinstance(nowhere, Failed)
        assert failed.id == getattr(request, field)
        nowhere.seen["metadata"]["id"] = failed.id
        assert nowhere.seen == failed.seen

    def pages(self, method: str, request: Any, answer: tuple[Any, Any]) -> None:
        """Pages of any size make up the whole; the count is its length; each row is what a get answers."""
        field = answer[0].DESCRIPTOR.fields[0].name
        found = list(getattr(answer[0], field))
        while answer[0].next_page_token:
            tokens = (answer[0].next_page_token, answer[1].next_page_token)
            following = self.both.call(method, request, tokens)
            assert not isinstance(following, Failed), following
            assert getattr(following[0], field), "an empty page"
            answer = following
            found.extend(getattr(answer[0], field))
        whole = type(request)()
        whole.CopyFrom(request)
        for size in (1000, 2):
            whole.page_size = size
            at_once = self.both.call(method, whole)
            assert not isinstance(at_once, Failed)
            assert list(getattr(at_once[0], field))[: len(found)] == found[:size]
        if method in _COUNTS:
            counting = ask(_COUNTS[method])
            for descriptor in counting.DESCRIPTOR.fields:
                if not descriptor.has_presence or request.HasField(descriptor.name):
                    value = getattr(request, descriptor.name)
                    (
                        getattr(counting, descriptor.name).extend
                        if descriptor.is_repeated
                        else _setter(counting, descriptor.name)
                    )(value)
            counted = self.both.call(_COUNTS[method], counting)
            assert not isinstance(counted, Failed)
            assert counted[0].count == len(found)
        if field in _GETS and not request.fields.paths if hasattr(request, "fields") else False:
            for row in found[:3]:
                get = ask(_GETS[field], request.owner_id if request.HasField("owner_id") else None)
                id = get.DESCRIPTOR.fields[1].name
                setattr(get, id, getattr(row, id))
                got = self.both.call(_GETS[field], get)
                assert not isinstance(got, Failed)
                assert getattr(got[0], got[0].DESCRIPTOR.fields[0].name) == row

    def teardown(self) -> None:
        """Erase what the example made, through the API as well, and see that nothing of it is left."""
        try:
            for name in self.owners.values():
                self.both.call("ExportOwner", ask("ExportOwner", name))
                self.both.call("EraseOwner", ask("EraseOwner", name))
        finally:
            self.clean()

    def clean(self) -> None:
        """Leave nothing to the next example, whatever this one found."""
        for side in self.both.sides:
            for name in self.owners.values():
                side.call("EraseOwner", ask("EraseOwner", name))
            if not self.unscoped:
                continue
            for field, ids in requests.IDS.items():
                method = f"Delete{field.removesuffix('_id').title()}"
                for id in ids if method in METHODS else ():
                    side.call(method, ask(method, None, **{field: id}, allow_missing=True))
            for namespace in requests.NAMESPACES:
                side.call("DeleteNamespace", ask("DeleteNamespace", namespace=namespace))
            for method in _COUNTS.values():
                assert side.call(method, ask(method)).count == 0


def _setter(message: Any, name: str) -> Any:
    return lambda value: setattr(message, name, value)


@pytest.fixture(scope="module")
def ways(postgres_server: PostgresServer) -> Iterator[dict[str, Both]]:
    """Both servers by each way in; of their own, since calls without an owner and those of the system owner see everybody's rows."""
    url = postgres_server.url(postgres_server.create_database())
    processes = [ServerProcess("memory").start(), ServerProcess("postgres", url).start()]
    kinds: dict[str, type[Side]] = {"grpc": Side, "exchange": ExchangeSide}
    found = {way: Both(*(kind(it.backend, it.target) for it in processes)) for way, kind in kinds.items()}
    yield found
    for side in (side for both in found.values() for side in both.sides):
        side.close()
    for process in processes:
        process.stop()


@pytest.mark.timeout(max(240, STEPS // 40))
def test_memory_and_postgres_answer_the_same(ways: dict[str, Both]) -> None:
    Machine.ways, Machine.steps = ways, 0
    Machine.outcomes.clear()
    Machine.examples.clear()
    run_state_machine_as_test(
        Machine,
        settings=settings(
            # Some examples end early: a tenth more than enough.
            max_examples=-(-STEPS * 11 // (STEPS_OF_AN_EXAMPLE * 10)) + 10,
            stateful_step_count=STEPS_OF_AN_EXAMPLE,
            deadline=None,
            database=None,
            print_blob=True,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Machine.steps >= STEPS
    assert min(Machine.examples[way] for way in ways) > sum(Machine.examples.values()) / 4
    driven = {method for method, _ in Machine.outcomes}
    never_ok = driven - {method for method, code in Machine.outcomes if code == "OK"}
    assert not never_ok, "methods that never succeeded show nothing"
    assert driven == requests.METHODS_DRIVEN - {"ExportOwner", "EraseOwner"}
    assert sum(Machine.outcomes.values()) == Machine.steps
