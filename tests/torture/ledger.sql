-- What the workers of the run leave behind. There is no constraint that would keep a wrong row out: it is to be found.
CREATE SCHEMA torture;

-- One row for each lease. Its lock is held to the end of a transaction: numbers drawn from it are in the order of the
-- commits, and those of a transaction that was rolled back are drawn again.
CREATE TABLE torture.lease_clock (lease text PRIMARY KEY, n bigint NOT NULL);
CREATE TABLE torture.stream_clock (projection text, stream text, n bigint NOT NULL, PRIMARY KEY (projection, stream));

CREATE TABLE torture.turn (
    lease text NOT NULL,
    n bigint NOT NULL,
    is_take boolean NOT NULL,
    epoch bigint NOT NULL,
    incarnation uuid,
    node text,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE torture.applied (
    lease text NOT NULL,
    turn bigint NOT NULL,
    projection text NOT NULL,
    stream text NOT NULL,
    nth bigint NOT NULL,
    position bigint NOT NULL,
    uid text NOT NULL
);

CREATE FUNCTION torture.draw(of_lease text) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO torture.lease_clock AS c (lease, n) VALUES (of_lease, 1)
        ON CONFLICT (lease) DO UPDATE SET n = c.n + 1 RETURNING n
$$;

-- The take-overs, whoever makes them: they are numbered by the counter that numbers the work under the lease.
CREATE FUNCTION torture.note_take() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO torture.turn (lease, n, is_take, epoch, incarnation, node)
        VALUES (new.name, torture.draw(new.name), true, new.epoch, new.incarnation, new.node);
    RETURN NULL;
END $$;
CREATE TRIGGER note_take AFTER UPDATE ON supervisor.lease
    FOR EACH ROW WHEN (new.epoch IS DISTINCT FROM old.epoch) EXECUTE FUNCTION torture.note_take();

-- What a worker does in its fenced transaction; returns the turn.
CREATE FUNCTION torture.work(by_lease text, epoch bigint, incarnation uuid, node text) RETURNS bigint LANGUAGE sql AS $$
    INSERT INTO torture.turn (lease, n, is_take, epoch, incarnation, node)
        VALUES (by_lease, torture.draw(by_lease), false, epoch, incarnation, node) RETURNING n
$$;

-- The same for a batch of events, in the order in which the handler was given them.
CREATE FUNCTION torture.apply(
    by_lease text, epoch bigint, incarnation uuid, node text,
    by_projection text, streams text[], positions bigint[], uids text[]
) RETURNS void LANGUAGE sql AS $$
    WITH given AS (
        SELECT *, row_number() OVER (PARTITION BY stream ORDER BY place) AS k
        FROM unnest(streams, positions, uids) WITH ORDINALITY AS g (stream, position, uid, place)
    ), counted AS (
        INSERT INTO torture.stream_clock AS c (projection, stream, n)
            SELECT by_projection, stream, count(*) FROM given GROUP BY stream ORDER BY stream
            ON CONFLICT (projection, stream) DO UPDATE SET n = c.n + excluded.n
            RETURNING c.stream, c.n
    ), sizes AS (
        SELECT stream, count(*) AS size FROM given GROUP BY stream
    ), turn AS MATERIALIZED (
        SELECT torture.work(by_lease, epoch, incarnation, node) AS n
    )
    INSERT INTO torture.applied (lease, turn, projection, stream, nth, position, uid)
        SELECT by_lease, turn.n, by_projection, stream, counted.n - size + k, position, uid
        FROM given JOIN counted USING (stream) JOIN sizes USING (stream) CROSS JOIN turn
$$;
