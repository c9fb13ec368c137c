#!/bin/bash
rm -f /etc/sssd/sssd.conf /etc/sssd/conf.d/*.conf
