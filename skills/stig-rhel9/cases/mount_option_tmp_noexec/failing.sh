#!/bin/bash
sed -i -E '\|\s/tmp\s|d' /etc/fstab 2>/dev/null || :
systemctl disable --now tmp-noexec.service 2>/dev/null || :
mount -o remount,exec /tmp
