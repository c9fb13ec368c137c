#!/bin/bash
sed -i -E 's/^\s*hosts\s*:.*/hosts:          files dns/' /etc/nsswitch.conf
printf 'nameserver 192.0.2.1\nnameserver 192.0.2.2\n' >/etc/resolv.conf
