"""Likeness of scripts: the bound of a plateau lies between rewordings of one script and other ways to the same end.

The scripts are the skill's own fixes, and what a model that has lost the thread makes of one: other names, other
quotes, a comment here, `printf` for `echo` there.
"""

import random
import re
from pathlib import Path

from anneal_core.limits import RoleLimits
from anneal_worker.roles.similarity import alike, nearest

BOUND = RoleLimits().similarity
FIXES = {
    p.parent.name: p.read_text()
    for p in sorted((Path(__file__).parents[3] / "skills").glob("*/fixes/*/fix.sh"))
    if len(p.read_text()) > 200
}
# Pairs of different ways to the same end.
OTHER_WAYS = [
    (
        "#!/bin/bash\nsed -i 's/^PermitRootLogin.*/PermitRootLogin no/' /etc/ssh/sshd_config\nsystemctl reload sshd\n",
        "#!/bin/bash\nprintf 'PermitRootLogin no\\n' > /etc/ssh/sshd_config.d/00-root.conf\nsystemctl reload sshd\n",
    ),
    (
        "#!/bin/bash\necho 'net.ipv4.ip_forward = 0' > /etc/sysctl.d/99-forward.conf\nsysctl --system\n",
        "#!/bin/bash\nsed -i '/ip_forward/d' /etc/sysctl.conf /etc/sysctl.d/*.conf\nsysctl -w net.ipv4.ip_forward=0\n",
    ),
    (
        "#!/bin/bash\ndnf -y install chrony\nsystemctl enable --now chronyd\n",
        "#!/bin/bash\nsystemctl unmask chronyd\nsystemctl start chronyd\n",
    ),
]


def reworded(script: str, dice: random.Random) -> str:
    """The same script as a model gives it once more."""
    for name in sorted(set(re.findall(r"\b([a-z_]{3,})=", script))):
        script = re.sub(rf"\b{name}\b", f"{name}_value", script)
    lines = ["#!/bin/bash", "set -euo pipefail", "# another try", *script.splitlines()]
    for n, line in enumerate(lines):
        changed = line.replace('"', "'") if dice.random() < 0.3 else line
        changed = changed.replace("echo", "printf '%s\\n'") if dice.random() < 0.2 else changed
        lines[n] = f"{changed}  # note {n}" if dice.random() < 0.1 else changed
    return "\n".join(lines)


def test_six_of_seven_rewordings_are_above_the_bound() -> None:
    dice = random.Random(7)
    found = [alike(script, reworded(script, dice)) for script in FIXES.values() for _ in range(10)]
    assert len(found) >= 100
    assert sum(likeness >= BOUND for likeness in found) >= len(found) * 6 / 7


def test_another_way_to_the_same_end_is_below_the_bound() -> None:
    assert max(alike(a, b) for a, b in OTHER_WAYS) < BOUND
    others = [alike(FIXES[a], FIXES[b]) for a in FIXES for b in FIXES if a < b]
    assert len(others) > 20
    assert max(others) < BOUND


def test_equal_is_one_nothing_in_common_is_nothing_and_a_frame_alone_is_nothing() -> None:
    script = next(iter(FIXES.values()))
    assert alike(script, script) > 0.9999
    assert alike("abcdefgh", "stuvwxyz") == 0.0
    assert alike("#!/bin/bash\nset -euo pipefail\nexit 0\n", "#!/bin/bash\nset -euo pipefail\n") == 0.0
    assert nearest(script, []) == 0.0
    assert nearest(script, ["other", script]) == 1.0
