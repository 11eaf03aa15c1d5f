-- mode: concurrently
-- The threads whose time ends, soonest first.

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_expires_at
    ON langgraph_server.threads (expires_at) WHERE expires_at IS NOT NULL;
