"""The scenarios of ``clients/scenarios``, run by the Python client; ``clients/typescript/test/scenarios.test.ts`` runs the same.

Every answer and failure of every step is also compared with the one transcript that both clients must give, on both backends, with and
without the exchange. ``clients/scenarios/README.md`` tells the format. After a change of the scenarios, write the transcript anew, and
look at what changed in it:

    WRITE_TRANSCRIPT=1 python -m pytest tests/clients/test_scenarios.py -k "memory and plain"
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from agentstorage import Connection, StorageError
from tests.clients.cross_language import STUBS, call_as_json
from tests.postgres_server import PostgresServer
from tests.service import METHODS, ServerProcess

DIRECTORY = Path(__file__).parents[2] / "clients" / "scenarios"
TRANSCRIPT = DIRECTORY / "transcript.json"
NAMES = sorted(file.stem for file in DIRECTORY.glob("*.json") if file != TRANSCRIPT)
PLACEHOLDER = re.compile(r"\$\{([a-z_0-9]+)\}")
MADE = re.compile(r"\b[0-9a-f]{32}\b|\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z")
LONGEST_TEXT, LONGEST_LIST = 300, 20


def load(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((DIRECTORY / f"{name}.json").read_text())
    return loaded


def test_every_method_is_called_and_every_service_has_failures() -> None:
    steps = [part for name in NAMES for step in load(name)["steps"] for part in step.get("together", [step])]
    called = {step.get("call") or step.get("pages") for step in steps} - {None}
    assert called == METHODS.keys()
    failed = {METHODS[step["call"]].containing_service.name for step in steps if "error" in step}
    assert failed == STUBS.keys()


class Servers:
    """The servers of one scenario: the one that all share, or one of its own."""

    def __init__(self, shared: ServerProcess, wanted: dict[str, Any] | None, url: str, directory: Path) -> None:
        self._own: ServerProcess | None = None
        if wanted is not None:
            environment = dict(wanted.get("environment", {}))
            if "tokens" in wanted:
                file = directory / "tokens.toml"
                file.write_text(wanted["tokens"])
                environment["STORAGE_TOKEN_FILE"] = str(file)
            self._own = ServerProcess(shared.backend, url, environment=environment).start()
        self.target = (self._own or shared).target

    async def tell(self, what: str) -> None:
        """Freeze, thaw, kill or start the scenario's own server."""
        assert self._own is not None, "the shared server is left alone"
        if what == "kill":
            self._own.kill()
        elif what == "start":
            await asyncio.to_thread(self._own.start)
        else:
            self._own.process.send_signal({"freeze": signal.SIGSTOP, "thaw": signal.SIGCONT}[what])

    def end(self) -> None:
        if self._own is not None and self._own.process.returncode is None:
            self._own.kill()


class Normal:
    """Makes what differs from run to run the same: ids and times become numbers in the order in which they appear."""

    def __init__(self, run: str, source: str, target: str) -> None:
        self._run = run
        self._source = source
        self._target = target
        self._known: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def __call__(self, value: Any, hide: Iterable[str] = ()) -> Any:
        if isinstance(value, dict):
            return {key: self._field(key, value[key], hide) for key in sorted(value) if key not in hide}
        if isinstance(value, list):
            items = [self(item, hide) for item in value]
            return items if len(items) <= LONGEST_LIST else [items[0], f"<{len(items) - 2} more>", items[-1]]
        if isinstance(value, str):
            text = MADE.sub(self._made, value.replace(self._run, "RUN").replace(self._target, "<target>"))
            if len(text.encode()) <= LONGEST_TEXT:
                return text
            return f"<{len(text.encode())} bytes, SHA-256 {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
        return value

    def _field(self, key: str, value: Any, hide: Iterable[str]) -> Any:
        if key == "sequence":
            return self._number("sequence", value)
        if key == "run_after" and MADE.fullmatch(value) and value not in self._source:
            # One backend has the time of the call there, the other that of the moment.
            return self._number("due", value)
        return "<token>" if key == "next_page_token" else self(value, hide)

    def _made(self, found: re.Match[str]) -> str:
        text = found[0]
        # A time that the scenario itself names is no time of this run.
        return text if text in self._source else self._number("time" if text.endswith("Z") else "id", text)

    def _number(self, kind: str, text: str) -> str:
        if (kind, text) not in self._known:
            self._counts[kind] = self._counts.get(kind, 0) + 1
            self._known[kind, text] = f"<{kind} {self._counts[kind]}>"
        return self._known[kind, text]


