-- What the service needs beyond the runtimes' columns. Everything is nullable or has a default: a runtime that does not know a column
-- goes on inserting.
ALTER TABLE langgraph_server.assistants
    ADD COLUMN IF NOT EXISTS owner_id TEXT GENERATED ALWAYS AS (metadata ->> 'owner') STORED,
    ADD COLUMN IF NOT EXISTS request_id TEXT,
    ADD COLUMN IF NOT EXISTS last_version INTEGER NOT NULL DEFAULT 0;
COMMENT ON COLUMN langgraph_server.assistants.last_version IS 'the largest version ever given';

CREATE TABLE IF NOT EXISTS langgraph_server.assistant_versions (
    assistant_id TEXT NOT NULL REFERENCES langgraph_server.assistants (id) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    graph_id TEXT NOT NULL,
    name TEXT,
    description TEXT,
    config JSONB NOT NULL DEFAULT '{}',
    context JSONB NOT NULL DEFAULT '{}',
    metadata JSONB NOT NULL DEFAULT '{}',
    created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    updated_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    PRIMARY KEY (assistant_id, version)
);

ALTER TABLE langgraph_server.threads
    ADD COLUMN IF NOT EXISTS owner_id TEXT GENERATED ALWAYS AS (metadata ->> 'owner') STORED,
    ADD COLUMN IF NOT EXISTS request_id TEXT,
    ADD COLUMN IF NOT EXISTS error JSONB,
    ADD COLUMN IF NOT EXISTS visibility TEXT NOT NULL DEFAULT 'private',
    ADD COLUMN IF NOT EXISTS state_updated_at TIMESTAMPTZ;

ALTER TABLE langgraph_server.thread_states
    ADD COLUMN IF NOT EXISTS by_service BOOLEAN NOT NULL DEFAULT false;

ALTER TABLE langgraph_server.runs
    ADD COLUMN IF NOT EXISTS owner_id TEXT GENERATED ALWAYS AS (metadata ->> 'owner') STORED,
    ADD COLUMN IF NOT EXISTS request_id TEXT,
    ADD COLUMN IF NOT EXISTS error JSONB,
    ADD COLUMN IF NOT EXISTS finished_at TIMESTAMPTZ;

ALTER TABLE langgraph_server.store_items
    ADD COLUMN IF NOT EXISTS version BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS expires_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS ttl_minutes DOUBLE PRECISION;
COMMENT ON COLUMN langgraph_server.store_items.version IS '0 only while a runtime''s row has not been adopted';

-- Items that lost against another spelling of the same namespace, as they were.
CREATE TABLE IF NOT EXISTS langgraph_server.store_items_displaced (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    owner_id TEXT NOT NULL,
    value JSONB,
    metadata JSONB,
    created_at TIMESTAMPTZ,
    updated_at TIMESTAMPTZ,
    displaced_at TIMESTAMPTZ NOT NULL DEFAULT now(),
    reason TEXT NOT NULL
);

ALTER TABLE langgraph_server.crons
    ADD COLUMN IF NOT EXISTS owner_id TEXT GENERATED ALWAYS AS (metadata ->> 'owner') STORED,
    ADD COLUMN IF NOT EXISTS request_id TEXT,
    ADD COLUMN IF NOT EXISTS timezone TEXT NOT NULL DEFAULT 'UTC',
    ADD COLUMN IF NOT EXISTS enabled BOOLEAN NOT NULL DEFAULT true,
    ADD COLUMN IF NOT EXISTS on_run_completed TEXT NOT NULL DEFAULT 'delete',
    ADD COLUMN IF NOT EXISTS misfire_policy TEXT NOT NULL DEFAULT 'coalesce';
