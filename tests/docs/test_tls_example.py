"""The example of docs/operation.md with TLS and a token runs as it stands, but for the address and the port."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.docs.markdown import ROOT, blocks

OPERATION = ROOT / "docs" / "operation.md"
TOOLS = ROOT / ".tools" / "bin"


def _steps() -> tuple[str, str, str]:
    """The secrets, the server, and the calls."""
    texts = [block.text for block in blocks(OPERATION)]
    first = next(number for number, text in enumerate(texts) if "> tokens.toml" in text)
    secrets, server, calls = texts[first : first + 3]
    return secrets, server, calls


def test_the_example_runs(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    (tmp_path / "protos").symlink_to(ROOT / "protos")
    path = f"{Path(sys.executable).parent}:{TOOLS}:{os.environ['PATH']}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("STORAGE_", "AGENTSTORAGE_"))}
    # The test listens on loopback only, so it says what the address says in the example.
    environment = {**environment, "PATH": path, "STORAGE_DRAIN_SECONDS": "0", "STORAGE_REFLECTION": "off"}

    def shell(text: str) -> subprocess.CompletedProcess[str]:
        text = text.replace("50051", port)
        if not (TOOLS / "grpcurl").exists():
            text = re.sub(r"^grpcurl (.*\\\n)*.*\n", "", text, flags=re.MULTILINE)
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],  # noqa: S607
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    secrets, server, calls = _steps()
    assert shell(secrets).returncode == 0
    command = "exec env " + server.replace("50051", port).replace("0.0.0.0", "127.0.0.1")  # noqa: S104 - not listened on
    process = subprocess.Popen(["bash", "-c", command], env=environment, cwd=tmp_path, stderr=subprocess.DEVNULL)  # noqa: S607
    try:
        deadline = time.monotonic() + 30
        health = calls.splitlines()[0]
        while shell(health).returncode:
            assert time.monotonic() < deadline
            assert process.poll() is None
        done = shell(calls)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"localhost:{port}: SERVING" in done.stdout
        assert done.stdout.splitlines()[-1] == ("1" if (TOOLS / "grpcurl").exists() else "0")
    finally:
        process.terminate()
        process.wait(timeout=30)
