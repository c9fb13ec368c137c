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
boot=$(</proc/sys/kernel/random/boot_id)

refuse() { printf 'anneal-effect refused 0 0 0\n%s\n' "$1"; exit 0; }

report() {
    local limit=$1 size=0
    [ -d "$dir" ] || { printf 'anneal-effect never 0 0 0\n'; exit 0; }
    if [ -e "$dir/finished" ]; then
        read -r code late <"$dir/finished"
        [ -e "$dir/output.tail" ] && size=$(stat -c %s "$dir/output.tail")
        if [ "$size" -gt 0 ]; then
            printf 'anneal-effect finished %s %s 1\n' "$code" "$late"
            head -c $((limit / 2)) "$dir/output"; printf '\n[... cut ...]\n'; tail -c $((limit / 2)) "$dir/output.tail"
        else
            printf 'anneal-effect finished %s %s 0\n' "$code" "$late"
            [ ! -e "$dir/output" ] || tail -c "$limit" "$dir/output"
        fi
        exit 0
    fi
    local began state=interrupted
    read -r began <"$dir/started"
    [ "$began" != "$boot" ] || flock -n "$dir/lock" true || state=running
    printf 'anneal-effect %s 0 0 0\n' "$state"
    exit 0
}

finish() {
    printf '%s %s\n' "$1" "$2" >"$dir/finished.new" && sync "$dir/finished.new" && mv "$dir/finished.new" "$dir/finished" && sync "$dir"
}

commit() { # the folder appears under its name with its started marker in it, or not at all
    printf '%s\n' "$boot" >"$new/started" && : >>"$new/lock" && sync "$new"/* "$new" || refuse "cannot write $new"
    mv -T "$new" "$dir" 2>/dev/null || { rm -rf "$new"; return 1; }
    sync "$root"
}

case $mode in
run | begin)
    mkdir -p "$root" && new=$(mktemp -d "$root/.new.XXXXXX") || refuse "cannot make a folder under $root"
    ;;
esac

case $mode in
run)
    sha=$1 seconds=$2 limit=$3
    cat >"$new/script" || { rm -rf "$new"; refuse "cannot store the script: disk full?"; }
    [ "$(sha256sum <"$new/script")" = "$sha  -" ] || { rm -rf "$new"; refuse "the script did not arrive whole: disk full?"; }
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
    # Unbuffered: head would keep what it has until the end, which a daemon can put off.
    { stdbuf -o0 head -c "$limit" >"$dir/output"; tail -c "$limit" >"$dir/output.tail"; echo >&8; } <"$dir/pipe" 9>&- &
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
    rm -f "$dir/pipe" "$dir/drained"
    finish "$code" "$late"
    ;;
wait)
    [ ! -d "$dir" ] || flock -w "$1" "$dir/lock" true
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
