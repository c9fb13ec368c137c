"""The peer: what the vendor's own tool does alone, with the same content and profile, and with no way back."""

from typing import Final

from anneal_runtime.errors import FailedPrecondition
from anneal_skillkit.interfaces import Context

from stig_rhel9.content import Content

# It waits on package transactions and slow services; a machine that takes longer than this is stuck.
TIMEOUT_S: Final = 900.0
_OK: Final = (0, 2)


async def remediate(ctx: Context, content: Content) -> str:
    """Runs `oscap xccdf eval --remediate` on the target; returns the method in words. It may well break the machine."""
    path = str(content.datastream)
    argv = ["oscap", "xccdf", "eval", "--remediate", "--skip-validation", "--profile", content.profile, path]
    # A login of its own: what it does to sshd must not look like a failure of ours.
    done = await ctx.session.run(["sh", "-c", '"$@" >/dev/null 2>&1', "remediate", *argv], timeout_s=TIMEOUT_S)
    if done.timed_out or done.exit_code not in _OK:
        raise FailedPrecondition(f"the vendor's tool ended with {done.exit_code} on {ctx.session.access.name}")
    return " ".join(argv)
