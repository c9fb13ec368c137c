#!/bin/bash
set -euo pipefail
conf=/etc/audit/auditd.conf
[ -e "$conf" ] || { echo "there is no $conf" >&2; exit 1; }
file=$(sed -n -E 's/^\s*log_file\s*=\s*(\S+).*/\1/p' "$conf" | tail -1)
file=${file:-/var/log/audit/audit.log}
if grep -qE '^\s*log_group\s*=' "$conf"; then
    sed -i -E 's/^\s*log_group\s*=.*/log_group = root/' "$conf"
else
    printf 'log_group = root\n' >>"$conf"
fi
# Whom the group let in before, the mode must not let in now.
chgrp -R root "${file%/*}"
chmod -R g-rwx "${file%/*}"
if systemctl is-active --quiet auditd; then systemctl reload auditd; fi
