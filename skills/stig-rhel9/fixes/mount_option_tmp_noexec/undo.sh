#!/bin/bash
set -euo pipefail
# The fix runs where /tmp had no noexec: whatever sets it now came from the fix.
sed -i -E '/^\s*[^#[:space:]]\S*\s+\/tmp\s/s/,noexec\b//' /etc/fstab
systemctl disable tmp-noexec.service 2>/dev/null || :
rm -f /etc/systemd/system/tmp-noexec.service
systemctl daemon-reload
mount -o remount,exec /tmp
