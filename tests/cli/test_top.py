"""``top`` on a running server: whom it tells what, a server that goes and comes, and the terminal that is as it was in the end."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import psutil
import pytest

from storage_service.settings import Settings
from storage_service.terminal import width
from tests.cli.runner import run_each
from tests.cli.test_commands import certificate
from tests.faults.servers import Serve, run
from tests.service import GrpcApi, ServerProcess

TOKENS = """
[[token]]
token = "a-token-for-one-owner"
owners = ["alice"]

[[token]]
token = "a-token-for-operators"
owners = "all"
rights = ["unscoped"]
"""


@pytest.mark.parametrize(
    ("host", "target"),
    [
        ("127.0.0.1", "127.0.0.1:5"),
        ("0.0.0.0", "127.0.0.1:5"),  # noqa: S104 - what is tested
        ("::", "[::1]:5"),
        ("[::]", "[::1]:5"),
        ("fe80::7", "[fe80::7]:5"),
        ("storage.example", "storage.example:5"),
    ],
)
def test_the_own_server(host: str, target: str) -> None:
    assert Settings(host=host, port=5).target() == target


def once(*arguments: str, status: int = 0, environment: Mapping[str, str] = {}) -> str:
    (ended,) = run_each((("top", "--once", *arguments), environment))
    assert (ended.status, ended.errors) == (status, "")
    return ended.output


async def test_once(server: ServerProcess, owner: str) -> None:
    async with grpc.aio.insecure_channel(server.target) as channel:
        api = GrpcApi(channel, server.backend)
        await api.call("CreateAssistant", owner_id=owner, assistant_id=f"a-{owner}", graph_id="g")
        for name in ("one", "two"):
            await api.call("CreateThread", owner_id=owner, thread_id=f"{name}-{owner}")
            await api.call(
                "CreateRun",
                owner_id=owner,
                thread_id=f"{name}-{owner}",
                assistant_id=f"a-{owner}",
                run_id=f"{name}-{owner}",
            )
        (claimed,) = (await api.call("ClaimRuns", owner_id=owner, worker_id="w")).runs
        assert claimed.lease_token > 0
        shown = json.loads(once("--target", server.target, "--owner", owner, "--json"))
        assert shown["problem"] == ""
        assert (shown["server"]["backend"], shown["owner_id"]) == (server.backend, owner)
        assert (shown["runs"]["pending"], shown["runs"]["running"]) == (1, 1)
        assert (shown["queue"]["due"], shown["queue"]["leased"], shown["queue"]["claims_per_second"]) == (1, 1, None)
        assert shown["queue"]["claims"] >= 1
        assert (shown["pool"] is None) == (server.backend == "memory")
        assert "agentstorage.v1.RunService/ClaimRuns" in [each["method"] for each in shown["methods"]]
    # By the settings of serve, of all owners.
    text = once(environment={"STORAGE_PORT": str(server.port)})
    assert re.match(rf"\d\d:\d\d:\d\d UTC  127\.0\.0\.1:{server.port}: storage-service \S+, {server.backend}", text)
    assert "runs and crons of all owners" in text
    assert max(map(len, text.splitlines())) <= 80


async def test_rights(serve: Serve, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.toml"
    tokens.write_text(TOKENS)
    server = await serve(environment={"STORAGE_TOKEN_FILE": str(tokens)})
    secret = tmp_path / "token"
    secret.write_text("a-token-for-operators\n")
    alice = {"AGENTSTORAGE_TOKEN": "a-token-for-one-owner"}
    text, content, own, default, other, operator, *unknown = run_each(
        *(
            (("top", "--once", "--target", server.target, *arguments), environment)
            for arguments, environment in (
                ([], alice),
                (["--json"], alice),
                (["--owner", "alice"], alice),
                # The owner of the client's environment is one, too.
                ([], {**alice, "AGENTSTORAGE_OWNER": "alice"}),
                (["--owner", "bob"], alice),
                ([], {"AGENTSTORAGE_TOKEN_FILE": str(secret)}),
                ([], {}),
                ([], {"AGENTSTORAGE_TOKEN": "a-token-of-nobody"}),
            )
        )
    )
    # What it may see is there; of the rest it says what to do, in the place where that would be.
    assert text[::2] == content[::2] == other[::2] == (1, "")
    assert re.search(r"memory$.*^calls ", text.output, re.MULTILINE | re.DOTALL)
    said = " ".join(text.output.split())
    assert 'runs refused for all owners: name one with --owner, or give the token the right "unscoped"' in said
    shown = json.loads(content.output)
    assert (shown["runs"], shown["queue"], shown["server"]["backend"]) == (None, None, "memory")
    assert "--owner" in shown["problem"]
    assert "may not act for the owner bob" in other.output
    for ended, whose in ((own, "alice"), (default, "alice"), (operator, "all owners")):
        assert ended[::2] == (0, "")
        assert f"runs and crons of {whose}\n" in ended.output
    assert len(unknown) == 2
    for ended in unknown:
        assert (ended.status, ended.output) == (1, "")
        assert ended.errors == (
            "Error: refused: the server wants a token that it knows, in AGENTSTORAGE_TOKEN or AGENTSTORAGE_TOKEN_FILE\n"
        )


async def test_tls(serve: Serve, tmp_path: Path) -> None:
    files = certificate(tmp_path, "IP:127.0.0.1")
    server = await serve(environment=files)
    assert "memory" in once("--target", server.target, "--tls-ca", files["STORAGE_TLS_CERT_FILE"])
    assert "memory" in once(environment={"STORAGE_PORT": str(server.port), **files})
    result = run("top", "--once", "--target", server.target)
    assert (result.returncode, result.stdout) == (1, "")
    assert "if it uses TLS, say --tls-ca FILE or --tls" in result.stderr


MISTAKES: dict[str, tuple[list[str], dict[str, str], int]] = {
    "127.0.0.1:1: UNAVAILABLE: nothing listens there": (["--once", "--target", "127.0.0.1:1"], {}, 1),
    'target must be "host:port"': (["--target", "http://localhost:1"], {}, 1),
    "--owner must not be empty": (["--owner", ""], {}, 1),
    "/no/such/file can't be read": (["--tls-ca", "/no/such/file"], {}, 1),
    "use TLS (--tls or --tls-ca FILE), or say AGENTSTORAGE_PLAINTEXT_TOKEN=true": (
        ["--target", "203.0.113.7:1"],
        {"AGENTSTORAGE_TOKEN": "a-token-for-operators"},
        1,
    ),
    "AGENTSTORAGE_TLS takes true or false": ([], {"AGENTSTORAGE_TLS": "perhaps"}, 1),
    "0 is not in the range": (["--interval", "0"], {}, 2),
    "a number of seconds": (["--interval", "nan"], {}, 2),
}


def test_mistakes() -> None:
    commands = ((["top", *arguments], environment) for arguments, environment, _ in MISTAKES.values())
    for (says, (_, _, status)), ended in zip(MISTAKES.items(), run_each(*commands), strict=True):
        assert (ended.status, ended.output) == (status, "")
        last = ended.errors.splitlines()[-1]
        assert last.startswith("Error: ")
        assert says in last
        assert len(ended.errors.splitlines()) == 1 or status == 2
        assert "a-token" not in ended.errors


# The terminal becomes that of the command, so that Ctrl-C typed there is its signal.
_ON_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass
class Live:
    """A ``top`` that goes on, and what it has written; on a terminal or not."""

    process: subprocess.Popen[bytes]
    output: int
    written: str = ""
    _rest: bytes = field(default=b"", repr=False)

    def stops(self, seconds: float = 20) -> None:
        """Wait until it stands still, as a shell does; what goes on before would not be heard."""
        deadline = time.monotonic() + seconds
        while psutil.Process(self.process.pid).status() != psutil.STATUS_STOPPED:
            assert time.monotonic() < deadline, "it does not stop"
            time.sleep(0.01)

    def until(self, pattern: str, seconds: float = 20) -> str:
        """Read until the pattern is in what is written from now on; gives that."""
        start = len(self.written)
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.written[start:], re.DOTALL):
            left = deadline - time.monotonic()
            assert left > 0, f"not within {seconds} s: {pattern}; it wrote {self.written[start:]!r}"
            if select.select([self.output], [], [], left)[0] and not self.read():
                pytest.fail(f"it ended before: {pattern}; it wrote {self.written[start:]!r}")
        return self.written[start:]

    def read(self) -> bool:
        """Read some; False at the end."""
        # A terminal that nobody has open any more is an error to read.
        with contextlib.suppress(OSError):
            self._rest += (data := os.read(self.output, 65536))
            text = self._rest.decode(errors="ignore")
            self._rest = b""
            self.written += text
            return bool(data)
        return False

    def end(self) -> int:
        """Read to the end, and give the exit status."""
        while self.read():
            pass
        return self.process.wait(timeout=20)


@contextlib.contextmanager
def live(*arguments: str, terminal: bool, rows: int = 24, columns: int = 80) -> Iterator[Live]:
    """A live top, ended with the block."""
    command = ["-m", "storage_service", "top", "--interval", "0.2", *arguments]
    output, side = pty.openpty() if terminal else os.pipe()
    if terminal:
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    process = subprocess.Popen(
        [sys.executable, *(["-c", _ON_TERMINAL] if terminal else []), *command],
        env={"PATH": "/usr/bin:/bin", "TERM": "xterm"},
        stdin=side if terminal else subprocess.DEVNULL,
        stdout=side,
        stderr=side,
    )
    os.close(side)
    top = Live(process, output)
    try:
        yield top
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=20)
        os.close(top.output)


# A frame of the terminal begins at its first place and ends by clearing what is below.
_FRAME = r"\x1b\[H[^\n]*UTC.*?\x1b\[J"


def frames(text: str) -> list[list[str]]:
    """The lines of each frame that is whole, without what clears."""
    return [
        [line.removesuffix("\x1b[K") for line in frame.removeprefix("\x1b[H").removesuffix("\x1b[J").split("\r\n")]
        for frame in re.findall(_FRAME, text, re.DOTALL)
    ]


@pytest.fixture
def unscoped(servers: dict[str, ServerProcess]) -> ServerProcess:
    """A server that tells everybody everything."""
    return servers["memory"]


def test_on_a_terminal_until_ctrl_c(unscoped: ServerProcess) -> None:
    with live("--target", unscoped.target, terminal=True) as top:
        top.until(f"({_FRAME}.*){{3}}")
        os.write(top.output, b"\x03")
        assert top.end() == 130
        text = top.written
    # The other screen is entered once and left in the end, with the cursor.
    assert text.startswith("\x1b[?1049h\x1b[?25l\x1b[H")
    assert text.endswith("\x1b[?25h\x1b[?1049l")
    assert (text.count("\x1b[?1049h"), text.count("\x1b[?1049l")) == (1, 1)
    assert "Traceback" not in text
    shown = frames(text)
    assert len(shown) >= 3
    for frame in shown:
        # Nothing scrolls: never as many lines as the terminal has, and none that ends in its last column.
        assert len(frame) <= 24
        assert max(map(width, frame)) < 80
        assert "memory" in frame[0]
    assert "-/s" in "".join(shown[0])
    assert re.search(r"calls +[\d.]+/s", "\n".join(shown[-1]))


def test_a_terminal_that_changes(unscoped: ServerProcess) -> None:
    with live("--target", unscoped.target, "--interval", "60", terminal=True, rows=8, columns=50) as top:
        (frame,) = frames(top.until(_FRAME))
        assert len(frame) <= 8
        assert max(map(width, frame)) < 50
        # What is there is drawn anew, long before the next look.
        fcntl.ioctl(top.output, termios.TIOCSWINSZ, struct.pack("HHHH", 5, 30, 0, 0))
        (frame,) = frames(top.until(_FRAME))
        assert len(frame) <= 5
        assert max(map(width, frame)) < 30
        # Another signal ends it, and leaves the terminal as it was all the same.
        top.process.send_signal(signal.SIGTERM)
        assert top.end() == 143
        assert top.written.endswith("\x1b[?25h\x1b[?1049l")


def test_ctrl_z_gives_the_terminal_back(unscoped: ServerProcess) -> None:
    with live("--target", unscoped.target, "--interval", "60", terminal=True) as top:
        top.until(_FRAME)
        os.write(top.output, b"\x1a")
        top.until(r"\x1b\[\?25h\x1b\[\?1049l$")
        top.stops()
        top.process.send_signal(signal.SIGCONT)
        top.until(rf"\x1b\[\?1049h\x1b\[\?25l{_FRAME}")
        os.write(top.output, b"\x03")
        assert top.end() == 130


async def test_a_server_that_comes_and_goes(serve: Serve) -> None:
    """Without a terminal: a look after the other, also while nobody answers."""
    first = await serve()
    port = first.port
    first.kill()
    with live("--target", first.target, "--owner", "o", terminal=False) as top:
        top.until("no answer.*UNAVAILABLE: nothing listens there\n\n")
        for _ in range(2):
            server = await serve(port=port)
            top.until(r"memory\n.*calls +-/s.*calls +[\d.]+/s")
            server.kill()
            top.until("no answer.*UNAVAILABLE")
        top.process.send_signal(signal.SIGINT)
        assert top.end() == 130
        assert "\x1b" not in top.written
        assert "Traceback" not in top.written


def test_json_goes_on_by_lines(unscoped: ServerProcess) -> None:
    with live("--target", unscoped.target, "--json", terminal=True) as top:
        top.until(r"\n.*\n.*\n")
        os.write(top.output, b"\x03")
        assert top.end() == 130
        shown = [json.loads(line) for line in top.written.splitlines() if line.startswith("{")]
    assert len(shown) >= 3
    assert [each["calls_per_second"] is None for each in shown[:2]] == [True, False]
    assert shown[0]["time"] < shown[1]["time"]


def test_a_reader_that_goes_away(unscoped: ServerProcess) -> None:
    with live("--target", unscoped.target, terminal=False) as top:
        top.until("UTC")
        # As head does when it has its lines.
        os.close(top.output)
        assert top.process.wait(timeout=20) == 1
        top.output = os.open(os.devnull, os.O_RDONLY)
