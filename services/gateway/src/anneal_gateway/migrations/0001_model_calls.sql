-- What a run has used of the model: one row a run, changed only together with a row of model_calls.
CREATE TABLE run_budgets (
    run_id text PRIMARY KEY,
    calls integer NOT NULL DEFAULT 0 CHECK (calls >= 0),
    tokens_reserved bigint NOT NULL DEFAULT 0 CHECK (tokens_reserved >= 0),
    tokens_used bigint NOT NULL DEFAULT 0 CHECK (tokens_used >= 0),
    updated_at timestamptz NOT NULL DEFAULT now()
);

-- The ledger: one row a model call, written before the call and settled after it.
CREATE TABLE model_calls (
    call_id uuid PRIMARY KEY,
    run_id text NOT NULL REFERENCES run_budgets (run_id),
    item_id text NOT NULL,
    profile text NOT NULL,
    role text NOT NULL,
    requested_model text NOT NULL,
    -- As the response reported it; empty where there was none.
    model text NOT NULL DEFAULT '',
    -- reserved: under way. answered, failed: settled. abandoned: its gateway died, charged in full.
    state text NOT NULL CHECK (state IN ('reserved', 'answered', 'failed', 'abandoned')),
    -- Why it failed: the error's reason.
    reason text NOT NULL DEFAULT '',
    tokens_reserved bigint NOT NULL CHECK (tokens_reserved >= 0),
    prompt_tokens bigint NOT NULL DEFAULT 0,
    completion_tokens bigint NOT NULL DEFAULT 0,
    -- True: the upstream did not say what it used, so the reservation stands in for it.
    estimated boolean NOT NULL DEFAULT false,
    started_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz NOT NULL,
    ended_at timestamptz,
    CHECK ((state = 'reserved') = (ended_at IS NULL))
);
CREATE INDEX model_calls_by_run ON model_calls (run_id, started_at);
CREATE INDEX model_calls_under_way ON model_calls (run_id, expires_at) WHERE state = 'reserved';
