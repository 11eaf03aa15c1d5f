-- Runs that workers claim, the log of each run, and the ticks that crons made runs of. A runtime that knows none of this goes on.
CREATE SEQUENCE IF NOT EXISTS langgraph_server.run_claims;
CREATE SEQUENCE IF NOT EXISTS langgraph_server.run_event_positions;

ALTER TABLE langgraph_server.runs
    ADD COLUMN IF NOT EXISTS attempt INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS lapses INTEGER NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS run_after TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS waits_behind BOOLEAN NOT NULL DEFAULT false,
    ADD COLUMN IF NOT EXISTS worker_id TEXT,
    ADD COLUMN IF NOT EXISTS lease_token BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS settled_token BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS lease_expires_at TIMESTAMPTZ,
    ADD COLUMN IF NOT EXISTS cancel TEXT,
    ADD COLUMN IF NOT EXISTS last_sequence BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS deleted_sequence BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS deleted_position BIGINT NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS cron_id TEXT,
    ADD COLUMN IF NOT EXISTS cron_tick TIMESTAMPTZ;
COMMENT ON COLUMN langgraph_server.runs.lapses IS 'how many of its leases have lapsed';
COMMENT ON COLUMN langgraph_server.runs.run_after IS 'when the run may be claimed; NULL for one that is not queued';
COMMENT ON COLUMN langgraph_server.runs.waits_behind IS 'another queued run of the thread comes first: no claim looks at this one';
COMMENT ON COLUMN langgraph_server.runs.lease_token IS 'of the newest claim; greater with each';
COMMENT ON COLUMN langgraph_server.runs.settled_token IS 'of the worker that let the run go last, by its end or by giving it back';
COMMENT ON COLUMN langgraph_server.runs.deleted_sequence IS 'the last event that was deleted for its age';

ALTER TABLE langgraph_server.threads
    ADD COLUMN IF NOT EXISTS ends_with_runs BOOLEAN NOT NULL DEFAULT false;
COMMENT ON COLUMN langgraph_server.threads.ends_with_runs IS 'a cron made it for its run: it is deleted when no run is in flight';

-- A lease is renewed in place: room for that in every page, and what it leaves is cleared away early.
ALTER TABLE langgraph_server.runs SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

CREATE TABLE IF NOT EXISTS langgraph_server.run_events (
    run_id TEXT NOT NULL REFERENCES langgraph_server.runs (id) ON DELETE CASCADE,
    sequence BIGINT NOT NULL,
    position BIGINT NOT NULL DEFAULT nextval('langgraph_server.run_event_positions'),
    thread_id TEXT,
    type TEXT NOT NULL,
    data BYTEA NOT NULL,
    attempt INTEGER NOT NULL,
    created_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    end_status TEXT,
    PRIMARY KEY (run_id, sequence)
);
COMMENT ON COLUMN langgraph_server.run_events.end_status IS 'the final status of the run, in its last event alone';

-- Whoever ends a queued run, a worker, a caller or a runtime: its lease is over, and its log gets its end. The lock of the thread, which the
-- service holds already, keeps the positions of a thread's events in the order of their commits.
CREATE OR REPLACE FUNCTION langgraph_server.leave_queue() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    NEW.worker_id := NULL;
    NEW.lease_expires_at := NULL;
    NEW.cancel := NULL;
    NEW.waits_behind := false;
    IF OLD.status IN ('pending', 'running') AND NEW.status IN ('success', 'error', 'timeout', 'interrupted') THEN
        PERFORM FROM langgraph_server.threads WHERE id = NEW.thread_id FOR UPDATE;
        NEW.finished_at := coalesce(NEW.finished_at, now());
        NEW.last_sequence := NEW.last_sequence + 1;
        INSERT INTO langgraph_server.run_events (run_id, sequence, thread_id, type, data, attempt, end_status)
            VALUES (NEW.id, NEW.last_sequence, NEW.thread_id, 'end', '', NEW.attempt, NEW.status);
    END IF;
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER queue BEFORE UPDATE OF status
    ON langgraph_server.runs FOR EACH ROW
    WHEN (NEW.run_after IS NOT NULL AND NEW.status <> OLD.status AND NEW.status <> 'running')
    EXECUTE FUNCTION langgraph_server.leave_queue();

-- Then the first one that waits behind it is looked at again; nobody waits for one that waits itself.
CREATE OR REPLACE FUNCTION langgraph_server.let_next() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        -- An admission that saw the run must be seen here.
        PERFORM FROM langgraph_server.threads WHERE id = OLD.thread_id FOR UPDATE;
    END IF;
    UPDATE langgraph_server.runs SET waits_behind = false WHERE id = (
        SELECT r.id FROM langgraph_server.runs r WHERE r.thread_id = OLD.thread_id AND r.status = 'pending' AND r.waits_behind
        ORDER BY r.run_after, r.id COLLATE "C" LIMIT 1);
    RETURN NULL;
END
$$;

CREATE OR REPLACE TRIGGER queue_next AFTER UPDATE OF status
    ON langgraph_server.runs FOR EACH ROW
    WHEN (NEW.run_after IS NOT NULL AND NEW.status <> OLD.status AND NEW.status <> 'running'
        AND NOT (OLD.waits_behind AND OLD.status = 'pending'))
    EXECUTE FUNCTION langgraph_server.let_next();
CREATE OR REPLACE TRIGGER queue_next_deleted AFTER DELETE
    ON langgraph_server.runs FOR EACH ROW
    WHEN (OLD.run_after IS NOT NULL AND OLD.status IN ('pending', 'running')
        AND NOT (OLD.waits_behind AND OLD.status = 'pending'))
    EXECUTE FUNCTION langgraph_server.let_next();
