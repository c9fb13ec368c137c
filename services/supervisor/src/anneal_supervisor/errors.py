"""Errors that more than one room raises. The classes, and what they are on the wire, are the runtime's."""

from anneal_runtime.errors import DataLoss


def damaged(run_id: str, seq: int, why: str) -> DataLoss:
    """A stored log that is not what was written. seq: the first event that does not fit; why names it, too."""
    return DataLoss(
        f"the stored log of {run_id} is damaged: {why}",
        details={"run_id": run_id, "seq": str(seq), "why": why, "next": f"anneal audit verify {run_id}"},
    )
