"""Runs as people read them: summaries, one item's story, the plan of a dry run. Pure renderings of Run messages."""
