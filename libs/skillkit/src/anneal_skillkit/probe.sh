# One question about the target, answered on the target. It runs as nobody, with the right to read and nothing else
# (probes.py), and may not write a byte to any file.
# Arguments: question, most bytes of an answer, globs that may be shown, globs that never are, what is asked for.
# Ends with 66: there is no such thing; 77: it may not be shown (the reason is printed); 65: it is not of that kind.
set -f
ulimit -f 0
question=$1 most=$2 allowed=$3 denied=$4
shift 4

refuse() {
    printf '%s' "$1"
    exit 77
}

# In a case pattern, as in find -path, a star takes in slashes.
may_show() {
    for glob in $denied; do case $1 in $glob) return 1 ;; esac; done
    for glob in $allowed; do case $1 in $glob) return 0 ;; esac; done
    return 1
}

# The path without any link in it; a missing one is told only where it might have been shown.
resolve() {
    wanted=$(readlink -m -- "$1") || exit 65
    may_show "$wanted$2" || refuse "$wanted"
    [ -e "$wanted" ] || exit 66
}

read_file() {
    resolve "$1" ""
    [ -f "$wanted" ] || exit 65
    exec 3<"$wanted" || exit 65
    # What was opened is what was looked at: a link put there in between leads elsewhere.
    [ "$(readlink /proc/self/fd/3)" = "$wanted" ] || refuse "$wanted"
    # A second name of a file that is never shown.
    set +f
    for one in $denied; do [ /proc/self/fd/3 -ef "$one" ] && refuse "$wanted"; done
    set -f
    stat -L -c "$wanted: mode %a, owner %U:%G, %s bytes" /proc/self/fd/3
    head -c "$most" <&3
}

enter() {
    resolve "$1" /.
    [ -d "$wanted" ] || exit 65
    cd -P -- "$wanted" || exit 65
    [ "$(pwd -P)" = "$wanted" ] || refuse "$wanted"
}

list_folder() {
    enter "$1"
    stat -c "$wanted: mode %a, owner %U:%G" .
    find . -mindepth 1 -maxdepth 1 -printf '%M %u:%g %s %P -> %l\n' 2>/dev/null | sed 's/ -> $//' | sort -k4 | head -c "$most"
}

search_files() {
    text=$2
    enter "$1"
    set --
    for glob in $denied; do set -- "$@" ! -path "$glob"; done
    found=$(find "$wanted" -xdev -type f -size -512k "$@" -exec grep -nIHF -m 5 -e "$text" -- {} + 2>/dev/null | head -c "$most")
    [ -n "$found" ] || exit 66
    printf '%s\n' "$found"
}

query_package() {
    if command -v rpm >/dev/null && [ -n "$(rpm -qa 2>/dev/null | head -c 1)" ]; then
        rpm -q --qf '%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH} is installed\n' -- "$1" || exit 66
        rpm -qc -- "$1" | head -n 40
    else
        dpkg-query -W -f '${Package} ${Version}: ${db:Status-Status}\n' -- "$1" || exit 66
    fi
}

query_unit() {
    LC_ALL=C systemctl show --no-pager \
        -p Id -p LoadState -p ActiveState -p SubState -p UnitFileState -p Result -p FragmentPath -p DropInPaths -- "$1"
}

case $question in
read_file | list_folder | search_files | query_package | query_unit) "$question" "$@" ;;
*) exit 64 ;;
esac
