"""Runs: the event log, the state machine, the items, budgets, dispatch and leases."""
