-- What identifies this ledger on a target: numbers that another one gave mean nothing beside its own.
CREATE TABLE ledger (
    id  uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    one boolean NOT NULL DEFAULT true UNIQUE CHECK (one)
);
INSERT INTO ledger DEFAULT VALUES;

-- The newest command of the holder's log that was carried out here: an older one comes from somebody who slept.
ALTER TABLE leases ADD COLUMN newest_seq bigint NOT NULL DEFAULT 0;

ALTER TABLE effects
    ADD COLUMN command_seq bigint NOT NULL DEFAULT 0,
    ADD COLUMN undoes      text NOT NULL DEFAULT '',
    ADD COLUMN detail      text NOT NULL DEFAULT '',
    ADD COLUMN started_at  timestamptz,
    DROP CONSTRAINT effects_state_check,
    DROP CONSTRAINT effects_check;

-- A script that ended with another code than 0 was applied: the exit code says how it ended.
UPDATE effects SET state = CASE state WHEN 'failed' THEN 'applied' WHEN 'undone' THEN 'reverted' END
 WHERE state IN ('failed', 'undone');

ALTER TABLE effects
    ADD CONSTRAINT effects_state_check CHECK (state IN ('intended', 'started', 'applied', 'reverted', 'unknown')),
    ADD CONSTRAINT effects_open_check  CHECK ((state IN ('intended', 'started')) = (finished_at IS NULL));
CREATE INDEX effects_open ON effects (target) WHERE state IN ('intended', 'started');
