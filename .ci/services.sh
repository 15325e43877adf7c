#!/usr/bin/env bash
# Redis, PostgreSQL and Prometheus for the tests that start one of their own: from Debian where they are not there.
#   bash .ci/services.sh FOLDER     keeps apt's output in FOLDER
# Ends with 0 when they are there, and with 3, after saying why, where they cannot be had: those tests then skip.
set -euo pipefail
folder=$1
export DEBIAN_FRONTEND=noninteractive

skip() {
    echo "skipped: $1"
    exit 3
}

there() { command -v redis-server && command -v prometheus && ls -d /usr/lib/postgresql/*/bin; }

if there >/dev/null 2>&1; then exit 0; fi
command -v apt-get >/dev/null || skip "there is no apt-get to install Redis, PostgreSQL and Prometheus with"
as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || skip "installing Redis, PostgreSQL and Prometheus needs root"
    as_root=(sudo -n)
fi
mkdir -p "$folder"
"${as_root[@]}" apt-get update -qq || skip "the package lists cannot be fetched"
"${as_root[@]}" apt-get install -y -qq --no-install-recommends redis-server postgresql prometheus >"$folder/apt.log" 2>&1 ||
    skip "Redis, PostgreSQL and Prometheus cannot be installed: $(tail -n 1 "$folder/apt.log")"
there >/dev/null || skip "Redis, PostgreSQL and Prometheus are installed but not to be found"
