"""The model roles: what a model is asked, and what of its answer is let through.

Owns prompts, the self-healing turn, the quirks of models, and the client of the gateway's model door. Does not own
limits (the gateway's), whether a script may run (the policy gate's) or whether it worked (the evaluator's): nothing
here reaches a target.
"""

from anneal_worker.roles.architect import choose, plan_item, review_item
from anneal_worker.roles.door import ModelDoor, ProfileInfo
from anneal_worker.roles.propose import ProposedAnswer, propose
from anneal_worker.roles.reflect import ReflectedAnswer, learn, reflect

__all__ = [
    "ModelDoor",
    "ProfileInfo",
    "ProposedAnswer",
    "ReflectedAnswer",
    "choose",
    "learn",
    "plan_item",
    "propose",
    "reflect",
    "review_item",
]