class Scenario:
    """One scenario on its way. ``transcript`` has what came of each step so far."""

    def __init__(self, name: str, way: str, servers: Servers) -> None:
        source = load(name)
        run = uuid.uuid4().hex[:12]
        self.steps: list[dict[str, Any]] = source["steps"]
        self.transcript: list[Any] = []
        self._servers = servers
        self._settings: dict[str, Any] = {"exchange": way == "exchange", **source.get("connection", {})}
        self._names: dict[str, Any] = {"run": run} | {who: f"{who}-{run}" for who in ("alice", "bob", "carol")}
        self._connections: dict[str | None, Connection] = {}
        self._normal = Normal(run, (DIRECTORY / f"{name}.json").read_text(), servers.target)

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    async def take(self, step: dict[str, Any]) -> None:
        """Take one step. AssertionError when what comes of it is not what the scenario expects."""
        if "server" in step:
            await self._servers.tell(step["server"])
        elif "pages" in step:
            await self._pages(step)
        elif "together" in step:
            found = await asyncio.gather(*map(self._outcomes, step["together"]))
            for part, outcomes in zip(step["together"], found, strict=True):
                self._finish(part, outcomes)
        else:
            self._finish(step, await self._outcomes(step))

    def _finish(self, step: dict[str, Any], outcomes: list[Any]) -> None:
        for outcome in outcomes:
            self._check(step, outcome)
        assert all(outcome == outcomes[0] for outcome in outcomes)
        for name, path in step.get("save", {}).items():
            self._names[name] = at(outcomes[0]["response"], path)
        self.transcript.append({"call": step["call"], **self._normal(outcomes[0], step.get("hide", ()))})

    async def _outcomes(self, step: dict[str, Any]) -> list[Any]:
        """What came of each sending of a call: one, several after another or at once, or as many as it takes."""
        if "at_once" in step:
            return list(await asyncio.gather(*(self._outcome(step) for _ in range(step["at_once"]))))
        if step.get("until"):
            for _ in range(500):
                outcome = await self._outcome(step)
                if self._fits(step, outcome):
                    break
                await asyncio.sleep(0.01)
            return [outcome]
        return [await self._outcome(step) for _ in range(step.get("times", 1))]

    async def _outcome(self, step: dict[str, Any]) -> Any:
        try:
            return {"response": await self._call(step["call"], step)}
        except StorageError as error:
            return {"error": described(error)}

    async def _call(self, name: str, step: dict[str, Any], **more: Any) -> Any:
        fields = {**self.filled(step.get("request", {})), **more}
        who = step.get("as", "alice")
        if who is not None:
            fields.setdefault("owner_id", self._names.get(who, who))
        return await call_as_json(self._connection(step.get("token")), name, fields)

    def _connection(self, token: str | None) -> Connection:
        if token not in self._connections:
            self._connections[token] = Connection(self._servers.target, token=token, **self._settings)
        return self._connections[token]

    async def _pages(self, step: dict[str, Any]) -> None:
        rows, _, field = step["rows"].partition(".")
        pages: list[list[Any]] = []
        token = ""
        while not pages or token:
            answer = await self._call(step["pages"], step, page_token=token)
            pages.append([at(row, field) for row in answer.get(rows, [])])
            token = answer.get("next_page_token", "")
            assert len(pages) < 100, "the pages have no end"
        assert pages == self.filled(step["expect"])
        self.transcript.append({"pages": step["pages"], "rows": self._normal(pages)})

    def _fits(self, step: dict[str, Any], outcome: Any) -> bool:
        try:
            self._check(step, outcome)
        except AssertionError:
            return False
        return True

    def _check(self, step: dict[str, Any], outcome: Any) -> None:
        if "error" not in step:
            assert "response" in outcome, outcome
            match(outcome["response"], self.filled(step.get("expect", {})), "response")
            return
        assert "error" in outcome, outcome
        error = outcome["error"]
        # Whatever a scenario leaves out must be as it mostly is.
        wanted = {"metadata": {}, "violations": [], "safe_to_retry": False, **self.filled(step["error"])}
        found = {**error, "violations": sorted(error["violations"])}
        assert {name: found[name] for name in wanted} == wanted, error

    def filled(self, value: Any, index: int | None = None) -> Any:
        """A value of the scenario with its names filled in and its long texts and lists made."""
        if isinstance(value, str):
            return PLACEHOLDER.sub(lambda found: str(index if found[1] == "i" else self._names[found[1]]), value)
        if isinstance(value, list):
            return [self.filled(item, index) for item in value]
        if not isinstance(value, dict):
            return value
        if "$text" in value:
            return "".join(text * times for text, times in value["$text"])
        if "$list" in value:
            return [self.filled(value["$list"], place) for place in range(value["times"])]
        return {key: self.filled(item, index) for key, item in value.items()}


