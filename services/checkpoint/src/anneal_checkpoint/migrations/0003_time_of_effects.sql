-- A restore takes back all that was done to its target since, by whichever run.
CREATE INDEX effects_by_time ON effects (target, intended_at);
