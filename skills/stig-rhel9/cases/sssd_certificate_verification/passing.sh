#!/bin/bash
mkdir -p /etc/sssd
printf '[sssd]\nenable_files_domain = true\ncertificate_verification = ocsp_dgst = sha512\n' >/etc/sssd/sssd.conf
chmod 0600 /etc/sssd/sssd.conf
