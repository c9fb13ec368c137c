# Runs in a session, a mount and a network namespace of its own, as the last step before systemd-nspawn.
# Whatever it mounts or adds dies with the machine, also when everything is killed at once.
# Arguments: IFACE HOST_PID HOST_ADDR MACHINE_ADDR LOWER, then the command to run. Runs in the machine's folder.
set -eu
iface=$1 host_pid=$2 host_addr=$3 machine_addr=$4 lower=$5
shift 5

mount -t overlay anneal-lab -o "lowerdir=$lower,upperdir=upper,workdir=work" merged

# nspawn's own scratch folder: in memory and gone with the machine. Where the host's /run is on a disk, nspawn would
# refuse to clean it and a machine could not reboot itself.
mkdir -p /run/systemd/nspawn
mount -t tmpfs -o mode=0755 anneal-lab /run/systemd/nspawn

ip link set lo up
ip link add name host0 type veth peer name "$iface" netns "$host_pid"
ip addr add "$machine_addr/30" dev host0
ip link set host0 up
ip route add default via "$host_addr"
nsenter --net="/proc/$host_pid/ns/net" sh -ec '
    # No router solicitations and no link-local address on the host side: it has one address and no more.
    echo 1 > "/proc/sys/net/ipv6/conf/$1/disable_ipv6" 2>/dev/null || true
    ip addr add "$2/30" dev "$1"
    ip link set "$1" up
' sh "$iface" "$host_addr"

# 133 is how nspawn says that the machine wants to reboot.
status=133
while [ "$status" -eq 133 ]; do
    status=0
    "$@" || status=$?
done
exit "$status"
