-- mode: concurrently
-- None of these holds a run that has ended, so that a claim costs the same however many there are. Nor does any hold what a heartbeat
-- changes, so that it is written in place.
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_due
    ON langgraph_server.runs (run_after, id COLLATE "C") WHERE status = 'pending' AND run_after IS NOT NULL AND NOT waits_behind;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_due_of_owner
    ON langgraph_server.runs (owner_id, run_after, id COLLATE "C")
    WHERE status = 'pending' AND run_after IS NOT NULL AND NOT waits_behind;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_due_of_thread
    ON langgraph_server.runs (thread_id, run_after, id COLLATE "C")
    WHERE status = 'pending' AND run_after IS NOT NULL AND NOT waits_behind;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_behind
    ON langgraph_server.runs (thread_id, run_after, id COLLATE "C") WHERE status = 'pending' AND waits_behind;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_running
    ON langgraph_server.runs (thread_id) WHERE status = 'running';
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_in_flight
    ON langgraph_server.runs (thread_id) WHERE status IN ('pending', 'running');
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_leased
    ON langgraph_server.runs (thread_id, (coalesce(owner_id, ''))) WHERE status = 'running' AND worker_id IS NOT NULL;
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_tick
    ON langgraph_server.runs (cron_id, cron_tick) WHERE cron_id IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_deleted
    ON langgraph_server.runs (thread_id, deleted_position) WHERE deleted_position > 0;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_run_events_thread
    ON langgraph_server.run_events (thread_id, position);
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_run_events_end
    ON langgraph_server.run_events (created_at) WHERE end_status IS NOT NULL;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_end_with_runs
    ON langgraph_server.threads (updated_at) WHERE ends_with_runs;
CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_due
    ON langgraph_server.crons (next_run_date) WHERE enabled;
