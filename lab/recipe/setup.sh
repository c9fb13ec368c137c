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
