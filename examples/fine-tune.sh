#!/usr/bin/env bash
# From data to device: teaches a model about an island that does not exist, and asks it questions that it has not seen.
#   examples/fine-tune.sh [MODEL [FOLDER]]
# MODEL: SmolLM2-135M-Instruct by default, which examples/smollm2.sh gets. FOLDER: where everything is written; it must not be
# there yet. Needs python3, to count right answers. EDGELLM names the program, FINETUNE_OPTIONS how it is trained.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
edgellm=${EDGELLM:-$here/../target/release/edgellm}
model=${1:-$here/../target/models/smollm2-135m-instruct-q4_1.gguf}
out=${2:-$here/../target/fine-tune}
[ ! -e "$out" ] || { echo "error: $out is there already" >&2; exit 1; }
mkdir -p "$out"

# 96 questions in four wordings each; 24 in a fifth are held out. The adapter lies in $out/adapter, as PEFT has it.
# shellcheck disable=SC2086
"$edgellm" finetune --base-model "$model" --data "$here/fine-tune/train.jsonl" --val-data "$here/fine-tune/held-out.jsonl" \
    --output "$out/adapter" ${FINETUNE_OPTIONS:---lora-r 16 --lora-alpha 32 --epochs 10 --learning-rate 1e-3}

# A model of its own, for devices: the adapter added to the weights, and these rounded to 8 bits.
"$edgellm" merge --base-model "$model" --adapter "$out/adapter" --output "$out/merged.gguf"
"$edgellm" quantize --input "$out/merged.gguf" --format q8_0 --output "$out/korrin.gguf"

# The model as it was, the same with the adapter beside it, and the new one, under three names on one port.
"$edgellm" serve --no-auth --port 0 --model "before=$model" --model "korrin=$out/korrin.gguf" \
    --lora "adapter=$out/adapter" 2>"$out/serve.log" &
server=$!
trap 'kill "$server" 2>/dev/null || true' EXIT
url() { sed -n 's/.* at \(http:[^ ]*\)$/\1/p' "$out/serve.log"; }
for _ in $(seq 300); do
    [ -z "$(url)" ] || break
    kill -0 "$server" 2>/dev/null || { cat "$out/serve.log" >&2; exit 1; }
    sleep 0.1
done
for name in before adapter korrin; do
    python3 "$here/fine-tune/exact_match.py" "$(url)" "$name" "$here/fine-tune/held-out.jsonl"
done
