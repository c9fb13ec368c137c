# Run once inside the new root, as root, without network. Turns Debian's layout into EL9's where EL9's takes real effect.

# The lab's login: a key and sudo, no password. Root has a key too, until a rule forbids it.
groupadd --system wheel
useradd --create-home --shell /bin/bash --uid 1000 --groups wheel,systemd-journal --comment 'anneal lab' anneal
passwd --lock root >/dev/null
chmod 0440 /etc/sudoers.d/anneal

# EL's unit names; Debian's stay as aliases, so that both work.
cd /usr/lib/systemd/system
for pair in ssh:sshd chrony:chronyd cron:crond; do
    old=${pair%%:*} new=${pair##*:}
    [ -e "$old.service" ] || continue
    sed -i "/^Alias=$new.service/d" "$old.service"
    mv "$old.service" "$new.service"
    ln -s "$new.service" "$old.service"
    find /etc/systemd/system \( -name "$old.service" -o -name "$new.service" \) -exec rm {} +
done
cd /
systemctl --quiet enable sshd.service chronyd.service crond.service rsyslog.service auditd.service 2>/dev/null

# EL's journal is in memory unless an administrator makes this folder.
rm -rf /var/log/journal

# No consoles in a container, and no network manager: the address is given from outside.
systemctl --quiet mask console-getty.service getty@.service
systemctl --quiet set-default multi-user.target
systemctl --quiet disable apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer 2>/dev/null || true

# EL's names for the release file and for dnf.
ln -sf redhat-release /etc/system-release
ln -sf dnf-3 /usr/bin/yum
ln -sf dnf/dnf.conf /etc/yum.conf

# One configuration for chronyd, where EL has it.
rm -rf /etc/chrony/conf.d /etc/chrony/sources.d
mv -f /etc/chrony/chrony.keys /etc/chrony.keys
ln -sf ../chrony.conf /etc/chrony/chrony.conf

# EL's values of login.defs; Debian's shadow tools read the same file.
sed -i -e 's/^\(ENCRYPT_METHOD\s\+\).*/\1SHA512/' -e 's/^#\?\s*\(HOME_MODE\s\+\).*/\10700/' /etc/login.defs
printf '\n# Create a home for a new user, as EL does.\nCREATE_HOME yes\n' >> /etc/login.defs

# sshd's unit reads EL's environment file too.
sed -i -e 's|^EnvironmentFile=.*|EnvironmentFile=-/etc/sysconfig/sshd|' -e 's/\$SSHD_OPTS/$OPTIONS/' /usr/lib/systemd/system/sshd.service

# rsyslog writes EL's files.
rm -f /etc/rsyslog.d/*
mkdir -p /var/lib/rsyslog

# /bin/sh is bash, as on EL.
ln -sf bash /usr/bin/sh

# OpenSSL's configuration where EL has it; Debian's path leads there, so the library really reads it.
mkdir -p /etc/pki/tls/certs /etc/krb5.conf.d
mv /etc/ssl/openssl.cnf /etc/pki/tls/openssl.cnf
ln -s ../pki/tls/openssl.cnf /etc/ssl/openssl.cnf
ln -s ../../../ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt
