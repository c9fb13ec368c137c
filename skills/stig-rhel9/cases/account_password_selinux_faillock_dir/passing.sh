#!/bin/bash
sed -i -E '/^\s*dir\s*=/d' /etc/security/faillock.conf
