#!/bin/bash
set -euo pipefail
ensure_configuration
# A second place that says otherwise would win or lose by its name.
sed -i -E '/^\s*certificate_verification\s*=/d' /etc/sssd/conf.d/*.conf 2>/dev/null || :
set_option sssd certificate_verification "ocsp_dgst = $var_sssd_certificate_verification_digest_function"
ensure_domain
restart_if_enabled
