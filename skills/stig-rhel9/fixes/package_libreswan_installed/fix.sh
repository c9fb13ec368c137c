#!/bin/bash
set -euo pipefail
rpm -q --quiet libreswan || dnf install -y libreswan
conf=/etc/ipsec.conf
include=/etc/crypto-policies/back-ends/libreswan.config
if [ -e "$conf" ] && ! grep -qE "^\s*include\s+$include" "$conf"; then
    cp -p "$conf" "$conf.new"
    if grep -qE "^#\s*include\s+$include" "$conf"; then
        sed -i -E "s|^#\s*(include\s+$include)|\1|" "$conf.new"
    else
        printf '\ninclude %s\n' "$include" >>"$conf.new"
    fi
    ipsec addconn --config "$conf.new" --checkconfig
    mv "$conf.new" "$conf"
fi
