-- The vectors of an item are in its own row, so that a put replaces them and whatever deletes the item deletes them. Numbers do not
-- compress: nobody shall try.
DO $$
BEGIN
    IF to_regtype('langgraph_server.item_vector') IS NULL THEN
        CREATE TYPE langgraph_server.item_vector AS (field TEXT, embedding REAL[]);
    END IF;
END $$;

ALTER TABLE langgraph_server.store_items
    ADD COLUMN IF NOT EXISTS vectors langgraph_server.item_vector[],
    ALTER COLUMN vectors SET STORAGE EXTERNAL;

-- pgvector, where it is there to be had, makes searches faster; without it they give the same. Managed databases may refuse it to the role.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_available_extensions WHERE name = 'vector' AND installed_version IS NULL) THEN
        CREATE EXTENSION IF NOT EXISTS vector;
    END IF;
EXCEPTION
    WHEN insufficient_privilege OR undefined_file OR feature_not_supported THEN
        RAISE NOTICE 'pgvector cannot be made by this role: searches by vector go without it';
END $$;
