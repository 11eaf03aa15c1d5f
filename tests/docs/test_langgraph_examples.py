"""The examples with LangGraph do what they say: they remember over restarts, share a database, travel in time, find by meaning."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

from tests.docs.markdown import ROOT
from tests.postgres_server import MakeDatabase
from tests.service import ServerProcess

_SECONDS = 60


def _output(name: str, server: ServerProcess, *arguments: str) -> list[str]:
    """The lines that an example prints."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTSTORAGE_")}
    environment |= {"AGENTSTORAGE_TARGET": server.target, "DATABASE_URL": server.database_url}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(ROOT / "examples" / f"langgraph_{name}.py"), *arguments],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


def test_all_of_them_are_here() -> None:
    assert {path.stem for path in ROOT.glob("examples/langgraph_*.py")} == {
        "langgraph_agent",
        "langgraph_memory",
        "langgraph_shared_database",
        "langgraph_time_travel",
    }


def test_the_agent_goes_on_after_restarts(make_database: MakeDatabase) -> None:
    turns = {
        "What is the weather in Rome?": "sun in Rome today",
        "And in Paris?": "rain in Paris today",
        "And tomorrow?": "sun in Paris tomorrow",
    }
    server = ServerProcess("postgres", make_database()).start()
    ends: list[Callable[[], object]] = [server.stop, server.kill, server.stop]
    for number, (question, answer) in enumerate(turns.items(), 1):
        try:
            told = _output("agent", server, question)
        finally:
            ends.pop(0)()
        assert told == [
            f"you:   {question}",
            f"agent: There will be {answer}.",
            f"messages in this conversation: {4 * number}",
        ]
        if ends:
            server.start()


def test_a_database_is_shared(servers: dict[str, ServerProcess]) -> None:
    log: list[str] = []
    told = _output("shared_database", servers["postgres"])
    for line, (name, text) in zip(
        told,
        [
            ("AsyncGrpcSaver", "over the service"),
            ("AsyncPostgresSaver", "past the service"),
            ("AsyncGrpcSaver", "over the service again"),
        ],
        strict=False,
    ):
        log.append(text)
        log.append(f"answer {len(log)}")
        assert line == f"{name} remembers {log}"
    assert told[3:] == ["another owner sees None"]


def test_time_travel(server: ServerProcess) -> None:
    first, last = "To Paris, two nights in Hotel Paris", "To Paris, two nights in the Ritz"
    told = _output("time_travel", server)
    assert told[0] == f"first plan: {first}"
    assert [line.split(" | ")[0].strip() for line in told[1:5]] == [
        "next: nothing",
        "next: write_plan",
        "next: find_hotel",
        "next: __start__",
    ]
    assert told[5:] == [f"once more: {first}", f"forked: {last}", f"still there: {first}", f"now: {last}"]


def test_memory_is_found_by_meaning(server: ServerProcess) -> None:
    told = _output("memory", server)
    assert told[:3] == [
        "What would you like to drink? -> likes to drink green tea in the morning",
        "When do you swim? -> goes swimming on Tuesdays",
        "A plane or a train ticket? -> travels by train, never by plane",
    ]
    assert [line.split()[0] for line in told[3:]] == ["drink", "travel"]
