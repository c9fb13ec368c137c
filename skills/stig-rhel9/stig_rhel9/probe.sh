# Runs on the target as root, from standard input: one line a question, "sysctl NAME" or "package NAME".
# Answers are lines of words parted by tabs. It changes nothing. Where it cannot tell, it is silent: silence blocks nothing.
. /etc/os-release 2>/dev/null
printf 'os\t%s\t%s\n' "${ID:-unknown}" "${VERSION_ID:-unknown}"
printf 'release\t%s\n' "$(rpm -q --qf '%{NAME}-%{VERSION}' redhat-release 2>/dev/null | head -1)"
printf 'arch\t%s\n' "$(uname -m)"
printf 'virtualization\t%s\n' "$(systemd-detect-virt 2>/dev/null || echo none)"
while read -r _ mount _; do printf 'mount\t%s\n' "$mount"; done </proc/mounts

# A local file system without nodev that another mount over its parent hides: no path leads to it, nothing can change it.
awk '{
        for (i = 7; $i != "-"; i++);
        parent[NR] = $2; at[NR] = $5
        if ($(i + 2) ~ "^/dev/" && $5 != "/" && ("," $6 ",") !~ ",nodev,") open[NR] = 1
    }
    END {
        for (m in open) for (n in at)
            if (n != m && parent[n] == parent[m] && index(at[m], at[n] "/") == 1) print "hidden\t" at[m]
    }' /proc/self/mountinfo

packages=
while read -r kind name; do
    case $kind in
    sysctl)
        path=/proc/sys/$(printf %s "$name" | tr . /)
        [ ! -e "$path" ] || [ -w "$path" ] || printf 'readonly\t%s\n' "$name"
        [ -e "$path" ] || printf 'absent\t%s\n' "$name"
        ;;
    package) rpm -q --quiet "$name" 2>/dev/null || packages="$packages $name" ;;
    esac
done

# What no enabled repository offers. A repository that cannot be reached is an error here, so that nothing is claimed.
if [ -n "$packages" ] && command -v dnf >/dev/null; then
    # shellcheck disable=SC2086 # package names hold no blanks
    if offered=$(timeout 60 dnf -q repoquery --available --setopt='*.skip_if_unavailable=False' --qf '%{name}\n' \
        $packages 2>/dev/null); then
        for name in $packages; do
            printf '%s\n' "$offered" | grep -qxF -- "$name" || printf 'unoffered\t%s\n' "$name"
        done
    fi
fi

[ -e /etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release ] || printf 'nokey\n'

# Daemons that cannot start here, whatever is configured: unit, why.
if systemd-detect-virt -cq 2>/dev/null; then
    if command -v auditctl >/dev/null && ! auditctl -s >/dev/null 2>&1; then
        printf 'cannot\tauditd.service\tthe kernel gives this container no audit netlink\n'
    fi
    [ -d /sys/bus/usb/devices ] || printf 'cannot\tusbguard.service\tthis container sees no USB bus\n'
fi
bounds=$(sed -n 's/^CapBnd:[[:space:]]*//p' /proc/1/status)
if [ -n "$bounds" ] && [ $((0x$bounds >> 24 & 1)) = 0 ]; then
    printf 'cannot\tfapolicyd.service\tit keeps CAP_SYS_RESOURCE, which nothing in this machine may have\n'
fi

# Whether the login's sudo without a password hangs on what a rule forbids: sudo's own word, and the line in a file.
login=${SUDO_USER:-root}
if [ "$login" != root ]; then
    may=$(LC_ALL=C sudo -n -l -U "$login" 2>/dev/null)
    who="$login ALL #$(id -u "$login") $(for group in $(id -Gn "$login"); do printf '%%%s ' "$group"; done)"
    lines=$(sed -n '/^[[:space:]]*\(#[^0-9]\|$\)/!p' /etc/sudoers /etc/sudoers.d/* 2>/dev/null | grep NOPASSWD)
    ours=
    for one in $who; do
        if printf '%s\n' "$lines" | awk -v who="$one" '$1 == who { found = 1 } END { exit !found }'; then ours=1; fi
    done
    free= open=
    case $may in *'!authenticate'*) free=1 ;; esac
    case $may in *NOPASSWD*) open=1 ;; esac
    if [ -n "$open" ] && [ -n "$ours" ] && [ -z "$free" ]; then printf 'login\tnopasswd\n'; fi
    if [ -n "$free" ] && [ -z "$open" ]; then printf 'login\tnoauthenticate\n'; fi
fi
exit 0
