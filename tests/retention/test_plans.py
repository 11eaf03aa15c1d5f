"""A sweep finds what it looks for by indexes: it reads no whole table, however large the rest is."""

from __future__ import annotations

from collections import Counter

import psycopg

from storage_service.caller import AllOwners, Owner, Scope
from storage_service.retention import Sweep, before_days
from storage_service.store.postgres import DatabaseSettings, PostgresStore
from storage_service.store.retention import Swept
from tests.faults.servers import until
from tests.postgres_server import MakeDatabase
from tests.retention.conftest import expire
from tests.retention.histories import id_at

ROWS = 10_000
_FILL = f"""
INSERT INTO langgraph_server.threads (id, metadata, ttl, updated_at)
    SELECT 't-' || n, jsonb_build_object('owner', 'owner-' || n % 4),
        CASE WHEN n % 10 = 0 THEN ROW(60, CASE n % 200 WHEN 0 THEN 'keep_latest' ELSE 'delete' END)::langgraph_server.thread_ttl END,
        now() - interval '1 day'
    FROM generate_series(1, {ROWS}) AS n;
INSERT INTO langgraph_server.thread_states (thread_id, checkpoint_id)
    SELECT 't-' || n, 's' || k FROM generate_series(1, {ROWS}) AS n, generate_series(1, 2) AS k;
INSERT INTO langgraph_server.runs (id, thread_id, status, metadata)
    SELECT 'run-' || n, 't-' || n, CASE WHEN n % 50 = 1 THEN 'running' ELSE 'success' END, '{{}}' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO langgraph_server.crons (id, thread_id, schedule, metadata)
    SELECT 'cron-' || n, 't-' || n, '0 0 1 1 *', '{{}}' FROM generate_series(1, {ROWS}) AS n;
INSERT INTO public.checkpoints (thread_id, checkpoint_id, checkpoint, metadata)
    SELECT 't-' || n, CASE k WHEN 1 THEN '$OLD' ELSE '$NEW' END,
        jsonb_build_object('channel_versions', jsonb_build_object('c', k::text)), '{{}}'
    FROM generate_series(1, {ROWS}) AS n, generate_series(1, 2) AS k WHERE k = 2 OR n % 100 < 3;
INSERT INTO public.checkpoint_blobs (thread_id, channel, version, type)
    SELECT 't-' || n, 'c', k, 'empty' FROM generate_series(1, {ROWS}) AS n, generate_series(1, 3) AS k WHERE k = 2 OR n % 100 < 3;
INSERT INTO public.checkpoint_writes (thread_id, checkpoint_id, task_id, idx, channel, blob)
    SELECT thread_id, checkpoint_id, 't', 0, 'c', '' FROM public.checkpoints;
INSERT INTO langgraph_server.store_items (namespace, key, owner_id, value, version, expires_at)
    SELECT 'a', 'k' || n, 'owner-' || n % 4, '{{}}', 1, CASE WHEN n % 100 = 0 THEN now() ELSE now() + interval '1 day' END
    FROM generate_series(1, {ROWS}) AS n;
UPDATE langgraph_server.threads SET expires_at = now() WHERE ttl IS NOT NULL AND substr(id, 3)::int % 100 = 0;
VACUUM ANALYZE;
"""
_SCANS = (
    "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ('threads', 'thread_states', 'runs', 'crons', 'checkpoints',"
    " 'checkpoint_blobs', 'checkpoint_writes', 'store_items')"
)


async def scans(url: str) -> dict[str, int]:
    """How often each table was read as a whole, once all others who read them have gone and have said so."""
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:

        async def are_gone() -> bool:
            return not (await (await conn.execute(others)).fetchall())[0][0]

        await until(are_gone, 10)
        return dict(await (await conn.execute(_SCANS)).fetchall())


async def test_no_whole_table_is_read(make_database: MakeDatabase) -> None:
    url = make_database()

    async def sweep(*scopes: Scope) -> Swept:
        """What passes over these scopes found."""
        # What migrates looks at rows, too.
        store = PostgresStore(DatabaseSettings(url, migrate=not scopes))
        await store.start(30)
        assert not store.trouble()
        found: Swept = Counter()
        for scope in scopes:
            found += await expire(Sweep(store, scope)) + await Sweep(store, scope).checkpoints(before_days(5))
        await store.close()
        return found

    await sweep()
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in filter(str.strip, _FILL.split(";\n")):
            conn.execute(statement.replace("$OLD", id_at(10)).replace("$NEW", id_at(1)).encode())
    before = await scans(url)
    assert len(before) == 8
    found = Counter(threads=50, pruned=50, items=100, checkpoints=100, blobs=150)
    assert await sweep(Owner("owner-0"), AllOwners()) == found
    assert await scans(url) == before
