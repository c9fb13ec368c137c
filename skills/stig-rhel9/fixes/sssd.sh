# What the fixes of sssd's configuration share.
conf=/etc/sssd/sssd.conf
# sssd reads no configuration that others may read.
ensure_configuration() {
    mkdir -p /etc/sssd
    touch "$conf"
    chmod 0600 "$conf"
}
# A configuration without a domain keeps sssd from starting at the next boot: where there is none, the machine's own
# accounts are one.
ensure_domain() {
    if grep -qsE '^\s*(domains\s*=\s*\S|enable_files_domain\s*=\s*true)' /etc/sssd/sssd.conf /etc/sssd/conf.d/*.conf; then
        return
    fi
    if grep -qE '^\s*\[sssd\]' "$conf"; then
        sed -i -E '/^\s*\[sssd\]/a enable_files_domain = true' "$conf"
    else
        printf '\n[sssd]\nenable_files_domain = true\n' >>"$conf"
    fi
}
# set_option SECTION KEY VALUE
set_option() {
    local found
    found=$(awk -v section="[$1]" -v key="$2" \
        '/^[[:space:]]*\[/ { inside = ($1 == section) } inside && $1 ~ "^" key "(=|$)" { print NR }' "$conf" | head -1)
    if [ -n "$found" ]; then
        sed -i "${found}s/.*/$2 = $3/" "$conf"
    elif grep -qF "[$1]" "$conf"; then
        sed -i "/^[[:space:]]*\[$1\]/a $2 = $3" "$conf"
    else
        printf '\n[%s]\n%s = %s\n' "$1" "$2" "$3" >>"$conf"
    fi
}
# An sssd that runs is seen to run with the new configuration, too.
restart_if_enabled() {
    if systemctl is-enabled --quiet sssd; then
        systemctl reset-failed sssd 2>/dev/null || : # starts of a minute ago count against this one
        systemctl restart sssd
        systemctl is-active --quiet sssd
    fi
}
