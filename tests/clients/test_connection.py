"""Where the settings of a connection come from, and what is refused before anything is sent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions

import agentstorage.v1
from agentstorage import Connection, GrpcStorage, methods
from agentstorage.v1 import threads_pb2_grpc


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "TARGET",
        "OWNER",
        "TOKEN",
        "TOKEN_FILE",
        "TLS",
        "TLS_CA",
        "TLS_CERT",
        "TLS_KEY",
        "PLAINTEXT_TOKEN",
        "EXCHANGE",
    ):
        monkeypatch.delenv(f"AGENTSTORAGE_{name}", raising=False)


def test_defaults() -> None:
    made = Connection()
    assert made.target == "localhost:50051"
    assert made.owner_id is None


def test_the_environment_gives_defaults_and_arguments_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTSTORAGE_TARGET", "127.0.0.1:6000")
    monkeypatch.setenv("AGENTSTORAGE_OWNER", "alice")
    assert (Connection().target, Connection().owner_id) == ("127.0.0.1:6000", "alice")
    made = Connection("127.0.0.1:7000", owner_id="bob")
    assert (made.target, made.owner_id) == ("127.0.0.1:7000", "bob")


@pytest.mark.parametrize(
    "target",
    ["localhost:50051", "[::1]:50051", "dns:///storage:50051", "unix:/run/s.sock", "ipv4:10.0.0.1:1,10.0.0.2:1"],
)
def test_targets(target: str) -> None:
    assert Connection(target).target == target


@pytest.mark.parametrize("target", ["localhost", "http://localhost:50051", "::1:50051", "a:1,b:2", "host:", "a b:1"])
def test_what_is_no_target_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        Connection(target)


def test_a_password_in_what_is_no_target_is_not_repeated() -> None:
    with pytest.raises(ValueError, match=r"not '\.\.\.@localhost:5432/x'"):
        Connection("postgresql://u:secret@localhost:5432/x")


@pytest.mark.parametrize(
    "target", ["a:0", "a:65536", "dns:///a:99999", "ipv4:10.0.0.1:1,10.0.0.2:70000", "[::1]:100000"]
)
def test_a_port_that_is_none_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match=r"a port is from 1 to 65535, not \d+"):
        Connection(target)


@pytest.mark.parametrize("token", ["", " ", "two words", "tok\nen", "tökén"])
def test_what_is_no_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="one word") as caught:
        Connection(token=token)
    assert not token.strip() or token not in str(caught.value)


def test_a_token_never_leaves_the_machine_in_the_clear_by_accident() -> None:
    for target in ("storage:50051", "10.0.0.1:50051", "dns:///storage:50051", "ipv4:127.0.0.1:1,10.0.0.1:1"):
        with pytest.raises(ValueError, match="in the clear"):
            Connection(target, token="t")
        Connection(target, token="t", tls=True)
        Connection(target, token="t", plaintext_token=True)
    for target in ("localhost:1", "127.0.0.1:1", "[::1]:1", "unix:/run/s.sock", "dns:///localhost:1"):
        Connection(target, token="t")


def test_two_sources_of_a_token_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTSTORAGE_TOKEN", "a")
    monkeypatch.setenv("AGENTSTORAGE_TOKEN_FILE", str(tmp_path / "token"))
    with pytest.raises(ValueError, match="set one"):
        Connection()


def test_a_token_file_that_is_absent_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTSTORAGE_TOKEN_FILE", str(tmp_path / "absent"))
    with pytest.raises(FileNotFoundError, match=r"^AGENTSTORAGE_TOKEN_FILE: .*absent can't be read"):
        Connection()


def test_a_changed_token_file_is_read_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    now = [0.0]
    monkeypatch.setattr("agentstorage.connection.time.monotonic", lambda: now[0])
    file = tmp_path / "token"
    file.write_text("first\n")
    monkeypatch.setenv("AGENTSTORAGE_TOKEN_FILE", str(file))
    source = Connection()._metadata
    file.write_text("second\n")
    assert list(source() or ()) == [("authorization", "Bearer first")]
    now[0] = 11.0
    assert list(source() or ()) == [("authorization", "Bearer second")]
    file.unlink()
    now[0] = 22.0
    assert list(source() or ()) == [("authorization", "Bearer second")]


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    absent = tmp_path / "absent.pem"
    pair = tmp_path / "pair.pem"
    pair.write_text("CERTIFICATE----- PRIVATE KEY-----")
    for option, files in (
        ("tls_ca", {"tls_ca": absent}),
        ("tls_cert", {"tls_cert": absent, "tls_key": pair}),
        ("tls_key", {"tls_cert": pair, "tls_key": absent}),
    ):
        with pytest.raises(FileNotFoundError) as caught:
            Connection(**files)  # type: ignore[arg-type]  # the options of files alone
        assert str(caught.value) == (
            f"{option} (or AGENTSTORAGE_{option.upper()}): {absent} can't be read: No such file or directory"
        )
    (tmp_path / "text.pem").write_text("no certificate")
    with pytest.raises(ValueError, match=r"tls_ca .*text\.pem holds no certificate as PEM"):
        Connection(tls_ca=tmp_path / "text.pem")
    with pytest.raises(ValueError, match="belong together"):
        Connection(tls_cert=tmp_path / "cert.pem")
    with pytest.raises(ValueError, match="tls is off"):
        Connection(tls=False, tls_ca=tmp_path / "ca.pem")


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_times_must_be_positive(seconds: float) -> None:
    with pytest.raises(ValueError, match="read_timeout"):
        Connection(read_timeout=seconds)


def test_settings_of_the_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="streams must be 1 or more"):
        Connection(streams=0)
    monkeypatch.setenv("AGENTSTORAGE_EXCHANGE", "maybe")
    with pytest.raises(ValueError, match="AGENTSTORAGE_EXCHANGE takes true or false"):
        Connection()
    Connection(exchange=True)


def test_settings_belong_to_the_connection_that_is_given() -> None:
    with pytest.raises(TypeError, match="belong to the Connection"):
        GrpcStorage(Connection(), owner_id="alice")


def test_secrets_are_not_shown() -> None:
    assert "s3cret" not in repr(Connection(token="s3cret"))


def test_a_channel_needs_an_event_loop() -> None:
    with pytest.raises(RuntimeError, match="event loop"):
        Connection().channel()


async def test_a_loop_has_one_channel_and_one_stub_of_each_class() -> None:
    async with Connection() as made:
        assert made.channel() is made.channel()
        stub = threads_pb2_grpc.ThreadServiceStub
        assert made.stub(stub) is made.stub(stub)
    with pytest.raises(RuntimeError, match="closed"):
        made.channel()


def test_every_method_of_every_proto_is_known() -> None:
    (folder,) = agentstorage.v1.__path__
    found = set()
    for file in sorted(Path(folder).glob("*_pb2.py")):
        name = f"agentstorage/v1/{file.name.removesuffix('_pb2.py')}.proto"
        __import__(f"agentstorage.v1.{file.stem}")
        for service in descriptor_pool.Default().FindFileByName(name).services_by_name.values():
            found |= {f"/{service.full_name}/{method.name}" for method in service.methods}
    assert found
    assert set(methods.METHODS) == found


def test_only_idempotent_methods_are_sent_again() -> None:
    config = json.loads(methods.service_config())
    (policy,) = config["methodConfig"]
    named = {f"/{entry['service']}/{entry['method']}" for entry in policy["name"]}
    assert "/agentstorage.v1.ThreadService/GetThread" in named
    assert "/agentstorage.v1.AssistantService/UpdateAssistant" not in named
    assert "/agentstorage.v1.StoreService/Batch" not in named
    for method in methods.METHODS.values():
        assert (method.path in named) is method.idempotent
    assert policy["retryPolicy"] == {
        "maxAttempts": 4,
        "initialBackoff": "0.05s",
        "maxBackoff": "1s",
        "backoffMultiplier": 2.0,
        "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
    }
    assert config["retryThrottling"] == {"maxTokens": 100, "tokenRatio": 0.1}
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]


def test_creates_are_idempotent_because_an_id_is_filled_in() -> None:
    pool = descriptor_pool.Default()
    for path, method in methods.METHODS.items():
        service, name = path[1:].split("/")
        descriptor = pool.FindServiceByName(service).methods_by_name[name]
        fields = descriptor.input_type.fields_by_name
        if name.startswith("Create"):
            assert descriptor.GetOptions().idempotency_level == MethodOptions.IDEMPOTENT
            assert method.id_field in fields
        if method.expectation:
            assert method.expectation in fields
            assert not method.idempotent
