-- What failed attempts taught, in a model's words: material for later prompts, never evidence.
CREATE TABLE lessons (
    id          text PRIMARY KEY,
    skill       text NOT NULL,
    fingerprint text NOT NULL,
    item_id     text NOT NULL,
    lesson      text NOT NULL,
    mechanism   text NOT NULL,
    bans        text[] NOT NULL,
    certainty   text NOT NULL CHECK (certainty IN ('low', 'medium', 'high')),
    run_id      text NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    forgotten   boolean NOT NULL DEFAULT false
);
CREATE INDEX lessons_by_item ON lessons (skill, fingerprint, item_id, seen_at DESC) WHERE NOT forgotten;

-- How long items took that ended well, on whatever machine: what a time budget follows.
CREATE TABLE item_times (
    skill    text NOT NULL,
    item_id  text NOT NULL,
    category text NOT NULL,
    run_id   text NOT NULL,
    seconds  double precision NOT NULL CHECK (seconds > 0),
    seen_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (skill, item_id, run_id)
);
CREATE INDEX item_times_by_category ON item_times (skill, category, seen_at DESC);
