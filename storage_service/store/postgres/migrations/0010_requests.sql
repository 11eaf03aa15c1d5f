-- mode: concurrently
-- A request_id of an owner makes one row, whatever the id. What a create leaves in the column begins with 32 characters that stand for
-- its method, its owner and its request_id; it holds a colon where none was given, and in rows of earlier revisions.

CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_assistants_request
    ON langgraph_server.assistants (("left"(request_id, 32))) WHERE strpos(request_id, ':') = 0 AND request_id <> '';
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_threads_request
    ON langgraph_server.threads (("left"(request_id, 32))) WHERE strpos(request_id, ':') = 0 AND request_id <> '';
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_runs_request
    ON langgraph_server.runs (("left"(request_id, 32))) WHERE strpos(request_id, ':') = 0 AND request_id <> '';
CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS ix_crons_request
    ON langgraph_server.crons (("left"(request_id, 32))) WHERE strpos(request_id, ':') = 0 AND request_id <> '';
