"""What every service stands on.

Owns: the error table, settings, logging, tracing, gRPC plumbing, the bus, the database, the clock, fault points,
start-up and shutdown, and the embedded servers. Does not own: any word about runs, items, targets, skills or models.
"""
