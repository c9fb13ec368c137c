"""The anneal command, and anneal dev: everything in one process tree."""
