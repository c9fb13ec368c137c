-- What the vendor's own tool reaches alone, by kind of machine; the newest measurement counts.
CREATE TABLE baselines (
    skill       text NOT NULL,
    profile     text NOT NULL,
    fingerprint text NOT NULL,
    measured_at timestamptz NOT NULL DEFAULT now(),
    -- Serialised anneal.evaluator.v1.Baseline.
    baseline    bytea NOT NULL,
    PRIMARY KEY (skill, profile, fingerprint, measured_at)
);
