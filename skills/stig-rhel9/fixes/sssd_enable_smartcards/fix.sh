#!/bin/bash
set -euo pipefail
ensure_configuration
set_option pam pam_cert_auth True
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
        sed -i -E '/^\s*auth\s.*pam_(sss|localuser)\.so/d' "$stack"
        first=$(grep -nE '^\s*auth\s.*pam_unix\.so' "$stack" | head -1 | cut -d: -f1)
        [ -n "$first" ] || { echo "no pam_unix.so in $stack" >&2; exit 1; }
        # The machine's own accounts have no certificate: they go on to pam_unix.
        sed -i -e "${first}i auth        [success=1 default=ignore] pam_localuser.so" \
            -e "${first}i auth        $skip pam_sss.so try_cert_auth" "$stack"
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
ensure_domain
restart_if_enabled
