# TEMPORARY, replaced by the real gate
from dataclasses import dataclass
from anneal_contracts.work import Action, FixSource, Mutability
@dataclass(frozen=True, kw_only=True)
class PolicyDecision:
    allowed: bool
    mutability: Mutability
    rule: str
    explanation: str
def decide(action: Action, *, source: FixSource) -> PolicyDecision:
    return PolicyDecision(allowed=True, mutability=Mutability.REVERSIBLE, rule="", explanation="")
