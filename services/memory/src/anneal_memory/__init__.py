"""Memory: what earlier runs taught, and what of it is given to a later one.

Owns: tips (a script that worked, exactly as it ran), bans (a script that failed cleanly), their utility, and the audit
of every change to them. Does not own: whether something worked (the evaluator judged it), what a run does with a tip
(the worker gates it, the supervisor orders it). Writes call no model; nothing here is ever evidence.

Layers: api (wire) over domain (rules) over store (Protocol; Postgres beside it); app puts them together; __main__ alone
reads the environment.
"""
