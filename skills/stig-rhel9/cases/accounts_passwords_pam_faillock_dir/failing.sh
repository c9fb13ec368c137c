#!/bin/bash
sed -i -E '/^\s*dir\s*=/d' /etc/security/faillock.conf
sed -i -E '/pam_faillock\.so/d' /etc/pam.d/system-auth /etc/pam.d/password-auth
