#!/bin/bash
sed -i -E '/^\s*dir\s*=/d' /etc/security/faillock.conf
printf 'dir = /var/log/faillock\n' >>/etc/security/faillock.conf
mkdir -p /var/log/faillock
chcon system_u:object_r:var_log_t:s0 /var/log/faillock
