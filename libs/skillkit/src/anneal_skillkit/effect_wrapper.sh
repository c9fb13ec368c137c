# Runs on the target as: bash -c THIS anneal-effect MODE KEY ROOT [ARGUMENTS]. Texts reach it as arguments and standard input only.
#   run KEY SHA256 TIMEOUT_S LIMIT  script on standard input; runs it once, waits, reports
#   wait KEY SECONDS LIMIT          waits for a running effect to end, reports
#   read KEY LIMIT                  reports
#   begin KEY / end KEY CODE        markers of an effect that the controller drives itself
# The report is one line "anneal-effect STATE EXIT TIMED_OUT CUT", then the captured output.
set -u
umask 077
mode=$1 key=$2 root=$3
shift 3
dir=$root/$key
read -r boot </proc/sys/kernel/random/boot_id

refuse() { printf 'anneal-effect refused 0 0 0\n%s\n' "$1"; exit 0; }

ended() { { read -r code late <"$dir/finished"; } 2>/dev/null; } # true for a whole line only

report() {
    local limit=$1 began='' state=interrupted
    [ -d "$dir" ] || { printf 'anneal-effect never 0 0 0\n'; exit 0; }
    if ! ended; then
        { read -r began <"$dir/started"; } 2>/dev/null
        [ "$began" != "$boot" ] || flock -n "$dir/lock" true || state=running
    fi
    # Once more: the end may have come while we looked.
    if ! ended; then
        printf 'anneal-effect %s 0 0 0\n' "$state"
    elif [ -s "$dir/output.tail" ]; then
        printf 'anneal-effect finished %s %s 1\n' "$code" "$late"
        head -c $((limit / 2)) "$dir/output"; printf '\n[... cut ...]\n'; tail -c $((limit / 2)) "$dir/output.tail"
    else
        printf 'anneal-effect finished %s %s 0\n' "$code" "$late"
        [ ! -s "$dir/output" ] || tail -c "$limit" "$dir/output"
    fi
    exit 0
}

# A power cut right after it can lose the marker: the effect then counts as interrupted, which is never wrong.
finish() { printf '%s %s\n' "$1" "$2" >"$dir/finished" && sync "$dir/finished" && rm -f "$dir"/{started,lock,pipe,drained}; }

commit() { # the folder appears under its name with its started marker in it, or not at all
    printf '%s\n' "$boot" >"$new/started" && : >>"$new/lock" || refuse "cannot write $new"
    # mv refuses a folder that holds something; an empty one is what a power cut can leave.
    { [ ! -d "$dir" ] && mv -T "$new" "$dir" 2>/dev/null; } || { rm -rf "$new"; return 1; }
    # Its name has to be on the disk before anything happens; a folder whose marker is not counts as interrupted.
    sync "$root" || { rm -rf "$dir"; refuse "cannot write $root"; }
}

case $mode in
run | begin)
    new=$root/.new.$$.${EPOCHREALTIME/[.,]/}
    { [ -d "$root" ] || mkdir -p "$root"; } && mkdir "$new" || refuse "cannot make a folder under $root"
    ;;
esac

case $mode in
run)
    sha=$1 seconds=$2 limit=$3
    cat >"$new/script" || { rm -rf "$new"; refuse "cannot store the script: disk full?"; }
    sha256sum --check --status - <<<"$sha  $new/script" || { rm -rf "$new"; refuse "the script did not arrive whole: disk full?"; }
    # Held from before the folder has its name until the script has ended: who finds it free later knows.
    exec 9>"$new/lock"
    flock -n 9
    commit || report "$limit"
    setsid bash -c "$BASH_EXECUTION_STRING" anneal-effect carry "$key" "$root" "$seconds" "$limit" </dev/null >/dev/null 2>&1 &
    exec 9>&-
    wait $!
    report "$limit"
    ;;
carry) # in a session of its own: neither the end of the SSH connection nor a restart of sshd ends the script
    seconds=$1 limit=$2
    mkfifo "$dir/pipe" "$dir/drained"
    exec 8<>"$dir/drained"
    # dd, for it writes what it has: others keep it until the end, which a daemon can put off. A tail only where more comes.
    {
        dd bs=64K count="$limit" iflag=count_bytes of="$dir/output" status=none
        ! read -r -N 1 || tail -c "$limit" >"$dir/output.tail"
        echo >&8
    } <"$dir/pipe" 9>&- &
    began=$EPOCHREALTIME
    (
        cd / && umask 022
        exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root \
            SHELL=/bin/bash LANG=C.UTF-8 timeout -k 3 "$seconds" bash "$dir/script"
    ) </dev/null >"$dir/pipe" 2>&1 8>&- 9>&-
    code=$? late=0
    spent=$((${EPOCHREALTIME/[.,]/} - ${began/[.,]/}))
    case $code in 124 | 137) [ "$spent" -lt "${seconds%.*}000000" ] || late=1 ;; esac
    # A daemon that the script started may hold the pipe for ever: its output is no longer ours to wait for.
    read -r -t 0.3 -u 8
    exec 8>&-
    finish "$code" "$late"
    ;;
wait)
    [ ! -d "$dir" ] || ended || flock -w "$1" "$dir/lock" true
    report "$2"
    ;;
read) report "$1" ;;
begin)
    commit || report 0
    printf 'anneal-effect begun 0 0 0\n'
    ;;
end)
    cat >"$dir/output" && finish "$1" "$2" || refuse "cannot write the end marker of $dir"
    printf 'anneal-effect finished %s %s 0\n' "$1" "$2"
    ;;
esac
