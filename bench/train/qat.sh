#!/usr/bin/env bash
# Perplexity against tokens while a model becomes ternary. usage: qat.sh BASE-MODEL DATA VAL-DATA OUTPUT [OPTION...]
# The options go to `edgellm finetune --method qat` as they are. Rows of the table are the validations in OUTPUT/log.jsonl, all
# with the whole model rounded; a run that was stopped is gone on with by --resume.
set -euo pipefail
edgellm=${EDGELLM:-$(dirname "$0")/../../target/release/edgellm}
base=$1 data=$2 valid=$3 output=$4
shift 4
"$edgellm" finetune --method qat --base-model "$base" --data "$data" --val-data "$valid" --output "$output" "$@"
python3 - "$output/log.jsonl" <<'PYTHON'
import json, math, sys

print("| step | tokens | nll | perplexity | KL | hidden |\n|---:|---:|---:|---:|---:|---:|")
rows = {}
for line in open(sys.argv[1]):
    event = json.loads(line)
    if event["event"] == "validation":
        # What was done again after a resumption is there twice.
        rows[event["step"]] = event
for step, row in sorted(rows.items()):
    perplexity = math.exp(min(row["nll"], 700))
    print(f"| {step} | {row['tokens']:,} | {row['nll']:.4f} | {perplexity:,.2f} | {row['kl']:.4f} | {row['hidden']:.4f} |")
PYTHON
