-- How long a thread is kept after its last use.
DO $$
BEGIN
    IF to_regtype('langgraph_server.thread_ttl') IS NULL THEN
        CREATE TYPE langgraph_server.thread_ttl AS (minutes DOUBLE PRECISION, strategy TEXT);
    END IF;
END $$;

ALTER TABLE langgraph_server.threads
    ADD COLUMN IF NOT EXISTS ttl langgraph_server.thread_ttl,
    ADD COLUMN IF NOT EXISTS expires_at TIMESTAMPTZ;

-- Whoever changes a thread, the service or a runtime, says so in updated_at: its time begins anew.
CREATE OR REPLACE FUNCTION langgraph_server.renew_thread() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.expires_at := now() + make_interval(secs => (NEW.ttl).minutes * 60);
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER renew BEFORE INSERT OR UPDATE OF updated_at, ttl
    ON langgraph_server.threads FOR EACH ROW
    WHEN ((NEW.ttl).minutes IS NOT NULL OR NEW.expires_at IS NOT NULL)
    EXECUTE FUNCTION langgraph_server.renew_thread();

-- Work that one of all processes does now and then, and when it began last.
CREATE TABLE IF NOT EXISTS langgraph_server.sweeps (
    name TEXT PRIMARY KEY,
    began_at TIMESTAMPTZ NOT NULL
);
