"""The STIG for RHEL 9: content compiled from the SCAP datastream, scans, verdicts, fixes, reports.

Owns what is particular to SCAP and to hardening an EL9 machine. Does not own when something runs, how a target is
reached, or what is remembered.
"""
