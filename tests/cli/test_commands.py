"""The commands as users meet them: help, what they do, and one clear line for what they cannot do."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path

import psycopg
import pytest

from storage_service import __version__
from storage_service.settings import described
from storage_service.store.postgres.migrate import LATEST
from tests.adoption import runtimes
from tests.faults.servers import Serve, run
from tests.postgres_server import MakeDatabase, PostgresServer
from tests.service import ServerProcess

COMMANDS = (
    *("serve", "health", "migrate", "doctor", "assign-owner", "sweep", "settings"),
    *("top", "runs", "threads", "owners"),
)
NOWHERE = "postgresql://app:hunter2@127.0.0.1:1/app"


@pytest.mark.parametrize(
    "command", [*((name,) for name in COMMANDS), ()], ids=lambda command: "".join(command) or "all"
)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(command: tuple[str, ...], flag: str) -> None:
    result = run(*command, flag)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Usage: ")
    if not command:
        assert all(re.search(rf"^  {name} ", result.stdout, re.MULTILINE) for name in COMMANDS)


def test_version() -> None:
    assert run("--version").stdout.split()[-1] == __version__


CERTIFICATE = {"STORAGE_TLS_CERT_FILE": "/etc/hostname", "STORAGE_TLS_KEY_FILE": "/etc/hostname"}
# The command, what is set, and what the one line must name.
MISTAKES: list[tuple[tuple[str, ...], dict[str, str], str]] = [
    (("serve",), {"DATABASE_URL": "nonsense"}, "DATABASE_URL"),
    (("serve",), {"DATABASE_URL": "http://app:hunter2@example.com/app"}, "DATABASE_URL"),
    (("migrate",), {"DATABASE_URL": "mysql://app:hunter2@example.com/app"}, "DATABASE_URL"),
    (("doctor",), {"DATABASE_URL": "postgresql://app:hunter2@h/app?nosuchoption=1"}, "DATABASE_URL"),
    (("migrate",), {"DATABASE_URL": NOWHERE}, "DATABASE_URL"),
    (("doctor",), {"DATABASE_URL": NOWHERE}, "DATABASE_URL"),
    (("assign-owner", "--owner", "o", "--all-ownerless"), {"DATABASE_URL": NOWHERE}, "DATABASE_URL"),
    (("migrate",), {}, "DATABASE_URL is not set"),
    (("doctor",), {}, "DATABASE_URL is not set"),
    (("assign-owner", "--owner", "o", "--all-ownerless"), {}, "DATABASE_URL is not set"),
    (("assign-owner", "--owner", "o"), {"DATABASE_URL": NOWHERE}, "--all-ownerless"),
    (("assign-owner", "--owner", "o", "--id", "x", "--all-ownerless"), {"DATABASE_URL": NOWHERE}, "--all-ownerless"),
    (("serve",), {"DATABASE_URL_FILE": "/no/such/file"}, "DATABASE_URL_FILE"),
    (("serve",), {"DATABASE_URL_FILE": "/etc/hostname", "DATABASE_URL": NOWHERE}, "set one"),
    (("serve", "--embedded", "/nowhere"), {"DATABASE_URL": NOWHERE}, "unset DATABASE_URL, or leave out --embedded"),
    (
        ("serve", "--embedded", "/nowhere"),
        {"DATABASE_URL_FILE": "/etc/hostname"},
        "unset DATABASE_URL_FILE, or leave out --embedded (make serve gives it)",
    ),
    (("doctor",), {"DATABASE_URL": " "}, "DATABASE_URL is not set"),
    (
        ("import-checkpoints", "--from-postgres", "--owner", "o"),
        {"DATABASE_URL": NOWHERE, "SOURCE_DATABASE_URL": " "},
        "SOURCE_DATABASE_URL is not set",
    ),
    (("serve",), {"STORAGE_PORT": "http"}, "STORAGE_PORT"),
    (("serve",), {"STORAGE_PORT": "65536"}, "STORAGE_PORT"),
    (("serve",), {"STORAGE_WORKERS": "0"}, "STORAGE_WORKERS"),
    (("serve", "--workers", "257"), {"DATABASE_URL": NOWHERE}, "STORAGE_WORKERS"),
    (("serve",), {"STORAGE_WORKERS": "2"}, "DATABASE_URL"),
    (("serve", "--workers", "2"), {"DATABASE_URL": "nonsense"}, "DATABASE_URL"),
    (
        ("serve", "--host", "203.0.113.7", "--allow-insecure-listen", "--workers", "2"),
        {"DATABASE_URL": NOWHERE},
        "203.0.113.7",
    ),
    (("serve",), {"STORAGE_CALL_SECONDS": "-1"}, "STORAGE_CALL_SECONDS"),
    (("serve",), {"STORAGE_CALL_SECONDS": "nan"}, "STORAGE_CALL_SECONDS"),
    (("serve",), {"STORAGE_CALL_SECONDS": "0"}, "STORAGE_CALL_SECONDS takes a number above 0"),
    (("serve",), {"DATABASE_POOL_MIN_SIZE": "11"}, "DATABASE_POOL_MIN_SIZE"),
    (("serve",), {"DATABASE_POOL_MIN_SIZE": "0"}, "DATABASE_POOL_MIN_SIZE"),
    (("serve",), {"DATABASE_TRANSACTION_POOLER": "perhaps"}, "DATABASE_TRANSACTION_POOLER"),
    (("serve",), {"STORAGE_LOG_LEVEL": "loud"}, "STORAGE_LOG_LEVEL"),
    (("serve",), {"STORAGE_REFLECTION": "maybe"}, "STORAGE_REFLECTION"),
    (("serve",), {"STORAGE_ANONYMOUS_RIGHTS": "root"}, "STORAGE_ANONYMOUS_RIGHTS"),
    (("serve",), {"STORAGE_TOKEN_FILE": "/no/such/file"}, "/no/such/file"),
    (("serve",), {"STORAGE_TOKEN_FILE": "/etc/passwd"}, "/etc/passwd"),
    (("serve",), {"STORAGE_TLS_CERT_FILE": "/etc/hostname"}, "STORAGE_TLS_KEY_FILE"),
    (("serve",), {"STORAGE_TLS_CERT_FILE": "/no/file", "STORAGE_TLS_KEY_FILE": "/no/file"}, "STORAGE_TLS_CERT_FILE"),
    (("serve",), CERTIFICATE, "STORAGE_TLS_CERT_FILE"),
    (("serve", "--host", "0.0.0.0"), {}, "--allow-insecure-listen"),  # noqa: S104 - what is tested
    (("serve", "--host", "::"), {}, "--allow-insecure-listen"),
    (("serve", "--host", "storage.example"), {}, "--allow-insecure-listen"),
    (("serve", "--host", "0.0.0.0"), {"STORAGE_TOKEN_FILE": "/etc/hostname"}, "TLS"),  # noqa: S104 - what is tested
    (("serve", "--host", "203.0.113.7", "--allow-insecure-listen"), {}, "203.0.113.7"),
]


@pytest.mark.parametrize(
    ("command", "environment", "named"), MISTAKES, ids=[f"{number}-{m[2][:24]}" for number, m in enumerate(MISTAKES)]
)
def test_mistakes(command: tuple[str, ...], environment: dict[str, str], named: str) -> None:
    if command[0] == "serve" and "STORAGE_PORT" not in environment:
        environment = {"STORAGE_PORT": "0", **environment}
    result = run(*command, **environment)
    assert result.returncode == 1
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    # The log may say before that the data is in memory only.
    assert all('"level": "warning"' in line for line in lines[:-1])
    assert lines[-1].startswith("Error: ")
    assert named in lines[-1]
    assert "hunter2" not in result.stderr


@pytest.mark.parametrize(
    "command", [("frobnicate",), ("serve", "--colour"), ("serve", "--port", "x"), ("assign-owner",)]
)
def test_usage(command: tuple[str, ...]) -> None:
    result = run(*command)
    assert result.returncode == 2
    assert result.stderr.startswith("Usage: ")
    assert "Error: " in result.stderr


def test_a_port_that_is_taken(server: ServerProcess, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for more in ((), ("--embedded", str(data))):
        result = run("serve", "--port", str(server.port), *more)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == (
            f"Error: can't listen on 127.0.0.1:{server.port}: another process does, or the address is not of this machine"
            "; --port names another port\n"
        )
        assert not data.exists(), "no Postgres is made for it"


async def test_health(serve: Serve, server: ServerProcess) -> None:
    healthy = run("health", "--target", server.target)
    assert (healthy.returncode, healthy.stdout, healthy.stderr) == (0, f"{server.target}: SERVING\n", "")
    # By the settings of serve, as the probe of a container calls it.
    assert run("health", STORAGE_PORT=str(server.port)).returncode == 0
    # Its own server is on this machine, whatever proxy is set for others.
    assert run("health", STORAGE_PORT=str(server.port), http_proxy="http://127.0.0.1:1").returncode == 0
    assert run("health", "--host-of-nothing").returncode == 2
    one = run("health", "--target", server.target, "--service", "agentstorage.v1.RunService")
    assert one.returncode == 0
    none = run("health", "--target", server.target, "--service", "no.such.Service")
    assert (none.returncode, none.stderr) == (1, f"{server.target}: NOT_FOUND: it has no service no.such.Service\n")
    without = await serve(NOWHERE, environment={"DATABASE_PROBE_SECONDS": "0.5"})
    sick = run("health", "--target", without.target)
    assert (sick.returncode, sick.stdout) == (1, "")
    assert sick.stderr.startswith(f"{without.target}: NOT_SERVING: it waits for its database")


def test_health_says_why_nobody_answers(server: ServerProcess) -> None:
    def says(target: str, *arguments: str) -> str:
        result = run("health", "--target", target, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith(f"{target}: ")
        return result.stderr.removeprefix(f"{target}: ")

    assert says("127.0.0.1:1") == "UNAVAILABLE: nothing listens there\n"
    assert says("no-such-host.invalid:1") == "UNAVAILABLE: the name cannot be resolved\n"
    assert says(server.target, "--tls") == "UNAVAILABLE: it does not use TLS: ask without it\n"
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"127.0.0.1:{silent.getsockname()[1]}"
        assert says(target, "--timeout", "0.5") == "DEADLINE_EXCEEDED: no answer within 0.5 s\n"
    for target in ("localhost", "localhost:0", "localhost:65536", f"http://{server.target}", f"grpc://{server.target}"):
        result = run("health", "--target", target)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr.startswith("Error: --target takes HOST:PORT")


def certificate(directory: Path, names: str) -> dict[str, str]:
    """What tells ``serve`` of a new certificate for these names."""
    files = {"STORAGE_TLS_CERT_FILE": str(directory / "cert.pem"), "STORAGE_TLS_KEY_FILE": str(directory / "key.pem")}
    key, cert = files["STORAGE_TLS_KEY_FILE"], files["STORAGE_TLS_CERT_FILE"]
    kind = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    subject = ["-subj", "/CN=storage", "-addext", f"subjectAltName={names}"]
    subprocess.run(
        ["openssl", "req", *kind, *subject, "-keyout", key, "-out", cert],  # noqa: S607
        check=True,
        capture_output=True,
        timeout=30,
    )
    return files


async def test_health_over_tls(serve: Serve, tmp_path: Path) -> None:
    files = certificate(tmp_path, "IP:127.0.0.1")
    server = await serve(environment=files)
    file = files["STORAGE_TLS_CERT_FILE"]
    asked = run("health", "--target", server.target, "--tls-ca", file)
    assert (asked.returncode, asked.stdout, asked.stderr) == (0, f"{server.target}: SERVING\n", "")
    # As the probe of a container asks: the settings of serve, and no flags.
    assert run("health", STORAGE_PORT=str(server.port), **files).returncode == 0
    for arguments, words in (
        ((), "it closed the connection; if it uses TLS, say --tls-ca FILE or --tls"),
        (("--tls",), "no known authority vouches for its TLS certificate"),
    ):
        result = run("health", "--target", server.target, *arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert words in result.stderr
    other = run("health", "--target", f"localhost:{server.port}", "--tls-ca", file)
    assert "its TLS certificate is for another name or address" in other.stderr
    absent = run("health", "--tls-ca", str(tmp_path / "absent"))
    assert absent.stderr == "Error: --tls-ca can't be read: No such file or directory\n"
    none = run("health", "--tls-ca", "/etc/hostname")
    assert none.stderr == "Error: --tls-ca holds no certificate as PEM\n"


def test_settings_names_them_all() -> None:
    text = run("settings").stdout
    rows = json.loads(run("settings", "--json").stdout)
    assert [(row["variable"], row["default"], row["meaning"]) for row in rows] == described()
    names = [row["variable"] for row in rows]
    assert len(names) == len(set(names)) > 20
    for row in rows:
        assert f"{row['variable']}\n    {row['meaning']} (default: {row['default'] or 'empty'})" in text
    # What the source reads from the environment is what it tells of, and each has a meaning.
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "storage_service").rglob("*.py"))
    mentioned = set(re.findall(r"\b(?:DATABASE|STORAGE)_[A-Z]+(?:_[A-Z]+)*\b", source))
    assert mentioned - set(names) <= {"DATABASE_UNAVAILABLE", "DATABASE_URL_FILE"}


def legacy(postgres_server: PostgresServer, make_database: MakeDatabase) -> str:
    return make_database(postgres_server.template("legacy", runtimes.both))


def test_migrate_and_doctor_on_an_empty_database(make_database: MakeDatabase) -> None:
    url = make_database()
    before = run("doctor", DATABASE_URL=url)
    assert (before.stderr, before.returncode) == ("", before.returncode)
    assert before.stdout
    first = run("migrate", DATABASE_URL=url)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.count("applied ") == LATEST + 1
    assert first.stdout.endswith(f"the schema is at revision {LATEST}\n")
    again = run("migrate", DATABASE_URL=url)
    assert again.stdout == f"the schema is at revision {LATEST}\n"
    after = run("doctor", DATABASE_URL=url)
    assert (after.returncode, after.stderr) == (0, "")


def test_the_way_of_an_adoption(postgres_server: PostgresServer, make_database: MakeDatabase) -> None:
    # Look, migrate, look, try who would be assigned, assign, look.
    url = legacy(postgres_server, make_database)
    before = runtimes.contents(url)
    looked = run("doctor", DATABASE_URL=url)
    assert looked.stderr == ""
    assert runtimes.contents(url) == before, "doctor changes nothing"
    assert run("migrate", DATABASE_URL=url).returncode == 0
    found = run("doctor", DATABASE_URL=url)
    assert found.stderr == ""
    assert "assign-owner" in found.stdout
    tried = run("assign-owner", "--owner", "acme", "--all-ownerless", "--dry-run", DATABASE_URL=url)
    assert (tried.returncode, tried.stderr) == (0, "")
    assert "would be assigned" in tried.stdout
    assert ownerless(url) > 0
    done = run("assign-owner", "--owner", "acme", "--all-ownerless", DATABASE_URL=url)
    assert done.stdout == tried.stdout.replace(" would be", "")
    assert ownerless(url) == 0
    assert "assign-owner" not in run("doctor", DATABASE_URL=url).stdout


def ownerless(url: str) -> int:
    with psycopg.connect(url) as conn:
        row = conn.execute(
            "SELECT (SELECT count(*) FROM langgraph_server.assistants WHERE owner_id IS NULL)"
            " + (SELECT count(*) FROM langgraph_server.threads WHERE owner_id IS NULL)"
            " + (SELECT count(*) FROM langgraph_server.runs WHERE owner_id IS NULL)"
        ).fetchone()
    assert row is not None
    return int(row[0])


def test_assign_owner_to_one(postgres_server: PostgresServer, make_database: MakeDatabase) -> None:
    url = legacy(postgres_server, make_database)
    assert run("migrate", DATABASE_URL=url).returncode == 0
    before = ownerless(url)
    result = run(
        "assign-owner", "--owner", "acme", "--resource", "assistants", "--id", runtimes.TS_ASSISTANT, DATABASE_URL=url
    )
    assert "assistants: 1 assigned" in result.stdout
    # One assistant, and nothing else.
    assert ownerless(url) == before - 1
    again = run("assign-owner", "--owner", "acme", "--id", runtimes.TS_ASSISTANT, DATABASE_URL=url)
    assert (again.returncode, again.stderr) == (0, ""), "it has this owner already"
    wrong = run("assign-owner", "--owner", "acme", "--resource", "unicorns", "--all-ownerless", DATABASE_URL=url)
    assert wrong.returncode != 0
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize("flags", [(), ("--dry-run",)])
def test_assign_owner_to_what_is_not_there(
    postgres_server: PostgresServer, make_database: MakeDatabase, flags: tuple[str, ...]
) -> None:
    url = legacy(postgres_server, make_database)
    assert run("migrate", DATABASE_URL=url).returncode == 0
    absent = run("assign-owner", "--owner", "acme", "--id", "nobody", *flags, DATABASE_URL=url)
    assert absent.returncode == 1
    assert absent.stderr == "Error: not assigned: nobody (no row has this id)\n"
    # A row that could be assigned is, the other one is told of.
    both = ("--id", runtimes.TS_ASSISTANT, "--id", runtimes.PY_ASSISTANT)
    result = run("assign-owner", "--owner", "acme", *both, *flags, DATABASE_URL=url)
    assert result.returncode == 1
    assert "assistants: 1 " in result.stdout
    assert result.stderr == f"Error: not assigned: {runtimes.PY_ASSISTANT} (it has another owner)\n"
    here = run(
        "assign-owner", "--owner", "acme", "--resource", "crons", "--id", runtimes.TS_ASSISTANT, DATABASE_URL=url
    )
    assert (here.returncode, "no row has this id" in here.stderr) == (1, True)


@pytest.mark.parametrize("command", ["migrate", "doctor"])
def test_a_role_without_rights(postgres_server: PostgresServer, make_database: MakeDatabase, command: str) -> None:
    url = make_database()
    with psycopg.connect(url, autocommit=True) as conn:
        name = f"reader_{command}_{conn.info.dbname}"
        conn.execute(f"CREATE ROLE {name} LOGIN")
    try:
        result = run(command, DATABASE_URL=url.replace("postgres@", f"{name}@"))
        assert result.returncode == (1 if command == "migrate" else result.returncode)
        assert "Traceback" not in result.stderr
        assert len(result.stderr.splitlines()) <= 1
    finally:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(f"DROP ROLE {name}")
