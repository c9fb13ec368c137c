"""The only door: people and programs come in by it, and every call of a model goes out by it.

Owns the public API (forwarded to the services that own the facts), reports, model profiles, the limits on model calls
(calls and tokens of a run, circuits of upstreams) and the ledger of what they used. Does not own runs, verdicts or
targets, and decides nothing about what a run does next.
"""

import sys

# httpx imports its command line where rich is installed: 6 MB that no service needs. None makes the import fail softly.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]
