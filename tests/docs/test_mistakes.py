"""What docs/operation.md says that the commands say at a mistake is what they say."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT

OPERATION = ROOT / "docs" / "operation.md"
_AWAY = {"DATABASE_URL": "postgresql://postgres@127.0.0.1:1/postgres"}

MISTAKES: dict[str, tuple[str, dict[str, str]]] = {
    "open to all": ("serve --host 0.0.0.0 --port 0", {}),
    "certificate without key": ("serve --port 0", {"STORAGE_TLS_CERT_FILE": "cert.pem"}),
    "no certificate": ("serve --port 0", {"STORAGE_TLS_CERT_FILE": "no.pem", "STORAGE_TLS_KEY_FILE": "no.pem"}),
    "bad certificate": ("serve --port {port}", {"STORAGE_TLS_CERT_FILE": "bad", "STORAGE_TLS_KEY_FILE": "bad"}),
    "no token file": ("serve --port 0", {"STORAGE_TOKEN_FILE": "tokens.toml"}),
    "short token": ("serve --port 0", {"STORAGE_TOKEN_FILE": "short/tokens.toml"}),
    "no URL": ("doctor", {"DATABASE_URL": "nonsense"}),
    "two databases": ("serve --port 0 --embedded data", _AWAY),
    "two URLs": ("serve --port 0", {**_AWAY, "DATABASE_URL_FILE": "url"}),
    "workers in memory": ("serve --port 0 --workers 2", {}),
    "no workers": ("serve --port 0 --workers 0", {}),
    "no number": ("serve", {"STORAGE_PORT": "many"}),
    "zero": ("serve", {"STORAGE_CALL_SECONDS": "0"}),
    "misspelt": ("doctor", {"DATABASE_URI": "postgresql://h/d"}),
    "pool": ("serve --port 0", {"DATABASE_POOL_MIN_SIZE": "20"}),
    "right": ("serve --port 0", {"STORAGE_ANONYMOUS_RIGHTS": "root"}),
    "doctor without a database": ("doctor", {}),
    "migrate without a database": ("migrate", {}),
    "doctor while it is away": ("doctor", _AWAY),
    "health where nobody listens": ("health --target 127.0.0.1:1", {}),
    "health of a URL": ("health --target http://localhost:50051", {}),
    "assign-owner without rows": ("assign-owner --owner alice", _AWAY),
    "assign-owner to some and all": ("assign-owner --owner alice --id t1 --all-ownerless", _AWAY),
    "import-store with both owners": ("import-store --owner alice --owner-label 2", _AWAY),
    "import-checkpoints from both": ("import-checkpoints --from-sqlite agents.sqlite --from-postgres", _AWAY),
}


def _says(command: str, settings: dict[str, str], directory: Path, status: int = 1) -> str:
    """The last line of a command that fails with an exit status."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("DATABASE_", "STORAGE_"))}
    done = subprocess.run(
        [sys.executable, "-m", "storage_service", *command.split()],
        env={**environment, **settings},
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_told_as_the_page_says(name: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("garbage")
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "tokens.toml").write_text('[[token]]\ntoken = "short"\nowners = "all"\n')
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, settings = MISTAKES[name]
    said = _says(command.format(port=port), settings, tmp_path)
    said = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:50051", said.replace("short/tokens", "tokens"))
    assert f"`{said}`" in OPERATION.read_text()


def test_a_taken_port_is_told_as_the_page_says(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        said = _says(f"serve --port {taken.getsockname()[1]}", {}, tmp_path)
    assert f"`{re.sub(r'127.0.0.1:[0-9]+', '127.0.0.1:50051', said)}`" in OPERATION.read_text()


@pytest.mark.parametrize(
    "command", ["assign-owner", "serve --colour", "serve --port x"], ids=["no option", "no such option", "no number"]
)
def test_a_command_line_that_is_none_has_the_status_that_the_page_names(command: str, tmp_path: Path) -> None:
    assert _says(command, {}, tmp_path, status=2).startswith("Error: ")
    (said,) = re.findall(r"## Mistakes, .*?\n\n(.*?)\n\n", OPERATION.read_text(), re.DOTALL)
    assert "exit status 1" in said
    assert re.search(r"\(.*a missing option.*wrong type.*\)\s+end with 2", said, re.DOTALL)
