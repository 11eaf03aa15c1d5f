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


def test_every_variable_is_described_once() -> None:
    rows = described()
    names = [name for name, _, _ in rows]
    assert len(names) == len(set(names)) > 25
    assert {"DATABASE_URL", "DATABASE_POOL_MIN_SIZE", "STORAGE_TOKEN_FILE", "STORAGE_JSON_DEPTH"} <= set(names)
    assert all(meaning for _, _, meaning in rows)
    for name, default, _ in rows:
        assert load({name: default}) == Settings(), name
