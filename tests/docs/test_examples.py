"""What the README and the client's page show runs as it stands, against a real server."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, Block, blocks
from tests.service import ServerProcess

README = ROOT / "README.md"
CLIENT = ROOT / "docs" / "client-python.md"
LANGGRAPH = ROOT / "docs" / "langgraph.md"
LANGGRAPH_STORE = ROOT / "docs" / "langgraph-store.md"
GRPCURL = ROOT / ".tools" / "bin" / "grpcurl"
BUF = Path(sys.executable).with_name("buf")
_SECONDS = 60


def _run(arguments: list[str], server: ServerProcess) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AGENTSTORAGE_")}
    environment["AGENTSTORAGE_TARGET"] = server.target
    return subprocess.run(
        arguments, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
    )


def _shown(page: Path) -> list[tuple[Block, str]]:
    """The runnable blocks of a page, each with the output that the page shows after it."""
    found = blocks(page)
    after = [*found[1:], Block("", "")]
    return [
        (block, following.text if following.language == "text" else "")
        for block, following in zip(found, after, strict=True)
    ]


def _missing(expected: str, output: str) -> list[str]:
    """The lines of the shown output that are not in the real one, whatever their indentation."""
    lines = {" ".join(line.split()) for line in output.splitlines()}
    return [line for line in expected.splitlines() if line.strip() and " ".join(line.split()) not in lines]


def _python_blocks() -> list[tuple[str, str, str]]:
    return [
        (f"{page.name} {number}", block.text, output)
        for page in (README, CLIENT, LANGGRAPH, LANGGRAPH_STORE)
        for number, (block, output) in enumerate(_shown(page), 1)
        if block.language == "python"
    ]


@pytest.mark.parametrize(("name", "code", "output"), _python_blocks(), ids=lambda value: str(value)[:24])
def test_python_of_the_pages_runs(name: str, code: str, output: str, server: ServerProcess) -> None:
    unique = uuid.uuid4().hex[:8]
    code = code.replace("localhost:50051", server.target)
    code = re.sub(r'owner_id="(\w+)"', rf'owner_id="\1-{unique}"', code)
    done = _run([sys.executable, "-W", "error", "-c", code], server)
    assert (done.returncode, done.stderr) == (0, ""), name
    assert not _missing(output, done.stdout), done.stdout


@pytest.mark.parametrize(
    "path",
    # Others run in test_langgraph_examples, and in clients/test_queue_example by a server that takes back leases.
    sorted(
        {*ROOT.glob("examples/*.py")} - {*ROOT.glob("examples/langgraph_*.py"), ROOT / "examples" / "queue_agent.py"}
    ),
    ids=lambda path: path.name,
)
def test_examples_run(path: Path, server: ServerProcess) -> None:
    done = _run([sys.executable, "-W", "error", str(path)], server)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


def _tour() -> list[tuple[str, str]]:
    return [
        (block.text.strip(), output)
        for block, output in _shown(README)
        if block.language == "sh" and block.text.startswith("grpcurl ")
    ]


def _as_buf(arguments: list[str]) -> list[str]:
    """The same call with ``buf curl``, for machines without Go. It has no describe: the list of methods stands in."""
    base = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge"]
    address = next(argument for argument in arguments if re.fullmatch(r"127\.0\.0\.1:\d+", argument))
    rest = arguments[arguments.index(address) + 1 :]
    if rest[0] in ("list", "describe"):
        return [*base, "--list-methods", f"http://{address}"]
    data = arguments[arguments.index("-d") + 1]
    return [*base, "--data", data, f"http://{address}/{rest[0]}"]


def test_the_tour_works(server: ServerProcess) -> None:
    tour = _tour()
    assert len(tour) >= 5, "list, describe, create, get, an error"
    unique = uuid.uuid4().hex[:8]
    for command, output in tour:
        own = command.replace("localhost:50051", server.target)
        for word in ("alice", "bob", "t1"):
            own, output = (text.replace(f'"{word}', f'"{word}-{unique}') for text in (own, output))
        output = output.replace('\\"alice\\"', f'\\"alice-{unique}\\"')
        arguments = shlex.split(own)
        fails = "ERROR:" in output
        if GRPCURL.exists():
            done = _run([str(GRPCURL), *arguments[1:]], server)
            assert not _missing(output, done.stdout + done.stderr), f"{own}\n{done.stdout}{done.stderr}"
        else:
            done = _run(_as_buf(arguments), server)
        assert (done.returncode != 0) == fails, f"{own}\n{done.stdout}{done.stderr}"


def test_buf_stands_in_for_grpcurl(server: ServerProcess) -> None:
    for arguments in (["list"], ["-d", "{}", "agentstorage.v1.ServerService/GetServerInfo"]):
        where = len(arguments) - 1
        done = _run(_as_buf(["grpcurl", *arguments[:where], server.target, *arguments[where:]]), server)
        assert done.returncode == 0, done.stderr
        assert "agentstorage.v1.ThreadService/GetThread" in done.stdout or '"version"' in done.stdout
