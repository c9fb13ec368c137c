"""Watching a run: the waffle (pure rendering of a Run message) and the following of a run as it changes."""
