#!/bin/bash
set -euo pipefail
servers=$(grep -cE '^\s*nameserver\s+\S' /etc/resolv.conf || :)
if [ "$servers" -ge 2 ]; then exit 0; fi
if [ "$servers" -eq 1 ]; then
    echo "only one name server is configured: which is to be the second is not for this machine to say" >&2
    exit 1
fi
# A name server may come later from what manages the network: then the machine does use DNS.
if systemctl is-active --quiet NetworkManager systemd-resolved; then
    echo "no name server now, but the network is managed: name two servers in its configuration" >&2
    exit 1
fi
sed -i -E '/^\s*hosts\s*:/s/\s+(dns|resolve)\b(\s+\[[^]]*\])?//g' /etc/nsswitch.conf
: >/etc/resolv.conf
getent hosts localhost >/dev/null
