"""Deterministic verdicts from real tools, discovery and the final re-scan."""
