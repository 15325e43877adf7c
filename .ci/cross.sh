#!/usr/bin/env bash
# What tests for other processors need: user-mode qemu, and a compiler for 64-bit ARM.
#   bash .ci/cross.sh FOLDER     writes FOLDER/env.sh, which sets the variables that cargo and qemu read
# Ends with 0 when `. FOLDER/env.sh && cargo test --target aarch64-unknown-linux-gnu` works, and with 3, after saying
# why, where that cannot be had. Takes some 20 seconds the first time, on Debian 12 and later and on x86-64 only.
set -euo pipefail
folder=$1
target=aarch64-unknown-linux-gnu
export DEBIAN_FRONTEND=noninteractive

skip() {
    echo "skipped: $1"
    exit 3
}

[ "$(uname -sm)" = "Linux x86_64" ] || skip "cross tests are for Linux on x86-64, this is $(uname -sm)"
if [ -f "$folder/env.sh" ] && (. "$folder/env.sh" && [ "$EDGELLM_CROSS_HOST" = "$(rustc -V)" ]); then exit 0; fi
command -v apt-get >/dev/null || skip "there is no apt-get to install a cross compiler and qemu with"
as_root=()
if [ "$(id -u)" != 0 ]; then
    sudo -n true 2>/dev/null || skip "installing a cross compiler and qemu needs root"
    as_root=(sudo -n)
fi
mkdir -p "$folder"

# The linker, the C library to link with and to run on, and qemu for all processors.
if ! command -v aarch64-linux-gnu-gcc >/dev/null || ! command -v qemu-aarch64-static >/dev/null; then
    "${as_root[@]}" apt-get update -qq || skip "the package lists cannot be fetched"
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends \
        gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static >"$folder/apt.log" 2>&1 ||
        skip "a cross compiler and qemu cannot be installed: $(tail -n 1 "$folder/apt.log")"
fi

# Rust's standard library for the target: the installed compiler's if it has it, else Debian's, with its own compiler,
# for the two must be of one build. Debian's packages named rustc-web follow Rust's releases; they are unpacked, not
# installed: neither the toolchain in use nor the system changes. The lists for arm64 are private, too: dpkg's
# architectures stay as they are.
compiler=$(command -v rustc)
if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$target/lib" ]; then
    lists=(
        -o APT::Architecture=amd64 -o APT::Architectures=amd64,arm64 -o APT::Sandbox::User=root
        -o Dir::State::Lists="$folder/lists" -o Acquire::Languages=none
    )
    mkdir -p "$folder/lists/partial" "$folder/packages"
    apt-get "${lists[@]}" update -qq >"$folder/apt.log" 2>&1 || skip "the package lists for arm64 cannot be fetched"
    version=$(apt-cache "${lists[@]}" policy rustc-web | sed -n 's/^ *Candidate: //p')
    [ -n "$version" ] && [ "$version" != "(none)" ] || skip "no Rust for $target, from rustup or from Debian"
    oldest=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
    dpkg --compare-versions "$version" ge "$oldest" || skip "Debian's Rust is $version, older than $oldest"
    # One name in a list of dependencies: depends PACKAGE PATTERN
    depends() {
        apt-cache "${lists[@]}" show "$1=$version" | sed -n 's/^Depends: //p' | grep -oE "$2" | head -n 1
    }
    std=$(depends libstd-rust-web-dev 'libstd-rust-web-[0-9.]*[0-9]')
    llvm=$(depends "$std" 'libllvm[0-9]+')
    rm -rf "$folder/packages"/*.deb "$folder/root"
    (cd "$folder/packages" && apt-get "${lists[@]}" download -qq \
        "rustc-web=$version" "$std=$version" "libstd-rust-web-dev=$version" "libstd-rust-web-dev:arm64=$version" \
        "$llvm") >"$folder/apt.log" 2>&1 || skip "Debian's Rust cannot be fetched"
    for package in "$folder/packages"/*.deb; do dpkg -x "$package" "$folder/root"; done
    rm -rf "$folder/packages" "$folder/lists"
    compiler=$folder/rustc
    cat >"$compiler" <<EOF
#!/bin/sh
LD_LIBRARY_PATH=$folder/root/usr/lib/x86_64-linux-gnu exec $folder/root/usr/bin/rustc "\$@"
EOF
    chmod +x "$compiler"
fi

cat >"$folder/env.sh" <<EOF
export EDGELLM_CROSS_HOST="$(rustc -V)"
export RUSTC=$compiler
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64-static -L /usr/aarch64-linux-gnu"
EOF
echo "cross compiler: $("$compiler" -V)"
