"""What a run came to, as documents: the JSON document, the page a person reads, and the event log as lines.

Owns their shapes and looks. Does not own the facts, nor the formats of a skill's own (the evaluator exports those).
"""
