"""A worker: model turns, and carrying out one approved action on a target.

Owns the ladder of an item (static rungs from the skill, recalled ones from memory), the policy gate, the model roles,
and the effect protocol on the target. Does not judge its own work, and decides neither what runs next nor when to undo.
"""
