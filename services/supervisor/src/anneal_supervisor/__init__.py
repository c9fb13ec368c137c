"""The supervisor: runs.

Owns the event log, the state machine, the items, budgets of time and attempts, dispatch and run leases. Does not talk
to a target or to a model: the workers, the evaluator and the checkpoint service do, and report back.
"""
