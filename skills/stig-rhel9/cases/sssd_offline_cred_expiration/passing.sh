#!/bin/bash
mkdir -p /etc/sssd
printf '[sssd]\nenable_files_domain = true\n\n[pam]\noffline_credentials_expiration = 1\n' >/etc/sssd/sssd.conf
chmod 0600 /etc/sssd/sssd.conf
