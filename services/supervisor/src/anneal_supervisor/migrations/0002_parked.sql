-- Messages that doers gave up, each with its reason. The message server may lose its store; here they are kept.
CREATE TABLE parked (
    id         text PRIMARY KEY,
    work_class text NOT NULL,
    subject    text NOT NULL,
    msg_id     text NOT NULL,
    -- Empty where the message is no command of a run.
    run_id     text NOT NULL,
    command_id text NOT NULL,
    reason     text NOT NULL,
    detail     text NOT NULL,
    deliveries integer NOT NULL,
    doer       text NOT NULL,
    data       bytea NOT NULL,
    parked_at  timestamptz NOT NULL DEFAULT now(),
    state      text NOT NULL DEFAULT 'parked' CHECK (state IN ('parked', 'retried', 'dropped')),
    settled_at timestamptz
);
CREATE INDEX parked_open ON parked (parked_at DESC) WHERE state = 'parked';
