#!/bin/bash
set -e
rpm -q --quiet firewalld || dnf -y -q install firewalld
systemctl enable --now firewalld
firewall-cmd -q --set-default-zone=public
