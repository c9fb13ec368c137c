#!/bin/bash
set -euo pipefail
ensure_configuration
set_option pam offline_credentials_expiration 1
ensure_domain
restart_if_enabled
