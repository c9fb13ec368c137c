"""Drivers: how a kind of target is reached, and how its states are saved and brought back. One module each."""
