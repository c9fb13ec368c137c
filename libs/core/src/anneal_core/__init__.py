"""The engine: what a run is, and what it does next. The same log in gives the same state out, always.

Owns events, state, `evolve(state, event) -> state`, `decide(state, now) -> payloads`, triage, ladder, ordering, budgets
and the hash chain. Does not own any I/O: no clock, no network, no disk, no randomness; the supervisor is its shell.
"""
