#!/bin/bash
set -euo pipefail
# The label is what SELinux goes by as soon as it runs; without a policy store there is no table to enter it in.
label() {
    if command -v semanage >/dev/null && [ -d /sys/fs/selinux/booleans ]; then
        semanage fcontext -a -t faillog_t "$1(/.*)?" || semanage fcontext -m -t faillog_t "$1(/.*)?"
        restorecon -R "$1"
    else
        chcon -R system_u:object_r:faillog_t:s0 "$1"
    fi
}
dirs=$(sed -n -E 's/^\s*(auth.*pam_faillock\.so.*)?dir\s*=\s*(\S+).*/\2/p' \
    /etc/security/faillock.conf /etc/pam.d/system-auth /etc/pam.d/password-auth 2>/dev/null | sort -u)
for dir in $dirs; do
    mkdir -p "$dir"
    label "$dir"
done
