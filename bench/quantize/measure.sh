#!/usr/bin/env bash
# Every format and method on one model: bits, seconds, peak memory, then perplexity and KL against the original, as a table, as
# JSON and as a page with the curve of perplexity against bits (docs/src/quantize.md).
#
#   bench/quantize/measure.sh MODEL CALIBRATION-TEXT OTHER-TEXT FOLDER [SAMPLES [CHUNKS]]
#
# EDGELLM is the program, "edgellm" by default; ROWS names some of the rows instead of all. What is there already is not made
# anew, so that a run that was stopped goes on.
set -euo pipefail

if [ $# -lt 4 ]; then
    sed -n '2,9p' "$0"
    exit 2
fi
edgellm=${EDGELLM:-edgellm}
model=$1 seen=$2 unseen=$3 folder=$4 samples=${5:-128} chunks=${6:-16}
calibrated=(--method calibrated --calibration-data "$seen" --num-samples "$samples")

# name, then what `edgellm quantize` is given
all=(
    "tmac2-rounded.tmac2.bin --format tmac2"
    "ternary-rounded.gguf --format ternary"
    "planes2-rounded.gguf --format ternary --planes 2"
    "int4-rounded.gguf --format int4"
    "ternary.gguf --format ternary calibrated"
    "planes2.gguf --format ternary --planes 2 calibrated"
    "int4.gguf --format int4 calibrated"
)
for bits in 1.6 2.2 2.7 3.3 3.9 4.5; do
    all+=("bits-$bits.gguf --format ternary --bits $bits calibrated")
done

mkdir -p "$folder"
files=()
for row in "${all[@]}"; do
    read -r -a words <<< "$row"
    name=${words[0]}
    if [ -n "${ROWS:-}" ] && [[ " $ROWS " != *" ${name%.*} "* ]]; then
        continue
    fi
    options=("${words[@]:1}")
    if [ "${options[-1]}" = calibrated ]; then
        unset 'options[-1]'
        options+=("${calibrated[@]}")
    fi
    if [ ! -e "$folder/$name" ]; then
        "$edgellm" quantize --input "$model" --output "$folder/$name" "${options[@]}" --json > "$folder/$name.json.part"
        mv "$folder/$name.json.part" "$folder/$name.json"
    fi
    files+=("$folder/$name")
    python3 - "$folder/$name.json" << 'PYTHON'
import json
import os
import sys

made = json.load(open(sys.argv[1]))
memory = (made["peak_memory"] or 0) >> 20
name = os.path.basename(made["path"])
print(f"{name:28} {made['bits']:6.3f} bits {made['seconds']:7.1f} s {memory:6} MiB at most")
PYTHON
done
"$edgellm" analyze "$model" "${files[@]}" --text "$unseen" --chunks "$chunks" --html "$folder/report.html" --json \
    > "$folder/report.json"
python3 - "$folder/report.json" << 'PYTHON'
import json
import sys

found = json.load(open(sys.argv[1]))
print(f"\n{found['original']['name']}: perplexity {found['perplexity']:.3f}")
for made in found["quantized"]:
    text = made["text"]
    ratio = text["perplexity"] / found["perplexity"]
    print(
        f"{made['name']:28} {made['linear_bits']:6.3f} bits  perplexity {text['perplexity']:14.3f}  ratio {ratio:12.4f}"
        f"  mean KL {text['mean_kl']:8.5f}  same top {100 * text['top1_agreement']:6.2f} %"
    )
PYTHON
