#!/bin/bash
set -euo pipefail
# The fix runs where /tmp had no noexec: whatever sets it now came from the fix.
sed -i -E '/^\s*[^#[:space:]]\S*\s+\/tmp\s/s/,noexec\b//' /etc/fstab
rm -f /etc/systemd/system/tmp.mount.d/50-noexec.conf
systemctl daemon-reload
mount -o remount,exec /tmp
