"""How the service connects: what it adds to DATABASE_URL, and what it leaves as the user wrote it."""

from __future__ import annotations

from typing import Any

import grpc
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from storage_service.server import database_settings
from storage_service.settings import load
from storage_service.store.postgres.connect import connection_string
from tests.faults.servers import Serve, until_healthy
from tests.postgres_server import MakeDatabase
from tests.service import GrpcApi


def parameters(url: str, **environment: str) -> dict[str, Any]:
    return dict(conninfo_to_dict(connection_string(database_settings(load({"DATABASE_URL": url, **environment})))))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_no_tls_to_this_machine(host: str) -> None:
    assert parameters(f"postgresql://u:p@{host}:54322/postgres")["sslmode"] == "disable"


@pytest.mark.parametrize("mode", ["require", "verify-full", "prefer"])
def test_a_mode_that_is_named_stays(mode: str) -> None:
    assert parameters(f"postgresql://u@localhost/db?sslmode={mode}")["sslmode"] == mode
    assert parameters(f"host=localhost dbname=db sslmode={mode}")["sslmode"] == mode


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u@db.example.com/db",
        "postgresql://u@/db?host=/var/run/postgresql",
        "postgresql://u@one,two/db?target_session_attrs=read-write",
        "postgresql:///db",
    ],
)
def test_elsewhere_the_driver_decides(url: str) -> None:
    assert "sslmode" not in parameters(url)


def test_times_are_bounded() -> None:
    found = parameters(
        "postgresql://u@db.example.com/db", DATABASE_STATEMENT_TIMEOUT="12.5", DATABASE_LOCK_TIMEOUT="0.5"
    )
    assert "-c statement_timeout=12500" in found["options"]
    assert "-c lock_timeout=500" in found["options"]
    assert "-c idle_in_transaction_session_timeout=10000" in found["options"]
    assert int(found["connect_timeout"]) <= 5
    assert int(found["tcp_user_timeout"]) == 10000
    assert found["application_name"] == "storage-service"


def test_what_the_url_says_stays() -> None:
    found = parameters(
        "postgresql://u@db.example.com/db?connect_timeout=9&application_name=mine&options=-c%20geqo%3Doff"
    )
    assert (found["connect_timeout"], found["application_name"], found["options"]) == ("9", "mine", "-c geqo=off")
    assert found["dbname"] == "db"


def test_several_hosts_stay() -> None:
    found = parameters("postgresql://u@one:5432,two:5433/db?target_session_attrs=read-write")
    assert (found["host"], found["port"], found["target_session_attrs"]) == ("one,two", "5432,5433", "read-write")


def test_a_transaction_pooler_gets_no_options() -> None:
    # It refuses start-up parameters that it does not know.
    assert "options" not in parameters("postgresql://u@pooler.example/db", DATABASE_TRANSACTION_POOLER="true")


def test_a_password_with_every_character() -> None:
    password = "a b'c\\d=\"%&/:@"
    found = parameters("postgresql://u:a%20b%27c%5Cd%3D%22%25%26%2F%3A%40@h/db")
    assert found["password"] == password


def test_the_pool_settings_of_existing_deployments() -> None:
    settings = database_settings(
        load(
            {
                "DATABASE_URL": "postgresql:///db",
                "DATABASE_POOL_MIN_SIZE": "3",
                "DATABASE_POOL_MAX_SIZE": "7",
                "DATABASE_POOL_TIMEOUT": "1.5",
            }
        )
    )
    assert (settings.pool_min_size, settings.pool_max_size, settings.pool_timeout) == (3, 7, 1.5)
    defaults = database_settings(load({"DATABASE_URL": "postgresql:///db"}))
    assert (defaults.pool_min_size, defaults.pool_max_size, defaults.pool_timeout) == (2, 10, 30)


async def test_sessions_as_the_server_sees_them(serve: Serve, make_database: MakeDatabase, owner: str) -> None:
    url = make_database()
    server = await serve(url, environment={"DATABASE_POOL_MAX_SIZE": "4", "DATABASE_STATEMENT_TIMEOUT": "7"})
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        api = GrpcApi(channel, "postgres")
        for _ in range(20):
            await api.call("CreateThread", owner_id=owner)
        assert (await api.call("GetServerInfo")).pool.max_size == 4
        with psycopg.connect(url) as conn:
            row = conn.execute(
                "SELECT count(*), bool_and(application_name LIKE 'storage-service%') FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
            ).fetchone()
        # The watch over the database has a connection of its own.
        assert row is not None
        assert row[0] <= 5
        assert row[1] is True


async def test_a_pool_of_one(serve: Serve, make_database: MakeDatabase, owner: str) -> None:
    environment = {"DATABASE_POOL_MIN_SIZE": "1", "DATABASE_POOL_MAX_SIZE": "1"}
    server = await serve(make_database(), environment=environment)
    async with grpc.aio.insecure_channel(server.target) as channel:
        await until_healthy(channel, 10)
        api = GrpcApi(channel, "postgres")
        for number in range(20):
            await api.call("PutItem", owner_id=owner, namespace=["one"], key=str(number), value="1")
        assert len((await api.call("SearchItems", owner_id=owner, limit=50)).items) == 20
