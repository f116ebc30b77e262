-- The SQL schema, version 2, as commit 50b475be2fffac9ecc5f4683bca61b7ce287cf9b makes it. Saved by `make schemas`.

CREATE SCHEMA supervisor;

CREATE FUNCTION supervisor.add_dead_letter(projection text, poison bigint, error text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    INSERT INTO supervisor.dead_letter (projection, position, stream, type, data, at, error)
        SELECT add_dead_letter.projection, e.position, e.stream, e.type, e.data, e.at, add_dead_letter.error
        FROM supervisor.event e WHERE e.position = poison
        ON CONFLICT (projection, position) DO UPDATE SET error = excluded.error, died_at = excluded.died_at
$$;

CREATE FUNCTION supervisor.advance_epochs(ids integer[], names text[], backend integer, node_id integer, node text, incarnation uuid) RETURNS TABLE(id integer, epoch bigint)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    WITH free AS MATERIALIZED (
        SELECT l.id FROM supervisor.lease l
        WHERE (l.id, l.name) IN (SELECT n.id, n.name FROM unnest(ids, names) AS n (id, name))
        ORDER BY l.id FOR UPDATE SKIP LOCKED
    ), locked AS MATERIALIZED (
        SELECT h.id FROM supervisor.lock_holders h WHERE h.kind = 'lease' AND h.pid = backend
    )
    UPDATE supervisor.lease l
        SET epoch = l.epoch + 1, node = advance_epochs.node, node_id = advance_epochs.node_id,
            incarnation = advance_epochs.incarnation, acquired_at = clock_timestamp()
        FROM free, locked
        WHERE l.id = free.id AND l.id = locked.id
        RETURNING l.id, l.epoch
$$;

CREATE FUNCTION supervisor.append(stream text, type text, data jsonb DEFAULT '{}'::jsonb) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_variable
DECLARE
    this_transaction text := pg_current_xact_id()::text;
    hash bytea;
    drawn bigint;
BEGIN
    IF stream IS NULL OR length(stream) NOT BETWEEN 1 AND 500 THEN
        RAISE EXCEPTION 'a stream''s name has 1 to 500 characters, this one has %',
            coalesce(length(stream)::text, 'none (it is null)') USING ERRCODE = '22023';
    END IF;
    IF type IS NULL OR length(type) NOT BETWEEN 1 AND 500 THEN
        RAISE EXCEPTION 'an event''s type has 1 to 500 characters, this one has %',
            coalesce(length(type)::text, 'none (it is null)') USING ERRCODE = '22023';
    END IF;
    IF jsonb_typeof(data) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'an event''s data is a JSON object, this is %', coalesce(jsonb_typeof(data), 'null')
            USING ERRCODE = '22023', HINT = 'Wrap it: {"value": ...}.';
    END IF;
    -- Some JSON decoders, Python's among them, fail at a depth of about a thousand: no daemon could read the event.
    IF jsonb_path_exists(data, '$.**{500}') THEN
        RAISE EXCEPTION 'an event''s data is nested less than 500 deep, this is deeper' USING ERRCODE = '22023';
    END IF;
    IF current_setting('supervisor.appending', true) IS DISTINCT FROM this_transaction THEN
        PERFORM pg_advisory_xact_lock_shared(1885827844, (s.last_value & 4294967295)::bit(32)::int)
            FROM supervisor.event_position s;
        PERFORM set_config('supervisor.appending', this_transaction, true);
        IF coalesce(current_setting('supervisor.notify', true), '') NOT IN ('off', 'false', '0', 'no') THEN
            PERFORM pg_notify('supervisor_event', '');
        END IF;
    END IF;
    hash := sha256(convert_to(stream, 'UTF8'));
    drawn := nextval('supervisor.event_position');
    INSERT INTO supervisor.event (position, stream, type, data, bucket) VALUES (
        drawn, stream, type, data,
        (get_byte(hash, 0) & 127) << 24 | (get_byte(hash, 1) << 16) | (get_byte(hash, 2) << 8) | get_byte(hash, 3)
    );
    RETURN drawn;
END $_$;

CREATE FUNCTION supervisor.begin_batch(lease integer, epoch bigint, incarnation uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    this_transaction xid8 := supervisor.fence(lease, epoch, incarnation);
BEGIN
    IF this_transaction IS NULL THEN
        RAISE EXCEPTION 'the lease has passed to another holder' USING ERRCODE = 'SVL01';
    END IF;
    PERFORM set_config('supervisor.batch', this_transaction::text, true);
END $$;

CREATE FUNCTION supervisor.cluster_snapshot(node_id integer, OUT backend integer, OUT is_registered boolean, OUT nodes integer[], OUT nodes_version bigint, OUT leases integer[], OUT holders integer[], OUT head bigint) RETURNS record
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    WITH held AS MATERIALIZED (SELECT h.kind, h.id, h.pid FROM supervisor.lock_holders h),
    living AS (SELECT h.id, h.pid FROM held h WHERE h.kind = 'node'),
    taken AS (
        SELECT h.id, coalesce(n.id, 0) AS holder FROM held h LEFT JOIN living n ON n.pid = h.pid WHERE h.kind = 'lease'
    )
    SELECT pg_backend_pid(),
        EXISTS (SELECT FROM supervisor.node n WHERE n.id = node_id)
            AND EXISTS (SELECT FROM living WHERE living.id = node_id AND living.pid = pg_backend_pid()),
        (SELECT coalesce(array_agg(living.id ORDER BY living.id), '{}') FROM living),
        (SELECT coalesce(max(n.row_version), 0) FROM supervisor.node n),
        (SELECT coalesce(array_agg(taken.id ORDER BY taken.id), '{}') FROM taken),
        (SELECT coalesce(array_agg(taken.holder ORDER BY taken.id), '{}') FROM taken),
        (SELECT e.last_value FROM supervisor.event_position e)
$$;

CREATE FUNCTION supervisor.fence(lease integer, epoch bigint, incarnation uuid) RETURNS xid8
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    PERFORM set_config('idle_in_transaction_session_timeout', '60s', true),
        set_config('client_connection_check_interval', '500ms', true),
        set_config('tcp_keepalives_idle', '5', true),
        set_config('tcp_keepalives_interval', '3', true),
        set_config('tcp_keepalives_count', '4', true),
        set_config('tcp_user_timeout', '15s', true);
    PERFORM pg_advisory_xact_lock_shared(1885827843, lease);
    PERFORM FROM supervisor.lease l
        WHERE l.id = lease AND l.epoch = fence.epoch AND l.incarnation = fence.incarnation
        FOR SHARE;
    RETURN CASE WHEN FOUND THEN pg_current_xact_id() END;
END $$;

CREATE FUNCTION supervisor.finish_batch(projection text, shard integer, shards integer, revision bigint, new_position bigint, events integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    IF current_setting('supervisor.batch', true) IS DISTINCT FROM pg_current_xact_id()::text THEN
        -- Only the end of its transaction releases the fence's lock.
        IF EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'advisory' AND l.classid = 1885827843 AND l.objsubid = 2
                AND l.granted AND l.pid = pg_backend_pid()) THEN
            RAISE EXCEPTION 'the settings of the transaction in which the batch began were reset'
                USING ERRCODE = 'SVT02';
        END IF;
        RAISE EXCEPTION 'this is not the transaction in which the batch began' USING ERRCODE = 'SVT01';
    END IF;
    UPDATE supervisor.checkpoint c
        SET position = new_position, revision = c.revision + 1, applied = c.applied + events,
            moved_at = clock_timestamp(), poison = NULL, error = NULL
        WHERE c.projection = finish_batch.projection AND c.shard = finish_batch.shard
            AND c.shards = finish_batch.shards AND c.revision = finish_batch.revision;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the checkpoint was moved from outside' USING ERRCODE = 'SVM01';
    END IF;
END $$;

CREATE FUNCTION supervisor.forget_projection(projection text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    shard_count int;
    node text;
BEGIN
    SELECT p.shards INTO shard_count FROM supervisor.projection p WHERE p.name = projection FOR UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    SELECT n.name INTO node
        FROM supervisor.lease l
        JOIN supervisor.lock_holders h ON h.kind = 'node'
        JOIN supervisor.node n ON n.id = h.id AND l.id = ANY (n.wanted_leases)
        WHERE l.name = ANY (supervisor.shard_leases(projection, shard_count)) LIMIT 1;
    IF node IS NULL THEN
        SELECT coalesce(l.node, 'another session') INTO node
            FROM supervisor.lease l JOIN supervisor.lock_holders h ON h.kind = 'lease' AND h.id = l.id
            WHERE l.name = ANY (supervisor.shard_leases(projection, shard_count)) LIMIT 1;
    END IF;
    IF node IS NOT NULL THEN
        RAISE EXCEPTION 'the projection % is run by %: remove it from the configuration of that node first',
            projection, node USING ERRCODE = '55006';
    END IF;
    DELETE FROM supervisor.projection p WHERE p.name = projection;
    RETURN true;
END $$;

CREATE FUNCTION supervisor.head() RETURNS bigint
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT s.last_value FROM supervisor.event_position s
$$;

CREATE FUNCTION supervisor.horizon() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    head bigint;
    oldest bigint;
BEGIN
    SELECT s.last_value INTO head FROM supervisor.event_position s;
    -- A lock has only the low 32 bits of a position: the position is the number nearest to the head with these bits.
    SELECT min(CASE WHEN v - head > 2147483648 THEN v - 4294967296 WHEN head - v > 2147483648 THEN v + 4294967296 ELSE v END)
        INTO oldest
        FROM (
            SELECT (head & ~4294967295::bigint) | objid::bigint AS v FROM pg_locks
            WHERE locktype = 'advisory' AND classid = 1885827844 AND objsubid = 2 AND granted
                AND database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
        ) AS locked;
    RETURN least(head, oldest);
END $$;

CREATE FUNCTION supervisor.join_node(node_id integer, name text, host text, pid integer, version text, started_at timestamp with time zone, wanted_leases integer[]) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    node_id := coalesce(node_id, nextval('supervisor.node_id_seq')::int);
    IF NOT EXISTS (
        SELECT FROM supervisor.lock_holders h WHERE h.kind = 'node' AND h.id = node_id AND h.pid = pg_backend_pid()
    )
        AND NOT pg_try_advisory_lock(1885827841, node_id)
    THEN
        RETURN NULL;
    END IF;
    DELETE FROM supervisor.node n WHERE n.id IN (
        SELECT o.id FROM supervisor.node o
        WHERE o.id <> node_id AND o.joined_at < clock_timestamp() - interval '10 s'
            AND NOT EXISTS (SELECT FROM supervisor.lock_holders h WHERE h.kind = 'node' AND h.id = o.id)
        FOR UPDATE SKIP LOCKED
    );
    INSERT INTO supervisor.node (id, name, host, pid, version, started_at, wanted_leases)
        VALUES (node_id, name, host, pid, version, started_at, wanted_leases)
        ON CONFLICT (id) DO UPDATE SET name = excluded.name, host = excluded.host, pid = excluded.pid,
            version = excluded.version, started_at = excluded.started_at, joined_at = clock_timestamp(),
            wanted_leases = excluded.wanted_leases, row_version = nextval('supervisor.node_row_version');
    PERFORM pg_notify('supervisor_lease', 'nodes');
    RETURN node_id;
END $$;

CREATE FUNCTION supervisor.lease_ids(names text[]) RETURNS TABLE(name text, id integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
BEGIN
    INSERT INTO supervisor.lease (name)
        SELECT n FROM unnest(names) AS n WHERE NOT EXISTS (SELECT FROM supervisor.lease l WHERE l.name = n)
        ORDER BY n
        ON CONFLICT DO NOTHING;
    RETURN QUERY SELECT l.name, l.id FROM supervisor.lease l WHERE l.name = ANY (names);
END $$;

CREATE FUNCTION supervisor.leave_node(node_id integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    PERFORM supervisor.release_leases(
        ARRAY(SELECT h.id FROM supervisor.lock_holders h WHERE h.kind = 'lease' AND h.pid = pg_backend_pid()), node_id
    );
    DELETE FROM supervisor.node n WHERE n.id = node_id;
    PERFORM pg_advisory_unlock(1885827841, h.id) FROM supervisor.lock_holders h
        WHERE h.kind = 'node' AND h.pid = pg_backend_pid();
END $$;

CREATE FUNCTION supervisor.may_hold_large_events() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RETURN coalesce(pg_relation_size(
        (SELECT c.reltoastrelid FROM pg_class c WHERE c.oid = 'supervisor.event'::regclass)
    ) > 0, true);
END $$;

CREATE FUNCTION supervisor.notify_checkpoint_moved(projection text) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT pg_notify('supervisor_projection', projection), pg_notify('supervisor_event', '')
$$;

CREATE FUNCTION supervisor.prune_events(keep interval, at_most integer DEFAULT 10000) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    until timestamptz := clock_timestamp() - keep;
    pruned int;
BEGIN
    IF until <= (SELECT e.at FROM supervisor.event e ORDER BY e.position LIMIT 1) THEN
        RETURN 0;
    END IF;
    WITH first AS MATERIALIZED (
        SELECT e.position, e.at FROM supervisor.event e
        WHERE e.position <= (SELECT min(c.position) FROM supervisor.checkpoint c)
        ORDER BY e.position LIMIT at_most
    )
    DELETE FROM supervisor.event e USING first WHERE e.position = first.position AND first.at < until;
    GET DIAGNOSTICS pruned = ROW_COUNT;
    RETURN pruned;
END $$;

CREATE FUNCTION supervisor.record_poison(projection text, shard integer, shards integer, revision bigint, poison bigint, error text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    UPDATE supervisor.checkpoint c SET poison = record_poison.poison, error = record_poison.error
        WHERE c.projection = record_poison.projection AND c.shard = record_poison.shard
            AND c.shards = record_poison.shards AND c.revision = record_poison.revision;
    RETURN FOUND;
END $$;

CREATE FUNCTION supervisor.release_leases(ids integer[], node_id integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    freed int;
BEGIN
    UPDATE supervisor.lease l SET node = NULL, node_id = NULL, incarnation = NULL WHERE l.id IN (
        SELECT o.id FROM supervisor.lease o WHERE o.id = ANY (ids) AND o.node_id = release_leases.node_id
        ORDER BY o.id FOR UPDATE SKIP LOCKED
    );
    LOOP
        SELECT count(pg_advisory_unlock(1885827842, h.id)) INTO freed FROM supervisor.lock_holders h
            WHERE h.kind = 'lease' AND h.id = ANY (ids) AND h.pid = pg_backend_pid();
        EXIT WHEN freed = 0;
    END LOOP;
    PERFORM pg_notify('supervisor_lease', 'released');
END $$;

CREATE FUNCTION supervisor.reset_projection(projection text, to_position bigint DEFAULT 0) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    head bigint;
    shard_count int;
BEGIN
    SELECT s.last_value INTO head FROM supervisor.event_position s;
    IF to_position IS NULL OR to_position NOT BETWEEN 0 AND head THEN
        RAISE EXCEPTION 'a position to begin again from lies between 0 and that of the last event, %; this is %', head,
            coalesce(to_position::text, 'null') USING ERRCODE = '22023';
    END IF;
    SELECT p.shards INTO shard_count FROM supervisor.projection p WHERE p.name = projection FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    INSERT INTO supervisor.checkpoint (projection, shard, shards, position)
        SELECT projection, n, shard_count, 0 FROM generate_series(0, shard_count - 1) AS n ON CONFLICT DO NOTHING;
    PERFORM FROM supervisor.checkpoint c WHERE c.projection = reset_projection.projection ORDER BY c.shard FOR UPDATE;
    UPDATE supervisor.checkpoint c
        SET position = to_position, revision = c.revision + 1, previous_shardings = '[]', applied = 0,
        poison = NULL, error = NULL, moved_at = clock_timestamp() WHERE c.projection = reset_projection.projection;
    DELETE FROM supervisor.dead_letter d WHERE d.projection = reset_projection.projection AND d.position > to_position;
    PERFORM supervisor.notify_checkpoint_moved(projection);
    RETURN true;
END $$;

CREATE FUNCTION supervisor.reshard(projection text, shards integer, configured_ago interval DEFAULT '00:00:00'::interval) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    since timestamptz := clock_timestamp() - configured_ago;
    former int;
    former_since timestamptz;
    passed bigint[];
    earlier jsonb;
    lowest bigint;
    total bigint;
    last_revision bigint;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the number of shards can only be changed in READ COMMITTED' USING ERRCODE = '25001',
            HINT = 'Under another isolation the latest commits of its holders would be missed.';
    END IF;
    IF projection IS NULL OR shards IS NULL OR shards < 1 THEN
        RAISE EXCEPTION 'a projection has a name and at least one shard' USING ERRCODE = '22023';
    END IF;
    INSERT INTO supervisor.projection (name, shards, configured_at) VALUES (projection, shards, since)
        ON CONFLICT DO NOTHING;
    -- NO KEY, because no key changes: a session that adds a dead letter under this name must not wait, or both would
    -- deadlock.
    SELECT p.shards, p.configured_at INTO former, former_since FROM supervisor.projection p WHERE p.name = projection
        FOR NO KEY UPDATE;
    -- A time in the future means that the clock was set back, by a restore on another machine for instance.
    IF former <> shards AND former_since > since AND former_since <= clock_timestamp() THEN
        RETURN NULL;
    END IF;
    UPDATE supervisor.projection p SET shards = reshard.shards, configured_at = since
        WHERE p.name = projection AND (former <> reshard.shards OR p.configured_at < since);
    -- The checkpoints of a new projection, and those that an administrator has deleted.
    INSERT INTO supervisor.checkpoint (projection, shard, shards, position)
        SELECT projection, n, former, 0 FROM generate_series(0, former - 1) AS n ON CONFLICT DO NOTHING;
    IF former = shards THEN
        RETURN false;
    END IF;
    PERFORM FROM supervisor.lease l WHERE l.name = ANY (supervisor.shard_leases(projection, former))
        ORDER BY l.id FOR UPDATE;
    UPDATE supervisor.lease l SET epoch = l.epoch + 1, incarnation = NULL, node = NULL, node_id = NULL
        WHERE l.name = ANY (supervisor.shard_leases(projection, former));
    -- A reset or skip by an administrator may be in progress.
    PERFORM FROM supervisor.checkpoint c WHERE c.projection = reshard.projection ORDER BY c.shard FOR UPDATE;
    SELECT array_agg(c.position ORDER BY c.shard), min(c.position), sum(c.applied), max(c.revision)
        INTO passed, lowest, total, last_revision
        FROM supervisor.checkpoint c WHERE c.projection = reshard.projection;
    -- An entry that every shard has passed is not needed any more.
    SELECT coalesce(jsonb_agg(DISTINCT sharding), '[]') INTO earlier
        FROM supervisor.checkpoint c, jsonb_array_elements(c.previous_shardings) AS sharding
        WHERE c.projection = reshard.projection
            AND (SELECT max(p::bigint) FROM jsonb_array_elements_text(sharding -> 'positions') AS p) > lowest;
    IF lowest < (SELECT max(p) FROM unnest(passed) AS p) THEN
        earlier := earlier || jsonb_build_array(jsonb_build_object('shards', former, 'positions', to_jsonb(passed)));
    END IF;
    DELETE FROM supervisor.checkpoint c WHERE c.projection = reshard.projection;
    INSERT INTO supervisor.checkpoint (projection, shard, shards, position, revision, applied, previous_shardings)
        SELECT projection, n, shards, lowest, last_revision + 1, CASE n WHEN 0 THEN total ELSE 0 END, earlier
        FROM generate_series(0, shards - 1) AS n;
    PERFORM supervisor.notify_checkpoint_moved(projection);
    RETURN true;
END $$;

CREATE FUNCTION supervisor.set_wanted_leases(node_id integer, wanted_leases integer[]) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
BEGIN
    UPDATE supervisor.node n
        SET wanted_leases = set_wanted_leases.wanted_leases, row_version = nextval('supervisor.node_row_version')
        WHERE n.id = node_id;
    PERFORM pg_notify('supervisor_lease', 'nodes');
    RETURN FOUND;
END $$;

CREATE FUNCTION supervisor.shard_leases(projection text, shards integer) RETURNS text[]
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT CASE WHEN shards = 1 THEN ARRAY[projection]
        ELSE ARRAY(SELECT format('%s/%sof%s', projection, n, shards) FROM generate_series(1, shards) AS n) END
$$;

CREATE FUNCTION supervisor.skip_poison(projection text) RETURNS SETOF bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
DECLARE
    stopped record;
BEGIN
    FOR stopped IN
        SELECT c.shard, c.poison, c.error FROM supervisor.checkpoint c
        WHERE c.projection = skip_poison.projection AND c.poison > c.position ORDER BY c.shard FOR UPDATE
    LOOP
        PERFORM supervisor.add_dead_letter(projection, stopped.poison, 'skipped: ' || coalesce(stopped.error, ''));
        UPDATE supervisor.checkpoint c SET position = stopped.poison, revision = c.revision + 1, poison = NULL,
            error = NULL, moved_at = clock_timestamp()
            WHERE c.projection = skip_poison.projection AND c.shard = stopped.shard;
        RETURN NEXT stopped.poison;
    END LOOP;
    PERFORM supervisor.notify_checkpoint_moved(projection);
END $$;

CREATE FUNCTION supervisor.try_lease_locks(ids integer[]) RETURNS integer[]
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    WITH own AS MATERIALIZED (
        SELECT h.id FROM supervisor.lock_holders h WHERE h.kind = 'lease' AND h.pid = pg_backend_pid()
    ),
    tried AS MATERIALIZED (
        SELECT i.id, CASE WHEN i.id IN (SELECT own.id FROM own) THEN true ELSE pg_try_advisory_lock(1885827842, i.id) END
            AS is_held
        FROM (SELECT DISTINCT unnest(ids) AS id) AS i
    )
    SELECT coalesce(array_agg(tried.id ORDER BY tried.id), '{}') FROM tried WHERE tried.is_held
$$;

CREATE TABLE supervisor.checkpoint (
    projection text NOT NULL,
    shard integer NOT NULL,
    shards integer NOT NULL,
    "position" bigint NOT NULL,
    revision bigint DEFAULT 0 NOT NULL,
    applied bigint DEFAULT 0 NOT NULL,
    moved_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    previous_shardings jsonb DEFAULT '[]'::jsonb NOT NULL,
    poison bigint,
    error text
);

COMMENT ON COLUMN supervisor.checkpoint."position" IS 'Every event of the shard up to here has been applied.';

COMMENT ON COLUMN supervisor.checkpoint.revision IS 'Grows at each move and is never reused: a batch that has read an older revision cannot commit.';

COMMENT ON COLUMN supervisor.checkpoint.previous_shardings IS 'What was applied under earlier numbers of shards: an event that one of the entries covers is applied already.';

COMMENT ON COLUMN supervisor.checkpoint.poison IS 'The event at which the shard has stopped.';

CREATE TABLE supervisor.dead_letter (
    projection text NOT NULL,
    "position" bigint NOT NULL,
    stream text NOT NULL,
    type text NOT NULL,
    data jsonb NOT NULL,
    at timestamp with time zone NOT NULL,
    error text NOT NULL,
    died_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE supervisor.event (
    "position" bigint NOT NULL,
    stream text NOT NULL,
    type text NOT NULL,
    data jsonb NOT NULL,
    at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    bucket integer NOT NULL,
    CONSTRAINT event_bucket_check CHECK ((bucket >= 0))
);

COMMENT ON COLUMN supervisor.event.bucket IS 'A hash of the stream; shard n of m takes the events with bucket % m = n.';

CREATE SEQUENCE supervisor.event_position
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE supervisor.lease (
    id integer NOT NULL,
    name text NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    node text,
    node_id integer,
    incarnation uuid,
    acquired_at timestamp with time zone
);

COMMENT ON TABLE supervisor.lease IS 'Permits to run something on one node. The session of the holder has the advisory lock (1885827842, id).';

COMMENT ON COLUMN supervisor.lease.epoch IS 'Grows by one at each acquisition.';

COMMENT ON COLUMN supervisor.lease.node IS 'The holder, or the last holder, if it ended without releasing the lease.';

COMMENT ON COLUMN supervisor.lease.incarnation IS 'Random at each acquisition: after a restore or an asynchronous failover an epoch may be given twice.';

ALTER TABLE supervisor.lease ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME supervisor.lease_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE VIEW supervisor.lock_holders AS
 SELECT
        CASE classid
            WHEN 1885827841 THEN 'node'::text
            ELSE 'lease'::text
        END AS kind,
    ((objid)::bigint)::integer AS id,
    pid
   FROM pg_locks
  WHERE ((locktype = 'advisory'::text) AND (classid = ANY (ARRAY[(1885827841)::oid, (1885827842)::oid])) AND (objsubid = 2) AND (mode = 'ExclusiveLock'::text) AND granted AND (pid IS NOT NULL) AND (database = ( SELECT pg_database.oid
           FROM pg_database
          WHERE (pg_database.datname = current_database()))));

CREATE TABLE supervisor.migration (
    version integer NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    oldest_daemon integer NOT NULL,
    digest text NOT NULL
);

COMMENT ON COLUMN supervisor.migration.oldest_daemon IS 'The schema version of the oldest daemon that may run on this version.';

COMMENT ON COLUMN supervisor.migration.digest IS 'SHA-256 of the file that was applied.';

CREATE SEQUENCE supervisor.node_row_version
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE supervisor.node (
    id integer NOT NULL,
    name text NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    started_at timestamp with time zone NOT NULL,
    joined_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    wanted_leases integer[] DEFAULT '{}'::integer[] NOT NULL,
    row_version bigint DEFAULT nextval('supervisor.node_row_version'::regclass) NOT NULL
);

COMMENT ON TABLE supervisor.node IS 'The daemons on this database. A node is alive while its session holds the advisory lock (1885827841, id).';

COMMENT ON COLUMN supervisor.node.wanted_leases IS 'The leases that the node is ready to hold.';

COMMENT ON COLUMN supervisor.node.row_version IS 'Grows at each change of a row: the largest number tells whether the rows have to be read again.';

ALTER TABLE supervisor.node ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME supervisor.node_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE supervisor.projection (
    name text NOT NULL,
    shards integer NOT NULL,
    configured_at timestamp with time zone NOT NULL
);

COMMENT ON COLUMN supervisor.projection.configured_at IS 'When the newest configuration with this number of shards was loaded.';

INSERT INTO supervisor.migration (version, applied_at, oldest_daemon, digest) VALUES (1, '2000-01-01 00:00:00+00', 1, '3d37948938fe225177074486d5fbb44194bd7bcd6525e55d90025cf481dda2b5');
INSERT INTO supervisor.migration (version, applied_at, oldest_daemon, digest) VALUES (2, '2000-01-01 00:00:00+00', 1, 'f81f37edd15d266c9cba8f66580762fdb534446d9665b6431b81382ebf6a05dd');

SELECT pg_catalog.setval('supervisor.event_position', 1, true);

SELECT pg_catalog.setval('supervisor.lease_id_seq', 1, false);

SELECT pg_catalog.setval('supervisor.node_id_seq', 1, false);

SELECT pg_catalog.setval('supervisor.node_row_version', 1, false);

ALTER TABLE ONLY supervisor.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (projection, shard);

ALTER TABLE ONLY supervisor.dead_letter
    ADD CONSTRAINT dead_letter_pkey PRIMARY KEY (projection, "position");

ALTER TABLE ONLY supervisor.event
    ADD CONSTRAINT event_pkey PRIMARY KEY ("position");

ALTER TABLE ONLY supervisor.lease
    ADD CONSTRAINT lease_name_key UNIQUE (name);

ALTER TABLE ONLY supervisor.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (id);

ALTER TABLE ONLY supervisor.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY supervisor.node
    ADD CONSTRAINT node_pkey PRIMARY KEY (id);

ALTER TABLE ONLY supervisor.projection
    ADD CONSTRAINT projection_pkey PRIMARY KEY (name);

ALTER TABLE ONLY supervisor.checkpoint
    ADD CONSTRAINT checkpoint_projection_fkey FOREIGN KEY (projection) REFERENCES supervisor.projection(name) ON DELETE CASCADE;

ALTER TABLE ONLY supervisor.dead_letter
    ADD CONSTRAINT dead_letter_projection_fkey FOREIGN KEY (projection) REFERENCES supervisor.projection(name) ON DELETE CASCADE;

REVOKE ALL ON FUNCTION supervisor.add_dead_letter(projection text, poison bigint, error text) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.advance_epochs(ids integer[], names text[], backend integer, node_id integer, node text, incarnation uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.append(stream text, type text, data jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.begin_batch(lease integer, epoch bigint, incarnation uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.cluster_snapshot(node_id integer, OUT backend integer, OUT is_registered boolean, OUT nodes integer[], OUT nodes_version bigint, OUT leases integer[], OUT holders integer[], OUT head bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.fence(lease integer, epoch bigint, incarnation uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.finish_batch(projection text, shard integer, shards integer, revision bigint, new_position bigint, events integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.forget_projection(projection text) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.head() FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.horizon() FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.join_node(node_id integer, name text, host text, pid integer, version text, started_at timestamp with time zone, wanted_leases integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.lease_ids(names text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.leave_node(node_id integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.may_hold_large_events() FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.notify_checkpoint_moved(projection text) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.prune_events(keep interval, at_most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.record_poison(projection text, shard integer, shards integer, revision bigint, poison bigint, error text) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.release_leases(ids integer[], node_id integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.reset_projection(projection text, to_position bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.reshard(projection text, shards integer, configured_ago interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.set_wanted_leases(node_id integer, wanted_leases integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.shard_leases(projection text, shards integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.skip_poison(projection text) FROM PUBLIC;

REVOKE ALL ON FUNCTION supervisor.try_lease_locks(ids integer[]) FROM PUBLIC;
