"""Row-level security, tables of another role, and schemas of another revision."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from storage_service.store.postgres.doctor import examine
from storage_service.store.postgres.migrate import MigrationError, migrate
from storage_service.store.postgres.rights import LANGGRAPH_TABLES, TABLES
from tests.adoption.runtimes import rows, statements
from tests.postgres_server import PostgresServer


@pytest.fixture
def role(postgres_server: PostgresServer, legacy: str) -> Iterator[str]:
    """The connection string of a role that owns nothing."""
    name = psycopg.conninfo.conninfo_to_dict(legacy)["dbname"]
    role = f"role_{name}"
    statements(postgres_server.url(), f"CREATE ROLE {role} LOGIN", f'GRANT CREATE ON DATABASE "{name}" TO {role}')
    yield legacy.replace("postgres@", f"{role}@")
    statements(legacy, f"DROP OWNED BY {role} CASCADE")
    statements(postgres_server.url(), f"DROP ROLE {role}")


async def test_every_table_is_shut(legacy: str) -> None:
    await migrate(legacy)
    query = (
        "SELECT n.nspname || '.' || relname AS name, relrowsecurity FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'r' AND nspname IN ('public', 'langgraph_server')"
    )
    secured = {row["name"]: row["relrowsecurity"] for row in rows(legacy, query)}
    expected = {f"public.{table}" for table in LANGGRAPH_TABLES} | {f"langgraph_server.{table}" for table in TABLES}
    assert {name for name, on in secured.items() if on} == expected


async def test_a_role_that_owns_nothing_sees_nothing(legacy: str, role: str) -> None:
    await migrate(legacy)
    name = role.split("//")[1].split("@")[0]
    statements(
        legacy,
        f"GRANT USAGE ON SCHEMA public, langgraph_server TO {name}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public, langgraph_server TO {name}",
    )
    for table in (*(f"public.{name}" for name in LANGGRAPH_TABLES), *(f"langgraph_server.{name}" for name in TABLES)):
        assert rows(role, f"SELECT * FROM {table}") == []
    with pytest.raises(MigrationError, match=r"shows no rows; GRANT \"postgres\" TO"):
        await migrate(role)
    report = await examine(role)
    assert report.needs_attention
    assert report.find("table_hidden")


async def test_security_that_was_turned_off_is_turned_on_again(legacy: str) -> None:
    await migrate(legacy)
    statements(legacy, "ALTER TABLE public.checkpoints DISABLE ROW LEVEL SECURITY")
    assert (await examine(legacy)).find("table_not_secured")
    assert await migrate(legacy) == []
    assert not (await examine(legacy)).find("table_not_secured")


async def test_another_roles_tables_are_a_clear_error(legacy: str, role: str) -> None:
    with pytest.raises(
        MigrationError, match=r"belongs to the role \"postgres\" .* run `storage-service migrate` as \"postgres\""
    ):
        await migrate(role)
    report = await examine(role)
    assert report.find("table_hidden")
    assert report.lines()


async def test_a_member_of_the_owners_role_may(legacy: str, role: str) -> None:
    name = role.split("//")[1].split("@")[0]
    statements(legacy, f"GRANT postgres TO {name}")
    await migrate(role)
    assert not (await examine(role)).needs_attention


async def test_no_right_to_create(postgres_server: PostgresServer, empty: str, role: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(empty)["dbname"]
    user = role.split("//")[1].split("@")[0]
    with pytest.raises(MigrationError, match="may not change the schema"):
        await migrate(postgres_server.url(str(name)).replace("postgres@", f"{user}@"))


async def test_a_newer_schema_is_a_clear_error(empty: str) -> None:
    await migrate(empty)
    statements(
        empty, "INSERT INTO langgraph_server.storage_service_migrations (revision, name) VALUES (9999, 'future')"
    )
    with pytest.raises(MigrationError, match="upgrade the service"):
        await migrate(empty)
    finding = (await examine(empty)).find("schema_newer")
    assert finding
    assert finding.severity == "error"


async def test_a_read_only_database_is_a_clear_error(empty: str) -> None:
    with pytest.raises(MigrationError, match="read-only"):
        await migrate(empty + "&options=-c%20default_transaction_read_only%3Don")


async def test_another_search_path(legacy: str) -> None:
    statements(legacy, "CREATE SCHEMA elsewhere")
    await migrate(legacy + "&options=-c%20search_path%3Delsewhere")
    assert rows(legacy, "SELECT to_regclass('elsewhere.checkpoints') IS NULL AS absent") == [{"absent": True}]


async def test_a_statement_timeout_of_the_role_does_not_cut_it_short(empty: str) -> None:
    assert await migrate(empty + "&options=-c%20statement_timeout%3D20")


async def test_a_server_that_is_not_there(empty: str) -> None:
    with pytest.raises(psycopg.OperationalError):
        await migrate("postgresql://postgres@127.0.0.1:1/none")
