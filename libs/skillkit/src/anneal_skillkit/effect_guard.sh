# Functions of the effect wrapper: who may start (fence), and who takes back what cut us off (the dead-man timer).

fence() { # whoever comes too late is refused; the newest that was here is remembered until the next boot
    # An order of before a boot is refused, so a restore cannot bring an older memory back to life.
    local up seen_token=0 seen_seq=0 kept=$state/fence/$ledger
    [ "$boot" = "$at_boot" ] || say fenced "the target was booted since this was asked for"
    read -r up _ </proc/uptime
    [ "${up/./}" -le "$until" ] || say fenced "the lease under which this was asked for has run out"
    [ -d "$state/fence" ] || mkdir -p "$state/fence"
    [ ! -e "$kept" ] || read -r seen_token seen_seq <"$kept"
    if [ "$token" -lt "$seen_token" ] || { [ "$token" -eq "$seen_token" ] && [ "$seq" -lt "$seen_seq" ]; }; then
        say fenced "command $seq under token $token comes after command $seen_seq under token $seen_token"
    fi
    printf '%s %s\n' "$token" "$seq" >"$kept.new" && mv "$kept.new" "$kept" || say refused "cannot write $kept"
    # What an older effect still runs from outside finds its shell gone.
    [ ! -d "$shells" ] || rm -f "$shells"/*
}

alone() { # one effect at a time; fd 7 is held until the script has ended
    local left=$busy_s
    { [ -d "$state" ] || mkdir -p "$state"; } && exec 7>>"$state/busy" || say refused "cannot write $state"
    until flock -w 1 7; do
        [ ! -d "$dir" ] || return 0
        left=$((left - 1))
        [ "$left" -gt 0 ] || say busy "another effect has been at work for $busy_s s"
    done
}

unit() { printf 'anneal-deadman-%s' "${1:0:32}"; }

arm() { # a timer of systemd's: it needs neither sshd nor us, and outlives a reboot
    local name total
    name=$(unit "$key") total=$((seconds + after))
    [ -d /run/systemd/system ] || return 1
    mkdir -p "$units/timers.target.wants" || return 1
    cat >"$units/$name.service" <<EOF || return 1
[Unit]
Description=Takes back a change by anneal unless a new session shows that this machine answers
ConditionPathExists=$dir/wrapper
[Service]
Type=oneshot
ExecStart=-/bin/bash $dir/wrapper deadman $key $root state=$state units=$units undo_s=$undo_s limit=$limit
EOF
    printf '[Unit]\nDescription=Waits for word about a change by anneal\n[Timer]\nOnActiveSec=%ss\nAccuracySec=200ms\n' \
        "$total" >"$units/$name.timer" || return 1
    ln -sf "../$name.timer" "$units/timers.target.wants/$name.timer"
    sync "$units/$name.service" "$units/$name.timer" "$units/timers.target.wants"
    systemctl --quiet start "$name.timer" 2>/dev/null
}

shorten() { # the script has ended: from now on only the look at the machine is waited for
    local name
    name=$(unit "$key")
    [ ! -e "$units/$name.timer" ] || systemd-run --quiet --collect --unit="$name-end" --on-active="${after}s" \
        --timer-property=AccuracySec=200ms systemctl --no-block start "$name.service" 2>/dev/null
}

remove_timer() {
    local name
    name=$(unit "$1")
    [ -e "$units/$name.timer" ] || return 0
    systemctl --quiet --no-block stop "$name.timer" "$name-end.timer" 2>/dev/null
    rm -f "$units/timers.target.wants/$name.timer" "$units/$name.timer" "$units/$name.service"
}

settled() { # disarms the timer of an effect; prints the exit code of its undo script where it was too late
    local other=$root/$1
    [ -e "$other/undo" ] || return 1
    exec 6>>"$other/guard"
    flock -w $((undo_s + 10)) 6
    if ! reverted "$other"; then
        : >"$other/settled" && sync "$other/settled"
        remove_timer "$1"
        return 1
    fi
    printf '%s' "$code"
}

end_session() { # everything that the script still runs, whatever its process group
    local began='' leader='' stat text
    { read -r began <"$dir/started" && read -r leader <"$dir/session"; } 2>/dev/null
    [ "$began" = "$boot" ] && [ -n "$leader" ] || return 0
    for stat in /proc/[0-9]*/stat; do
        { text=$(<"$stat"); } 2>/dev/null || continue
        # Behind the name, which may hold anything: state, parent, group, session.
        set -- ${text##*) }
        [ "$4" != "$leader" ] || kill -KILL "${text%% *}" 2>/dev/null
    done
}

take_back() { # what the timer starts
    [ -d "$dir" ] || return 0
    exec 6>>"$dir/guard"
    flock 6
    if [ ! -e "$dir/settled" ] && ! reverted "$dir"; then
        end_session
        exec 7>>"$state/busy" && flock -w 5 7
        (
            cd / && umask 022
            exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root \
                LOGNAME=root SHELL=/bin/bash LANG=C.UTF-8 timeout -k 3 "$undo_s" bash "$dir/undo"
        ) </dev/null 2>&1 6>&- 7>&- | head -c "$limit" >"$dir/undo.output"
        printf '%s\n' "${PIPESTATUS[0]}" >"$dir/reverted" && sync "$dir/reverted"
    fi
    remove_timer "$key"
}
