"""Shared contracts in Pydantic: what commands and results carry between services, and the answers of the model roles.

Owns shapes and their validation. Does not own behaviour: no I/O, no decisions.
"""
