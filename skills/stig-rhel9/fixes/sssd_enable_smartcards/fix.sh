#!/bin/bash
set -euo pipefail
conf=/etc/sssd/sssd.conf
mkdir -p /etc/sssd
touch "$conf"
chmod 0600 "$conf"
if grep -qE '^\s*pam_cert_auth\s*=' "$conf"; then
    sed -i -E 's/^\s*pam_cert_auth\s*=.*/pam_cert_auth = True/' "$conf"
elif grep -qE '^\s*\[pam\]' "$conf"; then
    sed -i -E '/^\s*\[pam\]/a pam_cert_auth = True' "$conf"
else
    printf '\n[pam]\npam_cert_auth = True\n' >>"$conf"
fi
if command -v authselect >/dev/null; then
    authselect check
    authselect enable-feature with-smartcard
    authselect apply-changes -b
else
    stack=/etc/pam.d/system-auth
    card=/etc/pam.d/smartcard-auth
    # Whom sssd does not know, or while it does not run, the next module decides on: no login is lost by this line.
    skip='[success=done authinfo_unavail=ignore user_unknown=ignore ignore=ignore default=die]'
    if ! grep -qE '^\s*auth\s.*pam_sss\.so.*\s(try|require)_cert_auth' "$stack"; then
        sed -i -E '/^\s*auth\s.*pam_sss\.so/d' "$stack"
        first=$(grep -nE '^\s*auth\s.*pam_unix\.so' "$stack" | head -1 | cut -d: -f1)
        [ -n "$first" ] || { echo "no pam_unix.so in $stack" >&2; exit 1; }
        sed -i "${first}i auth        $skip pam_sss.so try_cert_auth" "$stack"
    fi
    if ! grep -qE '^\s*auth\s.*pam_sss\.so.*\sallow_missing_name' "$card" 2>/dev/null; then
        {
            echo 'auth        required      pam_env.so'
            echo 'auth        sufficient    pam_sss.so allow_missing_name'
            echo 'auth        required      pam_deny.so'
            echo 'account     required      pam_unix.so'
            echo 'session     required      pam_limits.so'
            echo 'session     required      pam_unix.so'
        } >"$card"
        chmod 0644 "$card"
    fi
fi
if systemctl is-active --quiet sssd; then systemctl restart sssd; fi
