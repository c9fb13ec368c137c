-- What a run saw undone by the change for another item, so that the next run works them the other way round.
CREATE TABLE conflicts (
    skill       text NOT NULL,
    fingerprint text NOT NULL,
    item_id     text NOT NULL,
    undone_by   text NOT NULL CHECK (undone_by <> item_id),
    run_id      text NOT NULL,
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (skill, fingerprint, item_id, undone_by)
);
