-- oldest daemon: 1
--
-- Events, projections and their checkpoints.
--
-- Each advisory lock has two keys. The first one is the letters "pgs" and a number (LockSpace in locks.py):
--   1885827841  a node is alive                 (session, exclusive; key: node.id)
--   1885827842  a lease is held                 (session, exclusive; key: lease.id)
--   1885827843  a fenced transaction is open    (transaction, shared; key: lease.id)
--   1885827844  a transaction has appended      (transaction, shared; key: low 32 bits of a position)
--   1885827845  the schema is being changed     (transaction, exclusive; key: 0)
--   1885827846  old events are being deleted    (transaction, exclusive; key: 0)
--
-- A daemon that does not own the schema needs USAGE on it, SELECT on its tables and EXECUTE on its functions, and
-- nothing else: only the functions write. This file and those after it contain no GRANT and no REVOKE: the migrator
-- takes EXECUTE on new functions from PUBLIC, and grants what is new to the roles that run daemons.

-- A new sequence shows last_value 1 before it has given that value, and a reader would miss the first event. So
-- position 1 counts as given. With setval, not nextval: under wal_level = minimal the values that nextval reserves in
-- the transaction that creates the sequence are not in the WAL, and after a crash positions would be given twice.
CREATE SEQUENCE supervisor.event_position CACHE 1 NO CYCLE;
SELECT setval('supervisor.event_position', 1);

CREATE TABLE supervisor.event (
    position bigint PRIMARY KEY,
    stream text NOT NULL,
    type text NOT NULL,
    data jsonb NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    bucket int NOT NULL CHECK (bucket >= 0)
);
COMMENT ON COLUMN supervisor.event.bucket IS 'A hash of the stream; shard n of m takes the events with bucket % m = n.';

CREATE TABLE supervisor.projection (
    name text PRIMARY KEY,
    shards int NOT NULL,
    configured_at timestamptz NOT NULL
);
COMMENT ON COLUMN supervisor.projection.configured_at IS
    'When the newest configuration with this number of shards was loaded.';

CREATE TABLE supervisor.checkpoint (
    projection text NOT NULL REFERENCES supervisor.projection ON DELETE CASCADE,
    shard int NOT NULL,
    shards int NOT NULL,
    position bigint NOT NULL,
    revision bigint NOT NULL DEFAULT 0,
    applied bigint NOT NULL DEFAULT 0,
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    previous_shardings jsonb NOT NULL DEFAULT '[]',
    poison bigint,
    error text,
    PRIMARY KEY (projection, shard)
);
COMMENT ON COLUMN supervisor.checkpoint.position IS 'Every event of the shard up to here has been applied.';
COMMENT ON COLUMN supervisor.checkpoint.revision IS
    'Grows at each move and is never reused: a batch that has read an older revision cannot commit.';
COMMENT ON COLUMN supervisor.checkpoint.previous_shardings IS
    'What was applied under earlier numbers of shards: an event that one of the entries covers is applied already.';
COMMENT ON COLUMN supervisor.checkpoint.poison IS 'The event at which the shard has stopped.';

CREATE TABLE supervisor.dead_letter (
    projection text NOT NULL REFERENCES supervisor.projection ON DELETE CASCADE,
    position bigint NOT NULL,
    stream text NOT NULL,
    type text NOT NULL,
    data jsonb NOT NULL,
    at timestamptz NOT NULL,
    error text NOT NULL,
    died_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (projection, position)
);

-- Appends an event in the caller's transaction and returns its position.
--
-- Once per transaction it takes a shared lock on the low 32 bits of the sequence's last_value, and only then draws
-- positions, which are therefore larger: a reader that sees the lock knows that events above it may still come.
-- The setting that records the lock names the transaction, so that a session's SET cannot switch the lock off. The
-- setting is local, so that the rollback of a savepoint undoes both.
CREATE FUNCTION supervisor.append(stream text, type text, data jsonb DEFAULT '{}') RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
END $$;

-- Returns the position up to which every event is decided: committed and visible to the next statement, or gone.
--
-- Why it is exact: the position of an event not above `head` was drawn before `head` was read. So its transaction held
-- its lock when the locks were read, unless it had ended by then. Locks are released after a commit is visible, so a
-- statement with a later snapshot shows the event. Prepared transactions keep their locks (with a null pid) and count.
--
-- The events have to be read by a later statement, and inside one transaction only READ COMMITTED gives that statement
-- a later snapshot.
CREATE FUNCTION supervisor.horizon() RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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

