CREATE TABLE memories (
    id           text PRIMARY KEY,
    skill        text NOT NULL,
    item_id      text NOT NULL,
    fingerprint  text NOT NULL,
    kind         text NOT NULL CHECK (kind IN ('tip', 'ban')),
    action_hash  text NOT NULL,
    action_kind  text NOT NULL CHECK (action_kind IN ('bash', 'ansible')),
    action_title text NOT NULL,
    content      text NOT NULL,
    origin       text NOT NULL,
    mechanism    text NOT NULL,
    run_id       text NOT NULL,
    uses         integer NOT NULL CHECK (uses >= 1),
    successes    integer NOT NULL CHECK (successes BETWEEN 0 AND uses),
    seen_at      timestamptz NOT NULL,
    forgotten    boolean NOT NULL DEFAULT false,
    UNIQUE (skill, fingerprint, item_id, action_hash)
);
CREATE INDEX memories_newest ON memories (skill, seen_at DESC) WHERE NOT forgotten;

-- What was changed, by which run (empty: a person), and what it came to.
CREATE TABLE audit (
    seq       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    memory_id text NOT NULL REFERENCES memories (id),
    run_id    text NOT NULL,
    change    text NOT NULL,
    kind      text NOT NULL,
    uses      integer NOT NULL,
    successes integer NOT NULL
);
CREATE INDEX audit_by_memory ON audit (memory_id, seq);

CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit is append-only';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