def described(error: StorageError) -> dict[str, Any]:
    """A failure as both clients have it. What a message says of its language, after a semicolon, is left out."""
    return {
        "class": type(error).__name__,
        "code": error.code.name,
        "reason": error.reason,
        "metadata": error.metadata,
        "violations": error.violations,
        "method": error.method,
        "safe_to_retry": error.safe_to_retry,
        "message": error.message.partition(";")[0].partition(" (")[0],
    }


def at(value: Any, path: str) -> Any:
    """The value at a path such as ``threads.0.thread_id``."""
    for name in path.split("."):
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def match(found: Any, wanted: Any, path: str) -> None:
    """Every field that is wanted must be found; lists must have as many items."""
    if wanted == "$any":
        return
    if isinstance(wanted, dict) and "$match" in wanted:
        assert re.search(wanted["$match"], found), f"{path}: {found!r}"
    elif isinstance(wanted, dict) and "$after" in wanted:
        assert sortable(found) > sortable(wanted["$after"]), f"{path}: {found!r}"
    elif isinstance(wanted, dict):
        assert isinstance(found, dict), f"{path}: {found!r}"
        for key, item in wanted.items():
            if item == "$absent":
                assert key not in found, f"{path}.{key}: {found[key]!r}"
            else:
                assert key in found, f"{path}.{key} is absent"
                match(found[key], item, f"{path}.{key}")
    elif isinstance(wanted, list):
        assert isinstance(found, list), f"{path}: {found!r}"
        assert len(found) == len(wanted), f"{path}: {found!r}"
        for place, item in enumerate(wanted):
            match(found[place], item, f"{path}[{place}]")
    else:
        assert found == wanted, f"{path}: {found!r}, not {wanted!r}"


def sortable(time: str) -> str:
    """A time as a text that sorts as it does."""
    whole, _, fraction = time.removesuffix("Z").partition(".")
    return whole + fraction.ljust(9, "0")


#: A scenario with a server of its own may leave out a backend that makes no difference to it.
RUNS = [
    (backend, name)
    for name in NAMES
    for backend in load(name).get("server", {}).get("backends", ("memory", "postgres"))
]


@pytest.fixture
async def place(
    servers: dict[str, ServerProcess], postgres_server: PostgresServer, backend: str, name: str, tmp_path: Path
) -> AsyncIterator[Servers]:
    wanted = load(name).get("server")
    url = ""
    if wanted is not None and backend == "postgres":
        url = postgres_server.url(postgres_server.create_database())
    made = Servers(servers[backend], wanted, url, tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("way", ["exchange", "plain"])
@pytest.mark.parametrize(("backend", "name"), RUNS)
async def test_scenario(place: Servers, name: str, way: str) -> None:
    scenario = Scenario(name, way, place)
    try:
        for number, step in enumerate(scenario.steps):
            try:
                await scenario.take(step)
            except (AssertionError, KeyError) as error:
                error.add_note(f"in step {number} of {name}: {json.dumps(step, ensure_ascii=False)[:500]}")
                raise
    finally:
        await scenario.close()
    transcript = json.loads(TRANSCRIPT.read_text()) if TRANSCRIPT.exists() else {}
    if os.environ.get("WRITE_TRANSCRIPT"):
        # Written whole, so that a scenario that is gone leaves nothing behind.
        transcript = {known: transcript[known] for known in NAMES if known in transcript} | {name: scenario.transcript}
        TRANSCRIPT.write_text(written(transcript))
    assert scenario.transcript == transcript[name]


def written(transcript: dict[str, list[Any]]) -> str:
    """The transcript with a line for each step."""
    parts = []
    for name in sorted(transcript):
        lines = (json.dumps(entry, ensure_ascii=False) for entry in transcript[name])
        parts.append(f"{json.dumps(name)}: [\n" + ",\n".join(lines) + "\n]")
    return "{\n" + ",\n".join(parts) + "\n}\n"
