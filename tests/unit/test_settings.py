from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from storage_service.settings import Settings, SettingsError, described, load


def test_defaults() -> None:
    settings = load({})
    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 50051, "")
    assert (settings.pool_min_size, settings.pool_max_size, settings.pool_timeout) == (2, 10, 30)
    assert (settings.rights, settings.allow_truncate, settings.uses_reflection) == (frozenset(), False, True)
    assert settings == Settings()


def test_environment_and_what_is_given() -> None:
    environment = {
        "DATABASE_URL": "postgresql://x",
        "DATABASE_POOL_MAX_SIZE": "7",
        "DATABASE_POOL_TIMEOUT": "1.5",
        "STORAGE_ALLOW_TRUNCATE": "Yes",
        "STORAGE_JSON_DEPTH": "9",
        "STORAGE_PORT": "1",
    }
    settings = load(environment, port=2, host=None)
    assert (settings.database_url, settings.pool_max_size, settings.pool_timeout) == ("postgresql://x", 7, 1.5)
    assert (settings.allow_truncate, settings.limits.json_depth, settings.port) == (True, 9, 2)
    assert settings.host == "127.0.0.1"


@pytest.mark.parametrize(("text", "value"), [("true", True), ("ON", True), ("1", True), ("no", False), ("0", False)])
def test_switches(text: str, value: bool) -> None:
    assert load({"DATABASE_PREPARED_STATEMENTS": text}).prepared_statements is value


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("DATABASE_PREPARED_STATEMENTS", "perhaps"),
        ("DATABASE_POOL_MAX_SIZE", "ten"),
        ("DATABASE_POOL_MAX_SIZE", "1"),
        ("DATABASE_POOL_MIN_SIZE", "0"),
        ("DATABASE_POOL_TIMEOUT", "-1"),
        ("DATABASE_POOL_TIMEOUT", "nan"),
        ("DATABASE_POOL_TIMEOUT", "inf"),
        ("STORAGE_PORT", "65536"),
        ("STORAGE_PORT", "1.5"),
        ("STORAGE_ANONYMOUS_RIGHTS", "root"),
        ("STORAGE_REFLECTION", "maybe"),
        ("STORAGE_LOG_LEVEL", "LOUD"),
    ],
)
def test_what_cannot_be_used(variable: str, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({variable: text})
    assert variable in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"DATABASE_URI": "x"}, "DATABASE_URI is no setting; did you mean DATABASE_URL?"),
        ({"DATABASE_URI": "x", "DATABASE_URL": " "}, "DATABASE_URI is no setting; did you mean DATABASE_URL?"),
        ({"STORAGE_PROT": "1", "DATABASE_URL": "y"}, "STORAGE_PROT is no setting; did you mean STORAGE_PORT?"),
        (
            {"DATABASE_POOL_SIZE": "4"},
            "DATABASE_POOL_SIZE is no setting; did you mean DATABASE_POOL_MIN_SIZE or DATABASE_POOL_MAX_SIZE?",
        ),
        ({"DATABASE_POOL_MIM_SIZE": "4"}, "DATABASE_POOL_MIM_SIZE is no setting; did you mean DATABASE_POOL_MIN_SIZE?"),
    ],
)
def test_a_name_that_is_nearly_a_setting(environment: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(environment)
    assert str(caught.value) == says


def test_a_name_like_one_that_is_set_is_another_programs(tmp_path: Path) -> None:
    assert load({"DATABASE_URI": "x", "DATABASE_URL": "postgresql://y"}).database_url == "postgresql://y"
    assert load({"DATABASE_POOL_SIZE": "4", "DATABASE_POOL_MAX_SIZE": "9"}).pool_max_size == 9
    file = tmp_path / "url"
    file.write_text("postgresql://y\n")
    assert load({"DATABASE_URI": "x", "DATABASE_URL_FILE": str(file)}).database_url == "postgresql://y"


def test_what_is_blank_is_not_set() -> None:
    assert load({"DATABASE_URL": " ", "DATABASE_URL_FILE": "\t", "STORAGE_PORT": " ", "STORAGE_HOST": ""}) == Settings()
    assert load({"DATABASE_URL": " postgresql://y\n"}).database_url == "postgresql://y"


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        ({"host": "localhost"}, True),
        ({"host": "127.0.0.2"}, True),
        ({"host": "::1"}, True),
        ({"host": "[::1]"}, True),
        ({"host": "::"}, False),
        ({"host": "10.0.0.1"}, False),
        ({"host": "example.com"}, False),
        ({"host": "10.0.0.1", "token_file": "t"}, False),
        ({"host": "10.0.0.1", "tls_cert_file": "c", "tls_key_file": "k"}, False),
        ({"host": "10.0.0.1", "token_file": "t", "tls_cert_file": "c", "tls_key_file": "k"}, True),
        ({"host": "10.0.0.1", "allow_insecure_listen": True}, True),
        ({"tls_cert_file": "c"}, False),
        ({"tls_key_file": "k"}, False),
    ],
)
def test_listening_beyond_loopback(given: dict[str, Any], allowed: bool) -> None:
    settings = load({}, **given)
    if allowed:
        settings.check_listening()
        return
    with pytest.raises(SettingsError):
        settings.check_listening()


