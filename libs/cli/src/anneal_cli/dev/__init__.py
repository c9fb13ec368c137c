"""`anneal dev`: embedded Postgres, NATS, a local model and the six services in one process tree.

Owns: starting order, readiness, restarts, the combined log, and leaving nothing behind. Does not own: how a service
works; a service never knows that it runs under this.
"""
