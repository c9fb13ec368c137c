#!/bin/bash
sed -i -E '/^\s*(server|pool)\s/d' /etc/chrony.conf
printf 'pool time.example.mil iburst maxpoll 16\n' >>/etc/chrony.conf
