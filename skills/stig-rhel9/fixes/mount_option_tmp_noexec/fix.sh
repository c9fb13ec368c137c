#!/bin/bash
set -euo pipefail
# Adds an option to a mount point's line in fstab, if it has one there.
in_fstab() {
    local lines
    lines=$(awk -v mount="$1" '!/^[[:space:]]*#/ && $2 == mount { print NR }' /etc/fstab)
    [ -n "$lines" ] || return 1
    for line in $lines; do
        sed -i -E "${line}{/[[:space:],]$2([[:space:],]|$)/!s/^(\s*\S+\s+\S+\s+\S+\s+\S+)/\1,$2/}" /etc/fstab
    done
    systemctl daemon-reload
}
if in_fstab /tmp noexec; then
    mount -o remount,noexec /tmp
    exit 0
fi
[ "$(findmnt -n -o FSTYPE /tmp)" = tmpfs ] || { echo "/tmp is not a file system of its own" >&2; exit 1; }
# Also where something that comes before systemd mounted it, so that the options of tmp.mount have no say.
cat >/etc/systemd/system/tmp-noexec.service <<'UNIT'
[Unit]
Description=Mount options of /tmp
DefaultDependencies=no
RequiresMountsFor=/tmp
After=tmp.mount
Before=local-fs.target systemd-tmpfiles-setup.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/bin/mount -o remount,noexec,nosuid,nodev /tmp

[Install]
WantedBy=local-fs.target
UNIT
systemctl daemon-reload
systemctl enable tmp-noexec.service
systemctl restart tmp-noexec.service
