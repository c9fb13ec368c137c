-- Runs and their append-only, hash-chained logs; the outbox that is published after the commit; content-addressed blobs.
CREATE TABLE runs (
    run_id      text PRIMARY KEY,
    created_at  timestamptz NOT NULL DEFAULT now(),
    ended       boolean NOT NULL DEFAULT false,
    -- Where the log ends: a log that lost its tail is found out.
    head_seq    bigint NOT NULL DEFAULT 0,
    head_hash   text NOT NULL DEFAULT '',
    -- Serialised anneal.supervisor.v1.Run without its items, for lists.
    summary     bytea NOT NULL DEFAULT '',
    -- The replica that drives the run, and until when; the token rises with every owner.
    owner       text NOT NULL DEFAULT '',
    owner_until timestamptz NOT NULL DEFAULT 'epoch',
    owner_token bigint NOT NULL DEFAULT 0
);
CREATE INDEX runs_to_drive ON runs (owner_until) WHERE NOT ended;

CREATE TABLE run_events (
    run_id    text NOT NULL REFERENCES runs (run_id),
    seq       bigint NOT NULL CHECK (seq > 0),
    at        double precision NOT NULL,
    type      text NOT NULL,
    actor     text NOT NULL,
    -- Canonical JSON, byte for byte what was hashed.
    payload   bytea NOT NULL,
    prev_hash text NOT NULL,
    hash      text NOT NULL,
    PRIMARY KEY (run_id, seq)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'run_events is append-only';
END $$;
CREATE TRIGGER run_events_append_only BEFORE UPDATE OR DELETE ON run_events
    FOR EACH ROW EXECUTE FUNCTION refuse_change();

CREATE TABLE outbox (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    subject text NOT NULL,
    msg_id  text NOT NULL,
    data    bytea NOT NULL
);

CREATE TABLE blobs (
    sha256     text PRIMARY KEY,
    media_type text NOT NULL,
    content    bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
