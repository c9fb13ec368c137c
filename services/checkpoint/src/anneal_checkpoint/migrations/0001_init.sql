CREATE TABLE targets (
    name             text PRIMARY KEY,
    driver           text NOT NULL CHECK (driver IN ('nspawn', 'ssh')),
    host             text NOT NULL,
    port             integer NOT NULL CHECK (port BETWEEN 0 AND 65535),
    login            text NOT NULL,
    key_path         text NOT NULL,
    host_key         text NOT NULL,
    machine          text NOT NULL,
    mission_services text[] NOT NULL,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- No foreign key: a lease row outlives its target, so that a token is never used twice under one name.
CREATE TABLE leases (
    target     text PRIMARY KEY,
    run_id     text,
    token      bigint NOT NULL DEFAULT 0 CHECK (token >= 0),
    expires_at timestamptz,
    CHECK ((run_id IS NULL) = (expires_at IS NULL))
);

CREATE TABLE operations (
    key           text PRIMARY KEY,
    seq           bigint GENERATED ALWAYS AS IDENTITY,
    kind          text NOT NULL CHECK (kind IN ('snapshot', 'restore')),
    target        text NOT NULL,
    run_id        text NOT NULL,
    generation    integer NOT NULL CHECK (generation >= 0),
    request_hash  text NOT NULL,
    state         text NOT NULL CHECK (state IN ('intended', 'started', 'done')),
    restored      boolean NOT NULL DEFAULT false,
    changed_paths text[] NOT NULL DEFAULT '{}',
    took_s        double precision NOT NULL DEFAULT 0,
    finished_at   timestamptz
);
CREATE INDEX operations_unfinished ON operations (target) WHERE state = 'started';

CREATE TABLE snapshots (
    target     text NOT NULL,
    run_id     text NOT NULL,
    generation integer NOT NULL CHECK (generation >= 0),
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    name       text NOT NULL UNIQUE,
    driver     text NOT NULL CHECK (driver IN ('nspawn', 'ssh')),
    machine    text NOT NULL,
    state      text NOT NULL CHECK (state IN ('taking', 'kept', 'dropping', 'dropped')),
    taken_at   timestamptz,
    PRIMARY KEY (target, run_id, generation)
);
CREATE INDEX snapshots_to_drop ON snapshots (seq) WHERE state = 'dropping';

CREATE TABLE effects (
    key           text PRIMARY KEY,
    seq           bigint GENERATED ALWAYS AS IDENTITY,
    target        text NOT NULL,
    run_id        text NOT NULL,
    item_id       text NOT NULL,
    attempt       integer NOT NULL CHECK (attempt >= 0),
    action_hash   text NOT NULL,
    fencing_token bigint NOT NULL,
    state         text NOT NULL CHECK (state IN ('intended', 'applied', 'failed', 'undone')),
    exit_code     integer NOT NULL DEFAULT 0,
    intended_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at   timestamptz,
    CHECK ((state = 'intended') = (finished_at IS NULL))
);
CREATE INDEX effects_by_run ON effects (run_id, seq);
