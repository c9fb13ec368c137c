"""The anneal command, and anneal dev: everything in one process tree.

Owns: the command line for people and scripts, the terminal views of a run, the checks of `anneal doctor`, and the
process tree of embedded mode.
Does not own: any decision about a run (supervisor), what is stored (services), or how the lab is
built (anneal_lab). Everything it knows of a run it learns through the gateway.
"""
