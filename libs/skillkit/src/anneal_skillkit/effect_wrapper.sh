# Runs on the target as: bash -c THIS anneal-effect MODE KEY ROOT [NAME=VALUE...]. Texts reach it as arguments and standard input only.
# effect_guard.sh stands before it.
#   run      script on standard input, behind it the script that takes it back; runs it once, waits, reports
#   wait     waits for a running effect to end, reports
#   read     reports
#   begin    start marker of an effect that the controller drives itself; end: its end marker
#   disarm   a new session showed that the machine answers: the dead-man timer has nothing to do any more
#   deadman  what that timer runs
# The report is one line "anneal-effect STATE EXIT TIMED_OUT CUT", then the captured output.
set -u
umask 077
mode=$1 key=$2 root=$3
shift 3
# Where the memory of this boot is kept; where shells for what comes from outside lie; where systemd finds units.
state=/run/anneal shells=/run/anneal-shells units=/etc/systemd/system
sha='' seconds=1 limit=65536 busy_s=30 ledger='' token=0 seq=0 at_boot='' until=0 undoes='' undo_size=0 after=0 undo_s=20
required=0 code=0 late=0 new=''
[ $# -eq 0 ] || declare -- "$@"
dir=$root/$key
read -r boot </proc/sys/kernel/random/boot_id

say() { # STATE TEXT [EXIT]
    [ -z "$new" ] || rm -rf "$new"
    printf 'anneal-effect %s %s 0 0\n%s\n' "$1" "${3:-0}" "$2"
    exit 0
}

ended() { { read -r code late <"$dir/finished"; } 2>/dev/null; } # true for a whole line only
reverted() { { read -r code <"$1/reverted"; } 2>/dev/null; }

report() {
    local began='' doing=interrupted
    [ -z "$new" ] || rm -rf "$new"
    [ -d "$dir" ] || { printf 'anneal-effect never 0 0 0\n'; exit 0; }
    # An undo that the timer has begun is waited for.
    [ ! -e "$dir/undo" ] || { exec 6>>"$dir/guard"; flock -w $((undo_s + 10)) 6; exec 6>&-; }
    if reverted "$dir"; then
        printf 'anneal-effect reverted %s 0 0\n' "$code"
        cat "$dir/undo.output"
        exit 0
    fi
    if ! ended; then
        { read -r began <"$dir/started"; } 2>/dev/null
        [ "$began" != "$boot" ] || flock -n "$dir/lock" true || doing=running
    fi
    # Once more: the end may have come while we looked.
    if ! ended; then
        printf 'anneal-effect %s 0 0 0\n' "$doing"
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
finish() {
    printf '%s %s\n' "$1" "$2" >"$dir/finished" && sync "$dir/finished" && rm -f "$dir"/{started,session,lock,pipe,drained}
}

admit() { # everything that may keep an effect from starting; what is there already under its key is reported
    [ ! -d "$dir" ] || report
    alone
    [ ! -d "$dir" ] || report
    fence
    [ -n "$undoes" ] || return 0
    [ -d "$root/$undoes" ] || say idle "it never began on this target: there is nothing to take back"
    if code=$(settled "$undoes"); then say idle "$(tail -c "$limit" "$root/$undoes/undo.output")" "$code"; fi
}

commit() { # the folder appears under its name with its started marker in it, or not at all
    printf '%s\n' "$boot" >"$new/started" && : >>"$new/lock" || say refused "cannot write $new"
    # mv refuses a folder that holds something; an empty one is what a power cut can leave.
    { [ ! -d "$dir" ] && mv -T "$new" "$dir" 2>/dev/null; } || report
    new=''
    # Its name has to be on the disk before anything happens; a folder whose marker is not counts as interrupted.
    sync "$root" || { rm -rf "$dir"; say refused "cannot write $root"; }
    [ "$after" = 0 ] || arm || {
        remove_timer "$key"
        [ "$required" = 0 ] || { rm -rf "$dir"; say refused "no dead-man timer can be armed here: is systemd running?"; }
    }
}

case $mode in
run | begin)
    new=$root/.new.$$.${EPOCHREALTIME/[.,]/}
    { [ -d "$root" ] || mkdir -p "$root"; } && mkdir "$new" || { new=''; say refused "cannot make a folder under $root"; }
    cat >"$new/script" || say refused "cannot store the script: disk full?"
    sha256sum --check --status - <<<"$sha  $new/script" || say refused "the script did not arrive whole: disk full?"
    [ "$after" = 0 ] || {
        tail -c "$undo_size" "$new/script" >"$new/undo" && truncate -s "-$undo_size" "$new/script" &&
            printf '%s' "$BASH_EXECUTION_STRING" >"$new/wrapper"
    } || say refused "cannot store the undo script: disk full?"
    ;;
esac

case $mode in
run)
    # Held from before the folder has its name until the script has ended: who finds it free later knows.
    exec 9>"$new/lock"
    flock -n 9
    admit
    commit
    setsid bash -c "$BASH_EXECUTION_STRING" anneal-effect carry "$key" "$root" "seconds=$seconds" "limit=$limit" \
        "after=$after" "units=$units" </dev/null >/dev/null 2>&1 &
    exec 9>&- 7>&-
    wait $!
    report
    ;;
carry) # in a session of its own: neither the end of the SSH connection nor a restart of sshd ends the script
    printf '%s\n' $$ >"$dir/session"
    mkfifo "$dir/pipe" "$dir/drained"
    exec 8<>"$dir/drained"
    # Unbuffered: head would keep what it has until the end, which a daemon can put off. A tail only where more comes.
    {
        stdbuf -o0 head -c "$limit" >"$dir/output"
        ! read -r -N 1 || tail -c "$limit" >"$dir/output.tail"
        echo >&8
    } <"$dir/pipe" 9>&- 7>&- &
    began=$EPOCHREALTIME
    (
        cd / && umask 022
        exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root \
            SHELL=/bin/bash LANG=C.UTF-8 timeout -k 3 "$seconds" bash "$dir/script"
    ) </dev/null >"$dir/pipe" 2>&1 7>&- 8>&- 9>&-
    code=$?
    spent=$((${EPOCHREALTIME/[.,]/} - ${began/[.,]/}))
    case $code in 124 | 137) [ "$spent" -lt "${seconds}000000" ] || late=1 ;; esac
    # A daemon that the script started may hold the pipe for ever: its output is no longer ours to wait for.
    read -r -t 0.3 -u 8
    exec 8>&-
    finish "$code" "$late"
    [ "$after" = 0 ] || shorten
    ;;
wait)
    [ ! -d "$dir" ] || ended || flock -w "$seconds" "$dir/lock" true
    report
    ;;
read) report ;;
begin)
    admit
    commit
    [ -d "$shells" ] || { mkdir -p "$shells" && chmod 0755 "$shells"; }
    # What runs from outside starts each of its steps by this shell, which a newer effect or a boot takes away.
    printf '#!/bin/sh\nexec /bin/sh "$@"\n' >"$shells/$key" && chmod 0755 "$shells/$key"
    printf 'anneal-effect begun 0 0 0\n'
    ;;
end)
    rm -f "$shells/$key"
    cat >"$dir/output" && finish "$code" "$late" || say refused "cannot write the end marker of $dir"
    [ "$after" = 0 ] || shorten
    printf 'anneal-effect finished %s %s 0\n' "$code" "$late"
    ;;
disarm)
    if code=$(settled "$key"); then say reverted "$(tail -c "$limit" "$dir/undo.output")" "$code"; fi
    say disarmed ''
    ;;
deadman) take_back ;;
esac
