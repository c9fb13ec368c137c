"""What every command and every result carries, and what several of them share."""

from typing import Literal

from anneal_contracts.facts import FixSource, Frozen, Mutability


class CommandBase(Frozen):
    """What every command carries. command_id is its idempotency key."""

    command_id: str
    run_id: str
    skill: str
    profile: str = ""
    # Blob of the tailoring file; empty: none.
    tailoring_blob: str = ""
    target: str
    fencing_token: int = 0
    # Unix time after which the result is no longer waited for.
    deadline: float


class ResultBase(Frozen):
    command_id: str
    took_s: float = 0.0


class PastAttempt(Frozen):
    """What an earlier attempt at the same item came to, as facts for a prompt."""

    number: int
    source: FixSource
    title: str
    failure_mode: str
    evidence: str
    output: str
    content_blob: str = ""
    # Files that it had changed when it was taken back.
    changed_paths: tuple[str, ...] = ()


class Usage(Frozen):
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0


class Candidate(Frozen):
    """A rung of an item's ladder. The content is in the blob, so that events stay small."""

    hash: str
    blob: str
    # Blob of the script that takes it back; empty: none.
    undo_blob: str = ""
    source: FixSource
    kind: Literal["bash", "ansible", "undo"]
    title: str
    mutability: Mutability
    risks_reach: bool = False
    needs_reboot: bool = False
    timeout_s: float = 120.0
    origin: str = ""
    tip_id: str = ""
    allowed: bool = True
    policy: str = ""
    # Memory says that it failed cleanly on this kind of machine; the reason in words.
    banned: str = ""
