"""The two halves of the shared agent, one in each language, go on where the other stopped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT
from tests.service import ServerProcess

CLIENT = ROOT / "clients" / "typescript"
_SECONDS = 120


def _run(command: list[str], directory: Path, environment: dict[str, str] | None = None) -> list[str]:
    """The lines that a command prints; it has to succeed."""
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout.splitlines()


@pytest.fixture(scope="session")
def typescript(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The command of the TypeScript half, made of the client and the example of now, in a directory of its own."""
    node = shutil.which("node")
    assert node is not None, "Node.js is needed: it runs the other half"
    compiler = CLIENT / "node_modules" / "typescript" / "bin" / "tsc"
    assert compiler.exists(), "run `npm ci` in clients/typescript"
    package = tmp_path_factory.mktemp("typescript")
    for directory in ("src", "examples"):
        shutil.copytree(CLIENT / directory, package / directory)
    for path in CLIENT.glob("*.json"):
        shutil.copy(path, package)
    (package / "node_modules").symlink_to(CLIENT / "node_modules")
    for project in ("tsconfig.build.json", "examples"):
        _run([node, str(compiler), "-p", project], package)
    return [node, str(package / "dist" / "examples" / "shared-agent.js")]


def _said(command: list[str], server: ServerProcess, thread: str, word: str) -> list[str]:
    """What a half of the agent prints when it is told a word."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTSTORAGE_")}
    return _run([*command, thread, "--", word], ROOT, environment | {"AGENTSTORAGE_TARGET": server.target})


@pytest.mark.parametrize("first", ["python", "typescript"])
def test_each_goes_on_where_the_other_stopped(first: str, typescript: list[str], server: ServerProcess) -> None:
    python = [sys.executable, "-W", "error", str(ROOT / "examples" / "shared_agent.py")]
    halves = {"python": python, "typescript": typescript}
    second = "typescript" if first == "python" else "python"
    thread = str(uuid.uuid4())
    conversation: list[str] = []
    turns = [
        (first, "Rome", ["human: Rome", "ai: Shall I book a night in Rome?"], "nothing"),
        (second, "yes", ["human: yes", "ai: Booked Rome."], "Rome"),
        (second, "Paris", ["human: Paris", "ai: Shall I book a night in Paris?"], "Rome"),
        (first, "no", ["human: no", "ai: No Paris then."], "Rome"),
    ]
    for number, (language, word, added, visited) in enumerate(turns):
        found = len(conversation)
        conversation += added
        # A question waits after every other turn.
        before, after = ("nothing", "approve") if number % 2 == 0 else ("approve", "nothing")
        assert _said(halves[language], server, thread, word) == [
            f"{language} found {found} messages, next: {before}",
            *(f"  {line}" for line in conversation),
            f"visited: {visited}; next: {after}",
        ]
