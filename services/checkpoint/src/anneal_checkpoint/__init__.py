"""Targets, leases with fencing tokens, snapshots through drivers, the effect ledger."""
