"""Who calls: tokens of a file with their owners and rights, TLS from files, and no open door beyond this machine."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from agentstorage import Connection, StorageError
from agentstorage.v1 import server_pb2, server_pb2_grpc, threads_pb2, threads_pb2_grpc
from tests.faults.servers import Serve, health, run, troubles, until
from tests.service import CallFailed, GrpcApi, ServerProcess, request_of

ALICE, ADMIN, HASHED, POWERLESS = (f"{name}-0123456789abcdef" for name in ("alice", "admin", "hashed", "powerless"))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ca.pem, server.pem and server.key for localhost, and another authority in other.pem."""
    directory = tmp_path_factory.mktemp("tls")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True, timeout=30)  # noqa: S607

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    for name in ("ca", "other"):
        openssl(
            "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem", "-days", "2", "-subj", f"/CN={name}"
        )
    openssl("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
    (directory / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    openssl(
        *("x509", "-req", "-in", "server.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-days", "2", "-extfile", "names", "-out", "server.pem"),
    )
    return directory


@pytest.fixture(scope="module")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A token file with every kind of entry."""
    file = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    file.write_text(
        f"""
[[token]]
name = "alice's service"
token = "{ALICE}"
owners = ["alice", "team"]

[[token]]
name = "the operator"
token = "{ADMIN}"
owners = "all"
rights = ["unscoped", "admin"]

[[token]]
sha256 = "{hashlib.sha256(HASHED.encode()).hexdigest()}"
owners = "all"

[[token]]
token = "{POWERLESS}"
owners = []
"""
    )
    return file


@pytest.fixture
async def guarded(serve: Serve, token_file: Path, certificates: Path) -> ServerProcess:
    """A server with tokens and TLS, as it may listen to the world."""
    environment = {
        "STORAGE_TOKEN_FILE": str(token_file),
        "STORAGE_TLS_CERT_FILE": str(certificates / "server.pem"),
        "STORAGE_TLS_KEY_FILE": str(certificates / "server.key"),
        "STORAGE_LOG_LEVEL": "INFO",
    }
    return await serve("", "--host", "0.0.0.0", environment=environment)  # noqa: S104 - guarded


@pytest.fixture
async def channel(guarded: ServerProcess, certificates: Path) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it, without any token."""
    credentials = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    async with grpc.aio.secure_channel(guarded.target, credentials) as channel:
        yield channel


async def outcome(channel: grpc.aio.Channel, token: str | None, method: str, **fields: Any) -> str:
    """OK, or the status and the reason of the failure."""
    metadata = {} if token is None else {"authorization": f"Bearer {token}"}
    try:
        await GrpcApi(channel, "memory").send(method, request_of(method, fields).SerializeToString(), metadata)
    except CallFailed as failure:
        return f"{failure.code.name} {failure.reason}"
    return "OK"


async def test_owners_and_rights(channel: grpc.aio.Channel, guarded: ServerProcess) -> None:
    denied = "PERMISSION_DENIED PERMISSION_DENIED"
    required = "INVALID_ARGUMENT OWNER_REQUIRED"
    for token, owner_id, expected in (
        (ALICE, "alice", "OK"),
        (ALICE, "team", "OK"),
        (ALICE, "bob", denied),
        (ALICE, "system", denied),
        (ALICE, None, required),
        (HASHED, "bob", "OK"),
        (HASHED, None, required),
        (ADMIN, "alice", "OK"),
        (ADMIN, None, "OK"),
        (POWERLESS, "alice", denied),
    ):
        fields = {} if owner_id is None else {"owner_id": owner_id}
        assert await outcome(channel, token, "CreateThread", **fields) == expected, (token, owner_id)
        assert await outcome(channel, token, "SearchThreads", **fields) == expected, (token, owner_id)
    truncate = {"resources": ["RESOURCE_THREADS"]}
    assert await outcome(channel, ALICE, "Truncate", **truncate) == denied
    assert await outcome(channel, ADMIN, "Truncate", **truncate) == "OK"
    # No token, and no trace of one, is in the log; the callers are.

    async def names_the_callers() -> bool:
        return "alice's service" in guarded.log.read_text()

    await until(names_the_callers, 5)
    log = guarded.log.read_text()
    for token in (ALICE, ADMIN, HASHED, POWERLESS):
        assert token not in log
    assert troubles(guarded.log) == []


async def test_no_token_that_counts(channel: grpc.aio.Channel) -> None:
    unauthenticated = "UNAUTHENTICATED UNAUTHENTICATED"
    for token in (None, "", "wrong", ALICE[:-1], ALICE + "x", ALICE.upper(), f"{ALICE} {ADMIN}", "%00"):
        for method, fields in (("GetThread", {"owner_id": "alice", "thread_id": "t"}), ("GetServerInfo", {})):
            assert await outcome(channel, token, method, **fields) == unauthenticated, token
    # Two credentials are none, whichever comes first; another scheme is none either.
    for metadata in (
        (("authorization", f"Bearer {ALICE}"), ("authorization", f"Bearer {ADMIN}")),
        (("authorization", f"Basic {ALICE}"),),
        (("authorization", ALICE),),
        (("x-authorization", f"Bearer {ALICE}"),),
        (("authorization-bin", f"Bearer {ALICE}".encode()),),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary("/agentstorage.v1.ServerService/GetServerInfo", bytes, bytes)(
                b"", timeout=10, metadata=grpc.aio.Metadata(*metadata)
            )
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    # Before anything of the request is looked at.
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary("/agentstorage.v1.ThreadService/GetThread", bytes, bytes)(b"\xff\xff", timeout=10)
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    # The probes of an orchestrator have no token.
    assert await health(channel) == "SERVING"


async def test_the_python_client(guarded: ServerProcess, certificates: Path, tmp_path: Path) -> None:
    target = f"localhost:{guarded.port}"
    trusted = str(certificates / "ca.pem")
    file = tmp_path / "token"
    file.write_text(f"{ALICE}\n")
    request = threads_pb2.CreateThreadRequest(owner_id="alice")
    async with Connection(target, token=ALICE, tls_ca=trusted) as connection:
        made = await connection.stub(threads_pb2_grpc.ThreadServiceStub).CreateThread(request)
        assert made.thread.thread_id
        with pytest.raises(StorageError) as caught:
            await connection.stub(threads_pb2_grpc.ThreadServiceStub).CreateThread(
                threads_pb2.CreateThreadRequest(owner_id="bob")
            )
        assert caught.value.code is grpc.StatusCode.PERMISSION_DENIED
    for wrong in (
        {"token": "wrong-0123456789abcdef", "tls_ca": trusted},
        # An authority that did not sign the certificate; and no TLS where the server has nothing else.
        {"token": ALICE, "tls_ca": str(certificates / "other.pem")},
        {"token": ALICE, "tls": False},
    ):
        async with Connection(target, read_timeout=2, **wrong) as connection:
            with pytest.raises(StorageError) as caught:
                await connection.stub(server_pb2_grpc.ServerServiceStub).GetServerInfo(
                    server_pb2.GetServerInfoRequest()
                )
            assert caught.value.code in (
                grpc.StatusCode.UNAUTHENTICATED,
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.DEADLINE_EXCEEDED,
            )


def test_health_of_a_server_with_tls(guarded: ServerProcess, certificates: Path) -> None:
    # As the probe in the server's own container calls it: with the settings of the server.
    environment = {
        "STORAGE_PORT": str(guarded.port),
        "STORAGE_HOST": "0.0.0.0",  # noqa: S104 - not listened on
        "STORAGE_TOKEN_FILE": "/dev/null",
        "STORAGE_TLS_CERT_FILE": str(certificates / "server.pem"),
        "STORAGE_TLS_KEY_FILE": str(certificates / "server.key"),
    }
    result = run("health", **environment)
    assert (result.returncode, result.stderr) == (0, "")


async def test_open_beyond_loopback_only_when_told(serve: Serve, owner: str) -> None:
    for words in (("--allow-insecure-listen",), ()):
        environment = {} if words else {"STORAGE_ALLOW_INSECURE_LISTEN": "true"}
        server = await serve("", "--host", "0.0.0.0", *words, environment=environment)  # noqa: S104 - what is tested
        async with grpc.aio.insecure_channel(server.target) as channel:
            assert await outcome(channel, None, "CreateThread", owner_id=owner) == "OK"


async def test_anonymous_callers_have_no_rights_by_default(serve: Serve) -> None:
    server = await serve(environment={"STORAGE_ANONYMOUS_RIGHTS": "", "STORAGE_ALLOW_TRUNCATE": "false"})
    async with grpc.aio.insecure_channel(server.target) as channel:
        assert await outcome(channel, None, "CreateThread", owner_id="o") == "OK"
        assert await outcome(channel, None, "CreateThread") == "INVALID_ARGUMENT OWNER_REQUIRED"
        truncate = await outcome(channel, None, "Truncate", resources=["RESOURCE_THREADS"])
        assert truncate == "PERMISSION_DENIED PERMISSION_DENIED"


BAD_FILES = {
    "nothing": "",
    "short": '[[token]]\ntoken = "short"\nowners = "all"\n',
    "both": f'[[token]]\ntoken = "{ALICE}"\nsha256 = "{"0" * 64}"\nowners = "all"\n',
    "hash": f'[[token]]\nsha256 = "{"g" * 64}"\nowners = "all"\n',
    "no owners": f'[[token]]\ntoken = "{ALICE}"\n',
    "owners": f'[[token]]\ntoken = "{ALICE}"\nowners = "alice"\n',
    "empty owner": f'[[token]]\ntoken = "{ALICE}"\nowners = [""]\n',
    "rights": f'[[token]]\ntoken = "{ALICE}"\nowners = "all"\nrights = ["root"]\n',
    "unknown": f'[[token]]\ntoken = "{ALICE}"\nowners = "all"\nexpires = 2030\n',
    "twice": f'[[token]]\ntoken = "{ALICE}"\nowners = "all"\n' * 2,
    "toml": "[[token",
    "table": 'token = "x"',
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_token_files_that_cannot_be_used(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(BAD_FILES[kind])
    result = run("serve", "--port", "0", STORAGE_TOKEN_FILE=str(file))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines()[-1].startswith(f"Error: the token file {file}")
    assert "Traceback" not in result.stderr
    assert ALICE not in result.stderr