-- Returns the last position that was drawn: SELECT on all tables does not include the sequence.
CREATE FUNCTION supervisor.head() RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.last_value FROM supervisor.event_position s
$$;

-- Returns whether a visible event may be large: none is while the table has nothing stored out of line. Called after
-- horizon(), the answer holds for every event up to the horizon.
CREATE FUNCTION supervisor.may_hold_large_events() RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN coalesce(pg_relation_size(
        (SELECT c.reltoastrelid FROM pg_class c WHERE c.oid = 'supervisor.event'::regclass)
    ) > 0, true);
END $$;

-- Returns the names of the leases of a projection's shards.
CREATE FUNCTION supervisor.shard_leases(projection text, shards int) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN shards = 1 THEN ARRAY[projection]
        ELSE ARRAY(SELECT format('%s/%sof%s', projection, n, shards) FROM generate_series(1, shards) AS n) END
$$;

-- Sets a projection's number of shards. True: changed; false: it has that number already; null: a daemon whose
-- configuration is newer than the caller's, which was loaded `configured_ago` ago, uses another number. So the newest
-- configuration wins, and two configurations never alternate.
--
-- The holders of the former shards are fenced out first (this waits for their transactions in flight), so that their
-- checkpoints are final when they are read. The new shards begin at the lowest position of the former ones, and a new
-- entry of previous shardings records the position of each former shard.
CREATE FUNCTION supervisor.reshard(projection text, shards int, configured_ago interval DEFAULT '0') RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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

-- Notifies the shards that have stopped, and those that wait for events, that a checkpoint was moved from outside.
CREATE FUNCTION supervisor.notify_checkpoint_moved(projection text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_notify('supervisor_projection', projection), pg_notify('supervisor_event', '')
$$;

-- Begins a batch, right after the BEGIN of its transaction: fences the transaction and records its id.
CREATE FUNCTION supervisor.begin_batch(lease int, epoch bigint, incarnation uuid) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    this_transaction xid8 := supervisor.fence(lease, epoch, incarnation);
BEGIN
    IF this_transaction IS NULL THEN
        RAISE EXCEPTION 'the lease has passed to another holder' USING ERRCODE = 'SVL01';
    END IF;
    PERFORM set_config('supervisor.batch', this_transaction::text, true);
END $$;

-- Moves the checkpoint at the end of a batch, right before its COMMIT; `revision` is the one that was read.
CREATE FUNCTION supervisor.finish_batch(
    projection text, shard int, shards int, revision bigint, new_position bigint, events int
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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

-- Records the event at which a shard has stopped; false: its checkpoint was moved meanwhile.
CREATE FUNCTION supervisor.record_poison(
    projection text, shard int, shards int, revision bigint, poison bigint, error text
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
#variable_conflict use_variable
BEGIN
    UPDATE supervisor.checkpoint c SET poison = record_poison.poison, error = record_poison.error
        WHERE c.projection = record_poison.projection AND c.shard = record_poison.shard
            AND c.shards = record_poison.shards AND c.revision = record_poison.revision;
    RETURN FOUND;
END $$;

-- Adds an event to the dead letters of a projection, in the transaction that moves the checkpoint past it.
CREATE FUNCTION supervisor.add_dead_letter(projection text, poison bigint, error text) RETURNS void
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO supervisor.dead_letter (projection, position, stream, type, data, at, error)
        SELECT add_dead_letter.projection, e.position, e.stream, e.type, e.data, e.at, add_dead_letter.error
        FROM supervisor.event e WHERE e.position = poison
        ON CONFLICT (projection, position) DO UPDATE SET error = excluded.error, died_at = excluded.died_at
$$;

-- Makes a projection begin again after a position; false: there is no projection of this name. The dead letters after
-- the position are deleted, because these events are tried again.
CREATE FUNCTION supervisor.reset_projection(projection text, to_position bigint DEFAULT 0) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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

-- Skips the events at which the shards of a projection have stopped, adds them to its dead letters, and returns their
-- positions.
CREATE FUNCTION supervisor.skip_poison(projection text) RETURNS SETOF bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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

-- Deletes a projection with its checkpoints and dead letters; false: there is no projection of this name. Refused while
-- a session holds one of its leases, or a node that is alive is ready to hold one.
CREATE FUNCTION supervisor.forget_projection(projection text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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

-- Deletes the events that are older than `keep` and that every projection has passed; returns their number.
--
-- Positions and times grow together: if the first event is young there is nothing to delete, and only the beginning of
-- a long log is read.
CREATE FUNCTION supervisor.prune_events(keep interval, at_most int DEFAULT 10000) RETURNS int
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
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
