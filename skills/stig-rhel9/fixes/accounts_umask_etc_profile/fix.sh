#!/bin/bash
set -euo pipefail
file=/etc/profile
touch "$file"
sed -i -E "s/^(\s*)umask\s+[0-7]+/\1umask $var_accounts_user_umask/" "$file"
grep -qE "^\s*umask\s+$var_accounts_user_umask" "$file" || printf '\numask %s\n' "$var_accounts_user_umask" >>"$file"
