-- One mechanism makes rows whole, those that the runtimes left and those that they go on writing: row triggers whose WHEN clauses keep
-- ordinary rows out of them. An UPDATE trigger names its columns, so that an update of another column never reads a large document.

-- The document inside a JSON string, however often it was encoded; anything else as it is.
CREATE OR REPLACE FUNCTION langgraph_server.unwrap(document jsonb) RETURNS jsonb
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
    inner_document jsonb := document;
BEGIN
    WHILE jsonb_typeof(inner_document) = 'string' LOOP
        IF (inner_document #>> '{}') !~ '^\s*["{[]' THEN
            RETURN document;
        END IF;
        inner_document := (inner_document #>> '{}')::jsonb;
    END LOOP;
    RETURN CASE WHEN jsonb_typeof(inner_document) IN ('object', 'array') THEN inner_document ELSE document END;
EXCEPTION
    -- Not JSON after all, or JSON that jsonb does not hold.
    WHEN data_exception OR statement_too_complex OR program_limit_exceeded THEN
        RETURN document;
END
$$;

-- Metadata, config or context: unwrapped, with an empty object for none.
CREATE OR REPLACE FUNCTION langgraph_server.as_object(document jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
    SELECT coalesce(nullif(langgraph_server.unwrap(document), 'null'::jsonb), '{}'::jsonb)
$$;

-- Values and interrupts, the columns in which a client of the service may mean a string that looks like a document. The terms by which the
-- service writes them set storage_service.writer for their transaction, so they need no setting of the session; and a column that a
-- statement leaves as it was is nobody's writing. In every other column the service writes objects and arrays, which nothing unwraps. (Of
-- items the version tells who wrote.)
CREATE OR REPLACE FUNCTION langgraph_server.received(document jsonb, former jsonb) RETURNS jsonb
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
    SELECT CASE
        WHEN current_setting('storage_service.writer', true) = 'service' THEN document
        WHEN current_setting('storage_service.writer', true) = 'adoption' OR document IS DISTINCT FROM former
            THEN langgraph_server.unwrap(document)
        ELSE document
    END
$$;

-- The labels of a namespace joined by ".": "{a.b}", "{a,b}" and "a.b" are all a.b. What is no list of labels stays as it is.
CREATE OR REPLACE FUNCTION langgraph_server.canonical_namespace(namespace text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
DECLARE
    labels text[];
BEGIN
    IF namespace !~ '^\{.*\}$' THEN
        RETURN namespace;
    END IF;
    labels := namespace::text[];
    IF array_ndims(labels) > 1 OR array_position(labels, NULL) IS NOT NULL OR '' = ANY (labels) THEN
        RETURN namespace;
    END IF;
    RETURN array_to_string(labels, '.');
EXCEPTION
    WHEN data_exception OR program_limit_exceeded THEN
        RETURN namespace;
END
$$;

CREATE OR REPLACE FUNCTION langgraph_server.normalise_assistant() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.metadata := langgraph_server.as_object(NEW.metadata);
    NEW.config := langgraph_server.as_object(NEW.config);
    NEW.context := langgraph_server.as_object(NEW.context);
    NEW.version := coalesce(NEW.version, 1);
    NEW.last_version := greatest(NEW.last_version, NEW.version);
    NEW.created_at := coalesce(NEW.created_at, NEW.updated_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION langgraph_server.normalise_thread() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.metadata := langgraph_server.as_object(NEW.metadata);
    NEW.config := langgraph_server.as_object(NEW.config);
    NEW.status := coalesce(NEW.status, 'idle');
    NEW.interrupts := coalesce(langgraph_server.received(NEW.interrupts, OLD.interrupts), '{}');
    NEW.created_at := coalesce(NEW.created_at, NEW.updated_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    RETURN NEW;
END
$$;

-- Apart from the others: the values are large, and most updates leave them alone.
CREATE OR REPLACE FUNCTION langgraph_server.normalise_thread_values() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW."values" := coalesce(langgraph_server.received(NEW."values", OLD."values"), '{}');
    RETURN NEW;
END
$$;

CREATE OR REPLACE FUNCTION langgraph_server.normalise_thread_state() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW."values" := coalesce(langgraph_server.received(NEW."values", OLD."values"), '{}');
    NEW.metadata := langgraph_server.as_object(NEW.metadata);
    NEW.next := coalesce(NEW.next, '{}');
    NEW.tasks := coalesce(langgraph_server.unwrap(NEW.tasks), '[]');
    NEW.interrupts := coalesce(langgraph_server.received(NEW.interrupts, OLD.interrupts), '[]');
    NEW.parent_checkpoint := nullif(langgraph_server.unwrap(NEW.parent_checkpoint), 'null');
    NEW.created_at := coalesce(NEW.created_at, now());
    RETURN NEW;
END
$$;

-- The service itself says when a thread's state changed; a runtime does not know the column.
CREATE OR REPLACE FUNCTION langgraph_server.note_thread_state() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    UPDATE langgraph_server.threads SET state_updated_at = now() WHERE id = NEW.thread_id;
    RETURN NULL;
END
$$;

-- A run without an owner has the one it had (see keep_owner), or else its thread's.
CREATE OR REPLACE FUNCTION langgraph_server.normalise_run() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    owner text;
BEGIN
    NEW.metadata := langgraph_server.as_object(NEW.metadata);
    NEW.kwargs := coalesce(langgraph_server.unwrap(NEW.kwargs), '{}');
    NEW.status := coalesce(NEW.status, 'pending');
    NEW.multitask_strategy := coalesce(NEW.multitask_strategy, 'reject');
    NEW.created_at := coalesce(NEW.created_at, NEW.updated_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    IF jsonb_typeof(NEW.metadata) = 'object' AND NEW.metadata ->> 'owner' IS NULL THEN
        IF TG_OP = 'UPDATE' THEN
            owner := OLD.metadata ->> 'owner';
        END IF;
        IF owner IS NULL THEN
            SELECT t.metadata ->> 'owner' INTO owner FROM langgraph_server.threads t WHERE t.id = NEW.thread_id;
        END IF;
        IF owner IS NOT NULL THEN
            NEW.metadata := NEW.metadata || jsonb_build_object('owner', owner);
        END IF;
    END IF;
    RETURN NEW;
END
$$;

-- The service writes a version with every item; version 0, or a version that stays while the value changes, is a runtime's writing. Such
-- a put has no time to live and ends that of the item before it.
CREATE OR REPLACE FUNCTION langgraph_server.normalise_item() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.value := langgraph_server.unwrap(NEW.value);
    NEW.metadata := langgraph_server.as_object(NEW.metadata);
    NEW.created_at := coalesce(NEW.created_at, NEW.updated_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    IF TG_OP = 'INSERT' THEN
        NEW.namespace := langgraph_server.canonical_namespace(NEW.namespace);
        NEW.version := 1;
    ELSE
        NEW.version := OLD.version + 1;
        NEW.expires_at := NULL;
        NEW.ttl_minutes := NULL;
    END IF;
    RETURN NEW;
END
$$;

-- Makes one item of a runtime whole: its namespace gets the canonical spelling. Where that is taken, the newer of the two stays and the
-- other moves to store_items_displaced.
CREATE OR REPLACE FUNCTION langgraph_server.adopt_item(item_namespace text, item_key text, item_owner text) RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
    canonical text := langgraph_server.canonical_namespace(item_namespace);
    item langgraph_server.store_items;
    rival langgraph_server.store_items;
    loser langgraph_server.store_items;
BEGIN
    -- Again when a runtime takes the canonical spelling between the look and the update.
    LOOP
        SELECT * INTO item FROM langgraph_server.store_items
            WHERE namespace = item_namespace AND key = item_key AND owner_id = item_owner AND version = 0 FOR UPDATE;
        EXIT WHEN NOT FOUND;
        rival := NULL;
        IF canonical <> item_namespace THEN
            SELECT * INTO rival FROM langgraph_server.store_items
                WHERE namespace = canonical AND key = item_key AND owner_id = item_owner FOR UPDATE;
        END IF;
        IF rival.key IS NOT NULL THEN
            -- An item that has ended holds nothing that a reader could still see, so it never wins.
            IF coalesce(rival.updated_at, '-infinity') >= coalesce(item.updated_at, '-infinity')
                AND coalesce(rival.expires_at, 'infinity') > now() THEN
                loser := item;
            ELSE
                loser := rival;
            END IF;
            INSERT INTO langgraph_server.store_items_displaced
                (namespace, key, owner_id, value, metadata, created_at, updated_at, reason)
                VALUES (loser.namespace, loser.key, loser.owner_id, loser.value, loser.metadata, loser.created_at, loser.updated_at,
                    'a newer item has the namespace ' || canonical);
            DELETE FROM langgraph_server.store_items
                WHERE namespace = loser.namespace AND key = loser.key AND owner_id = loser.owner_id;
            EXIT WHEN loser.namespace = item_namespace;
        END IF;
        BEGIN
            UPDATE langgraph_server.store_items SET
                namespace = canonical,
                value = coalesce(langgraph_server.unwrap(value), '{}'),
                metadata = langgraph_server.as_object(metadata),
                version = coalesce(rival.version, 0) + 1,
                created_at = coalesce(created_at, updated_at, now()),
                updated_at = coalesce(updated_at, created_at, now())
                WHERE namespace = item_namespace AND key = item_key AND owner_id = item_owner;
            EXIT;
        EXCEPTION
            WHEN unique_violation THEN
                NULL;
        END;
    END LOOP;
END
$$;

-- A schedule is five fields or an alias; others are kept but do not fire.
CREATE OR REPLACE FUNCTION langgraph_server.is_schedule(schedule text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog AS $$
    SELECT schedule ~ '^\s*@' OR schedule ~ '^\s*\S+(\s+\S+){4}\s*$'
$$;

CREATE OR REPLACE FUNCTION langgraph_server.normalise_cron() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.metadata := langgraph_server.as_object(NEW.metadata);
    NEW.payload := coalesce(langgraph_server.unwrap(NEW.payload), '{}');
    NEW.created_at := coalesce(NEW.created_at, NEW.updated_at, now());
    NEW.updated_at := coalesce(NEW.updated_at, NEW.created_at);
    NEW.enabled := NEW.enabled AND langgraph_server.is_schedule(NEW.schedule);
    RETURN NEW;
END
$$;

-- A runtime that replaces the metadata of a row does not mean to give the row away. One that names another owner does.
CREATE OR REPLACE FUNCTION langgraph_server.keep_owner() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog AS $$
BEGIN
    NEW.metadata := NEW.metadata || jsonb_build_object('owner', OLD.metadata -> 'owner');
    RETURN NEW;
END
$$;

CREATE OR REPLACE TRIGGER normalise BEFORE INSERT OR UPDATE OF metadata, config, context, version, created_at, updated_at
    ON langgraph_server.assistants FOR EACH ROW
    WHEN (jsonb_typeof(NEW.metadata) IS DISTINCT FROM 'object' OR jsonb_typeof(NEW.config) IS DISTINCT FROM 'object'
        OR jsonb_typeof(NEW.context) IS DISTINCT FROM 'object' OR NEW.version IS NULL OR NEW.last_version < NEW.version
        OR NEW.created_at IS NULL OR NEW.updated_at IS NULL)
    EXECUTE FUNCTION langgraph_server.normalise_assistant();

CREATE OR REPLACE TRIGGER normalise BEFORE INSERT OR UPDATE OF metadata, config, status, interrupts, created_at, updated_at
    ON langgraph_server.threads FOR EACH ROW
    WHEN (jsonb_typeof(NEW.metadata) IS DISTINCT FROM 'object' OR jsonb_typeof(NEW.config) IS DISTINCT FROM 'object'
        OR NEW.status IS NULL OR NEW.interrupts IS NULL OR jsonb_typeof(NEW.interrupts) = 'string'
        OR NEW.created_at IS NULL OR NEW.updated_at IS NULL)
    EXECUTE FUNCTION langgraph_server.normalise_thread();

CREATE OR REPLACE TRIGGER normalise_values BEFORE INSERT OR UPDATE OF "values"
    ON langgraph_server.threads FOR EACH ROW
    WHEN (NEW."values" IS NULL OR jsonb_typeof(NEW."values") = 'string')
    EXECUTE FUNCTION langgraph_server.normalise_thread_values();

CREATE OR REPLACE TRIGGER normalise
    BEFORE INSERT OR UPDATE OF "values", metadata, next, tasks, interrupts, parent_checkpoint, created_at
    ON langgraph_server.thread_states FOR EACH ROW
    WHEN (NEW."values" IS NULL OR jsonb_typeof(NEW."values") = 'string' OR jsonb_typeof(NEW.metadata) IS DISTINCT FROM 'object'
        OR NEW.next IS NULL OR NEW.tasks IS NULL OR jsonb_typeof(NEW.tasks) = 'string'
        OR NEW.interrupts IS NULL OR jsonb_typeof(NEW.interrupts) = 'string'
        OR jsonb_typeof(NEW.parent_checkpoint) IN ('null', 'string') OR NEW.created_at IS NULL)
    EXECUTE FUNCTION langgraph_server.normalise_thread_state();

CREATE OR REPLACE TRIGGER note AFTER INSERT
    ON langgraph_server.thread_states FOR EACH ROW
    WHEN (NOT NEW.by_service)
    EXECUTE FUNCTION langgraph_server.note_thread_state();

CREATE OR REPLACE TRIGGER normalise
    BEFORE INSERT OR UPDATE OF thread_id, metadata, kwargs, status, multitask_strategy, created_at, updated_at
    ON langgraph_server.runs FOR EACH ROW
    WHEN (jsonb_typeof(NEW.metadata) IS DISTINCT FROM 'object' OR NEW.metadata ->> 'owner' IS NULL
        OR NEW.kwargs IS NULL OR jsonb_typeof(NEW.kwargs) = 'string' OR NEW.status IS NULL OR NEW.multitask_strategy IS NULL
        OR NEW.created_at IS NULL OR NEW.updated_at IS NULL)
    EXECUTE FUNCTION langgraph_server.normalise_run();

CREATE OR REPLACE TRIGGER normalise_insert BEFORE INSERT
    ON langgraph_server.store_items FOR EACH ROW
    WHEN (NEW.version = 0)
    EXECUTE FUNCTION langgraph_server.normalise_item();

-- A refresh of the time to live changes neither column, so it is nobody's put.
CREATE OR REPLACE TRIGGER normalise_update BEFORE UPDATE OF value, updated_at
    ON langgraph_server.store_items FOR EACH ROW
    WHEN (NEW.version = OLD.version AND (NEW.updated_at IS DISTINCT FROM OLD.updated_at OR NEW.value IS DISTINCT FROM OLD.value))
    EXECUTE FUNCTION langgraph_server.normalise_item();

CREATE OR REPLACE TRIGGER normalise BEFORE INSERT OR UPDATE OF metadata, payload, schedule, enabled, created_at, updated_at
    ON langgraph_server.crons FOR EACH ROW
    WHEN (jsonb_typeof(NEW.metadata) IS DISTINCT FROM 'object' OR NEW.payload IS NULL OR jsonb_typeof(NEW.payload) = 'string'
        OR NEW.created_at IS NULL OR NEW.updated_at IS NULL
        OR (NEW.enabled AND NEW.schedule !~ '^\s*(@|\S+(\s+\S+){4}\s*$)'))
    EXECUTE FUNCTION langgraph_server.normalise_cron();

-- Triggers fire in the order of their names, so "normalise" has unwrapped the metadata before these look at it.
CREATE OR REPLACE TRIGGER normalise_owner BEFORE UPDATE OF metadata
    ON langgraph_server.assistants FOR EACH ROW
    WHEN (OLD.metadata ->> 'owner' IS NOT NULL AND NEW.metadata ->> 'owner' IS NULL AND jsonb_typeof(NEW.metadata) = 'object')
    EXECUTE FUNCTION langgraph_server.keep_owner();

CREATE OR REPLACE TRIGGER normalise_owner BEFORE UPDATE OF metadata
    ON langgraph_server.threads FOR EACH ROW
    WHEN (OLD.metadata ->> 'owner' IS NOT NULL AND NEW.metadata ->> 'owner' IS NULL AND jsonb_typeof(NEW.metadata) = 'object')
    EXECUTE FUNCTION langgraph_server.keep_owner();

CREATE OR REPLACE TRIGGER normalise_owner BEFORE UPDATE OF metadata
    ON langgraph_server.crons FOR EACH ROW
    WHEN (OLD.metadata ->> 'owner' IS NOT NULL AND NEW.metadata ->> 'owner' IS NULL AND jsonb_typeof(NEW.metadata) = 'object')
    EXECUTE FUNCTION langgraph_server.keep_owner();
