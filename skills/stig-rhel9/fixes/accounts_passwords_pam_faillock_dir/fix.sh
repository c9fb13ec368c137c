#!/bin/bash
set -euo pipefail
dir=$var_accounts_passwords_pam_faillock_dir
# The label is what SELinux goes by as soon as it runs; without a policy store there is no table to enter it in.
label() {
    if command -v semanage >/dev/null && [ -d /sys/fs/selinux/booleans ]; then
        semanage fcontext -a -t faillog_t "$1(/.*)?" || semanage fcontext -m -t faillog_t "$1(/.*)?"
        restorecon -R "$1"
    else
        chcon -R system_u:object_r:faillog_t:s0 "$1"
    fi
}
if command -v authselect >/dev/null; then
    authselect check
    authselect enable-feature with-faillock
    authselect apply-changes -b
else
    for stack in /etc/pam.d/system-auth /etc/pam.d/password-auth; do
        if ! grep -qE '^\s*auth\s.*pam_faillock\.so' "$stack"; then
            sed -i --follow-symlinks -E \
                -e '/^auth\s+sufficient\s.*pam_unix\.so/i auth        required      pam_faillock.so preauth silent' \
                -e '/^auth\s+required\s.*pam_deny\.so/i auth        required      pam_faillock.so authfail' \
                -e '/^account\s+required\s.*pam_unix\.so/i account     required      pam_faillock.so' "$stack"
        fi
        # One place says where the counts are: faillock.conf.
        sed -i --follow-symlinks -E '/pam_faillock\.so/s/\s+dir=\S+//g' "$stack"
    done
fi
conf=/etc/security/faillock.conf
touch "$conf"
sed -i -E '/^\s*dir\s*=/d' "$conf"
printf 'dir = %s\n' "$dir" >>"$conf"
mkdir -p "$dir"
label "$dir"
