#!/bin/bash
# What a fresh install looks like where another group reads the logs and none has been written.
sed -i -E '/^\s*log_group\s*=/d' /etc/audit/auditd.conf
printf 'log_group = adm\n' >>/etc/audit/auditd.conf
rm -f /var/log/audit/audit.log*
