#!/bin/bash
set -euo pipefail
[ "$(findmnt -n -o FSTYPE /tmp)" = tmpfs ] || { echo "/tmp is not a tmpfs: its options belong in /etc/fstab" >&2; exit 1; }
mkdir -p /etc/systemd/system/tmp.mount.d
cat >/etc/systemd/system/tmp.mount.d/50-noexec.conf <<'CONF'
[Mount]
Options=mode=1777,strictatime,nosuid,nodev,noexec,size=50%,nr_inodes=1m
CONF
systemctl daemon-reload
mount -o remount,noexec,nosuid,nodev /tmp
