#!/bin/bash
sed -i -E '/^\s*dir\s*=/d' /etc/security/faillock.conf
printf 'dir=/var/log/faillock\n' >>/etc/security/faillock.conf
