#!/bin/bash
sed -i -E '/^\s*log_group\s*=/d' /etc/audit/auditd.conf
printf 'log_group = root\n' >>/etc/audit/auditd.conf
touch /var/log/audit/audit.log
chgrp -R root /var/log/audit
chmod 0600 /var/log/audit/audit.log