@pytest.mark.parametrize(
    ("reflection", "host", "used"),
    [("loopback", "127.0.0.1", True), ("loopback", "10.0.0.1", False), ("on", "10.0.0.1", True), ("off", "::1", False)],
)
def test_reflection(reflection: str, host: str, used: bool) -> None:
    assert load({}, reflection=reflection, host=host, allow_insecure_listen=True).uses_reflection is used


def test_url_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "url"
    file.write_text("postgresql://secret\n")
    assert load({"DATABASE_URL_FILE": str(file)}).database_url == "postgresql://secret"
    with pytest.raises(SettingsError, match="both set") as caught:
        load({"DATABASE_URL_FILE": str(file), "DATABASE_URL": "postgresql://other"})
    assert "other" not in str(caught.value)
    with pytest.raises(SettingsError, match="DATABASE_URL_FILE can't be read"):
        load({"DATABASE_URL_FILE": str(tmp_path / "absent")})


# Those of which 0 means something; of the others it would let nothing through, or everything.
MAY_BE_ZERO = {
    "DATABASE_PROBE_SECONDS",
    "STORAGE_CHECKPOINT_DAYS",
    "STORAGE_CRON_SECONDS",
    "STORAGE_DRAIN_SECONDS",
    "STORAGE_EVENT_DAYS",
    "STORAGE_EXCHANGE_STREAMS",
    "STORAGE_GRACE_SECONDS",
    "STORAGE_LEASE_SWEEP_SECONDS",
    "STORAGE_PORT",
    "STORAGE_SWEEP_SECONDS",
    "STORAGE_THREAD_TTL_MINUTES",
}
NUMBERS = [name for name, default, _ in described() if default.replace(".", "", 1).isdigit()]


@pytest.mark.parametrize("variable", NUMBERS)
def test_numbers_that_must_not_be_zero(variable: str) -> None:
    assert set(NUMBERS) > MAY_BE_ZERO
    if variable in MAY_BE_ZERO:
        load({variable: "0"})
        return
    with pytest.raises(SettingsError, match=variable):
        load({variable: "0"})


@pytest.mark.parametrize("text", ["0", "0.0", "-1", "nan", "inf"])
def test_a_number_that_must_be_above_zero(text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"STORAGE_CALL_SECONDS": text})
    assert str(caught.value) == "STORAGE_CALL_SECONDS takes a number above 0"
    assert load({"STORAGE_CALL_SECONDS": "0.001"}).limits.call_seconds == 0.001


def test_every_variable_is_described_once() -> None:
    rows = described()
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)) > 25
    assert {"DATABASE_URL", "DATABASE_POOL_MIN_SIZE", "STORAGE_TOKEN_FILE", "STORAGE_JSON_DEPTH"} <= set(names)
    assert all(meaning for _, _, meaning in rows)
    for name, default, _ in rows:
        assert load({name: default}) == Settings(), name
