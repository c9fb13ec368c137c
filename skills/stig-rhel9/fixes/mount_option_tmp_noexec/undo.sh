#!/bin/bash
set -euo pipefail
rm -f /etc/systemd/system/tmp.mount.d/50-noexec.conf
systemctl daemon-reload
mount -o remount,exec /tmp
