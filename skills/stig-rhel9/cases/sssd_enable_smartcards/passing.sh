#!/bin/bash
set -e
sed -i -E '/pam_sss\.so/d' /etc/pam.d/system-auth
line=$(grep -nE '^\s*auth\s.*pam_unix\.so' /etc/pam.d/system-auth | head -1 | cut -d: -f1)
sed -i "${line}i auth [success=done authinfo_unavail=ignore user_unknown=ignore default=bad] pam_sss.so try_cert_auth" \
    /etc/pam.d/system-auth
printf 'auth sufficient pam_sss.so allow_missing_name\nauth required pam_deny.so\n' >/etc/pam.d/smartcard-auth
printf '[sssd]\nenable_files_domain = true\n\n[pam]\npam_cert_auth = True\n' >/etc/sssd/sssd.conf
chmod 0600 /etc/sssd/sssd.conf
