-- mode: walk
-- The rows that the runtimes left. Every statement walks one table along its primary key, a page to a transaction: it gets the last key
-- of the page before, answers the last key of its own, and ends when there is none. An update of a column with itself calls the trigger
-- that makes rows whole; the WHERE clauses pass over rows that are. No updated_at changes.

WITH page AS MATERIALIZED (
    SELECT id FROM langgraph_server.assistants
    WHERE %(after)s::text[] IS NULL OR id > (%(after)s::text[])[1] ORDER BY id LIMIT %(size)s
), healed AS (
    UPDATE langgraph_server.assistants a SET metadata = a.metadata FROM page
    WHERE a.id = page.id AND (jsonb_typeof(a.metadata) IS DISTINCT FROM 'object' OR jsonb_typeof(a.config) IS DISTINCT FROM 'object'
        OR jsonb_typeof(a.context) IS DISTINCT FROM 'object' OR a.version IS NULL OR a.last_version < a.version
        OR a.created_at IS NULL OR a.updated_at IS NULL)
)
SELECT ARRAY[id] FROM page ORDER BY id DESC LIMIT 1;

WITH page AS MATERIALIZED (
    SELECT id FROM langgraph_server.threads
    WHERE %(after)s::text[] IS NULL OR id > (%(after)s::text[])[1] ORDER BY id LIMIT %(size)s
), dated AS (
    -- A time that a message cannot hold is left out.
    SELECT page.id, (
        SELECT max(s.created_at) FROM langgraph_server.thread_states s
        WHERE s.thread_id = page.id AND s.created_at >= '0001-01-01 00:00+00' AND s.created_at < '10000-01-01 00:00+00'
    ) AS state_updated_at
    FROM page
), healed AS (
    UPDATE langgraph_server.threads t
    SET metadata = t.metadata, "values" = t."values", state_updated_at = coalesce(t.state_updated_at, dated.state_updated_at) FROM dated
    WHERE t.id = dated.id AND (jsonb_typeof(t.metadata) IS DISTINCT FROM 'object' OR jsonb_typeof(t.config) IS DISTINCT FROM 'object'
        OR t.status IS NULL OR t.interrupts IS NULL OR jsonb_typeof(t.interrupts) = 'string'
        OR t."values" IS NULL OR jsonb_typeof(t."values") = 'string' OR t.created_at IS NULL OR t.updated_at IS NULL
        OR (t.state_updated_at IS NULL AND dated.state_updated_at IS NOT NULL))
)
SELECT ARRAY[id] FROM page ORDER BY id DESC LIMIT 1;

WITH page AS MATERIALIZED (
    SELECT id FROM langgraph_server.thread_states
    WHERE %(after)s::text[] IS NULL OR id > (%(after)s::text[])[1]::integer ORDER BY id LIMIT %(size)s
), healed AS (
    UPDATE langgraph_server.thread_states s SET metadata = s.metadata FROM page
    WHERE s.id = page.id AND (s."values" IS NULL OR jsonb_typeof(s."values") = 'string'
        OR jsonb_typeof(s.metadata) IS DISTINCT FROM 'object' OR s.next IS NULL OR s.tasks IS NULL OR jsonb_typeof(s.tasks) = 'string'
        OR s.interrupts IS NULL OR jsonb_typeof(s.interrupts) = 'string'
        OR jsonb_typeof(s.parent_checkpoint) IN ('null', 'string') OR s.created_at IS NULL)
)
SELECT ARRAY[id::text] FROM page ORDER BY id DESC LIMIT 1;

-- After the threads, whose owners the runs inherit.
WITH page AS MATERIALIZED (
    SELECT id FROM langgraph_server.runs
    WHERE %(after)s::text[] IS NULL OR id > (%(after)s::text[])[1] ORDER BY id LIMIT %(size)s
), healed AS (
    UPDATE langgraph_server.runs r SET metadata = r.metadata FROM page
    WHERE r.id = page.id AND (jsonb_typeof(r.metadata) IS DISTINCT FROM 'object' OR r.kwargs IS NULL
        OR jsonb_typeof(r.kwargs) = 'string' OR r.status IS NULL OR r.multitask_strategy IS NULL
        OR r.created_at IS NULL OR r.updated_at IS NULL
        OR (r.metadata ->> 'owner' IS NULL AND EXISTS (
            SELECT FROM langgraph_server.threads t WHERE t.id = r.thread_id AND t.metadata ->> 'owner' IS NOT NULL)))
)
SELECT ARRAY[id] FROM page ORDER BY id DESC LIMIT 1;

WITH page AS MATERIALIZED (
    SELECT namespace, key, owner_id, version FROM langgraph_server.store_items
    WHERE %(after)s::text[] IS NULL
        OR (namespace, key, owner_id) > ((%(after)s::text[])[1], (%(after)s::text[])[2], (%(after)s::text[])[3])
    ORDER BY namespace, key, owner_id LIMIT %(size)s
), adopted AS MATERIALIZED (
    SELECT count(langgraph_server.adopt_item(namespace, key, owner_id)) AS items FROM page WHERE version = 0
)
SELECT ARRAY[namespace, key, owner_id] FROM page, adopted WHERE items IS NOT NULL
ORDER BY namespace DESC, key DESC, owner_id DESC LIMIT 1;

WITH page AS MATERIALIZED (
    SELECT id FROM langgraph_server.crons
    WHERE %(after)s::text[] IS NULL OR id > (%(after)s::text[])[1] ORDER BY id LIMIT %(size)s
), healed AS (
    UPDATE langgraph_server.crons c SET metadata = c.metadata FROM page
    WHERE c.id = page.id AND (jsonb_typeof(c.metadata) IS DISTINCT FROM 'object' OR c.payload IS NULL
        OR jsonb_typeof(c.payload) = 'string' OR c.created_at IS NULL OR c.updated_at IS NULL
        OR (c.enabled AND NOT langgraph_server.is_schedule(c.schedule)))
)
SELECT ARRAY[id] FROM page ORDER BY id DESC LIMIT 1;
