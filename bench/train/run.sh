#!/usr/bin/env bash
# A training step of the default model's shape here and in PyTorch, by turns. usage: run.sh PYTHON [THREADS]
# PYTHON: an interpreter that has torch. Only the ratio of figures of one run counts.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1 threads=${2:-$(nproc)}
shape=(256 6 768 4 4096 256 8)
cargo build --release --locked -p train --example step
for _ in 1 2 3; do
    for precision in f32 bf16; do
        target/release/examples/step "${shape[@]}" "$threads" ternary "$precision" | sed "s/^/$precision: /"
    done
    "$python" bench/train/torch_step.py "${shape[@]}" "$threads"
done
