"""Checkpoint: targets, leases with fencing tokens, snapshots through drivers, the effect ledger.

Owns: the table of targets and how each is reached, who may change a target now, saved states of a target, and the
record of every change that was intended. Does not own: when to revert (the supervisor decides), what a change is (the
worker carries it out), whether it worked (the evaluator judges). No module here opens a session on a target.

Layers: api (wire) over targets, leases, operations, effects (rules) over store (Protocol) and drivers (Protocol);
app puts them together; __main__ alone reads the environment.
"""
