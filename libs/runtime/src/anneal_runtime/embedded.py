"""Embedded servers for one machine: Postgres and NATS as child processes from PyPI packages (extra `embedded`).

Each lives in a folder of its own, used by one process at a time, dies with the process that started it (also by
kill -9), and starts again after any kind of death. Start them from the main thread.
"""

from anneal_runtime.children import die_with_parent, free_port
from anneal_runtime.embedded_nats import EmbeddedNats
from anneal_runtime.embedded_pg import EmbeddedPostgres

__all__ = ["EmbeddedNats", "EmbeddedPostgres", "die_with_parent", "free_port"]
