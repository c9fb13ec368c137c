"""What the shell around the core must hold to. All true: as designed. One that is false is a planted bug."""

from dataclasses import dataclass, fields


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Each is something that the simulation shows to be needed."""

    # A command leaves after the event that issued it is committed.
    sent_after_commit: bool = True
    # Who carries an effect out again reads its markers on the target first.
    markers_are_read: bool = True
    # A restore that is given out again goes back to the generation that the log names.
    repeated_restore_keeps_its_generation: bool = True
    # A restore looks no further where an effect has no end in the ledger: it brings the generation back.
    open_effects_force_a_restore: bool = True
    # Checkpoint and the target refuse a command that is older than one they have seen.
    old_commands_are_refused: bool = True
    # The leave to change a target ends with its boot, and with the command's deadline.
    permits_end: bool = True
    # A script waits for one that is still at work on the target.
    one_script_at_a_time: bool = True
    # A doer drops a command whose deadline has passed.
    late_commands_are_dropped: bool = True


def without(name: str) -> Rules:
    """The rules with one of them broken."""
    if name not in {f.name for f in fields(Rules)}:
        raise ValueError(f"no rule {name}")
    return Rules(**{name: False})
