-- Where the replica that drives a run is reached: calls about the run that arrive at another one are handed on to it.
ALTER TABLE runs ADD COLUMN owner_address text NOT NULL DEFAULT '';
