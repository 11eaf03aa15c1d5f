-- mode: concurrently
-- The way from a run to its checkpoints, in LangGraph's table. The first 255 characters stand for a run's id, which anybody can make
-- long: an index cannot hold more than 2,700 bytes of a row, and must keep no runtime from writing one.

CREATE INDEX CONCURRENTLY IF NOT EXISTS ix_checkpoints_run
    ON public.checkpoints (("left"(metadata ->> 'run_id', 255)));
