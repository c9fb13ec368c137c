"""The evaluator: deterministic verdicts.

Owns discovery, the verdict on one item, health compared with the state before, the final re-scan, and the baselines
that reports hold a run against. Does not ask a model whether something worked, and changes nothing on a target.
"""
