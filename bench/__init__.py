"""Benchmarks of anneal on the machine at hand: `python -m bench [NAME]`.

Owns: what is measured and how, percentiles, the table, the files in bench/out. One module a benchmark; each gives
figures and leaves nothing behind. Does not own: the lab, embedded mode, the skill (they are called as anyone would call
them), nor goals (they come from the project's issues and stand beside each figure).
"""
