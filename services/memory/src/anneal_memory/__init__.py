"""Lessons, tips and bans: what is remembered and what is injected."""
