-- mode: concurrently
-- One index for every order that a search knows, led by the owner, and one for every way from a row to those that hang on it. The texts
-- are ordered by code point, as in every query and in memory. Expressions are those of the queries, letter for letter; the first 255
-- characters of a text stand for it, since an index cannot hold more than 2,700 bytes of a row. Statuses that the service does not know
-- are in one place, before those that it knows.

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_assistants_created_at
    ON langgraph_server.assistants (owner_id, created_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_assistants_updated_at
    ON langgraph_server.assistants (owner_id, updated_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_assistants_name
    ON langgraph_server.assistants (owner_id, ("left"(coalesce(name, ''), 255)) COLLATE "C", id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_assistants_graph_id
    ON langgraph_server.assistants (owner_id, graph_id COLLATE "C", id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_assistants_id
    ON langgraph_server.assistants (owner_id, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_assistants_all
    ON langgraph_server.assistants (created_at, id COLLATE "C");

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_created_at
    ON langgraph_server.threads (owner_id, created_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_updated_at
    ON langgraph_server.threads (owner_id, updated_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_state_updated_at
    ON langgraph_server.threads (owner_id, (coalesce(state_updated_at, '-infinity'::timestamptz)), id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_status
    ON langgraph_server.threads (owner_id,
        (CASE WHEN status = ANY ('{idle,busy,interrupted,error}'::text[]) THEN status ELSE '' END) COLLATE "C",
        id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_id
    ON langgraph_server.threads (owner_id, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_all
    ON langgraph_server.threads (created_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_assistant
    ON langgraph_server.threads (owner_id, ("left"(metadata ->> 'assistant_id', 255)));

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_thread_states_thread
    ON langgraph_server.thread_states (thread_id, id);
-- A runtime may repeat a checkpoint id; the service does not.
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_thread_states_checkpoint
    ON langgraph_server.thread_states (thread_id, checkpoint_id) WHERE by_service;

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_created_at
    ON langgraph_server.runs (owner_id, created_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_updated_at
    ON langgraph_server.runs (owner_id, updated_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_status
    ON langgraph_server.runs (owner_id,
        (CASE WHEN status = ANY ('{pending,running,success,error,timeout,interrupted}'::text[]) THEN status ELSE '' END) COLLATE "C",
        id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_id
    ON langgraph_server.runs (owner_id, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_thread
    ON langgraph_server.runs (thread_id, created_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_assistant
    ON langgraph_server.runs (assistant_id, created_at);
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_all
    ON langgraph_server.runs (created_at, id COLLATE "C");

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_store_items_namespace
    ON langgraph_server.store_items (owner_id, namespace COLLATE "C", key COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_store_items_key
    ON langgraph_server.store_items (owner_id, key COLLATE "C", namespace COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_store_items_updated_at
    ON langgraph_server.store_items (owner_id, updated_at, namespace COLLATE "C", key COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_store_items_all
    ON langgraph_server.store_items (updated_at, namespace COLLATE "C", key COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_store_items_expires_at
    ON langgraph_server.store_items (expires_at) WHERE expires_at IS NOT NULL;

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_created_at
    ON langgraph_server.crons (owner_id, created_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_updated_at
    ON langgraph_server.crons (owner_id, updated_at, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_next_run_date
    ON langgraph_server.crons (owner_id, (coalesce(next_run_date, 'infinity'::timestamptz)), id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_end_time
    ON langgraph_server.crons (owner_id, (coalesce(end_time, 'infinity'::timestamptz)), id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_owner_assistant
    ON langgraph_server.crons (owner_id, ("left"(coalesce(assistant_id, ''), 255)) COLLATE "C", id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_owner_thread
    ON langgraph_server.crons (owner_id, ("left"(coalesce(thread_id, ''), 255)) COLLATE "C", id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_id
    ON langgraph_server.crons (owner_id, id COLLATE "C");
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_assistant
    ON langgraph_server.crons (assistant_id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_thread
    ON langgraph_server.crons (thread_id);
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_all
    ON langgraph_server.crons (created_at, id COLLATE "C");
