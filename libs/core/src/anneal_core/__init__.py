"""The engine: events, state, evolve, decide, triage, ladder, budgets. Pure; imports no I/O."""
