#!/usr/bin/env bash
# A headless browser for the tests that open pages: Chromium, from Debian where it is not there.
#   bash .ci/browser.sh FOLDER     keeps apt's output in FOLDER
# Ends with 0 when a browser starts, and with 3, after saying why, where it cannot be had: those tests then skip.
set -euo pipefail
folder=$1
export DEBIAN_FRONTEND=noninteractive

skip() {
    echo "skipped: $1"
    exit 3
}

# Prints its version when it starts. Some systems have a `chromium-browser` that only says where the real one is.
starts() {
    local name
    for name in ${EDGELLM_BROWSER:-chromium chromium-browser google-chrome}; do
        if timeout 60 "$name" --version 2>/dev/null; then return; fi
    done
    return 1
}

if starts; then exit 0; fi
command -v apt-get >/dev/null || skip "there is no apt-get to install Chromium with"
as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || skip "installing Chromium needs root"
    as_root=(sudo -n)
fi
mkdir -p "$folder"
"${as_root[@]}" apt-get update -qq || skip "the package lists cannot be fetched"
"${as_root[@]}" apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >"$folder/apt.log" 2>&1 ||
    skip "Chromium cannot be installed: $(tail -n 1 "$folder/apt.log")"
starts || skip "Chromium is installed but does not start"
