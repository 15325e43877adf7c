#!/usr/bin/env bash
# Make the models that compare.py runs: random weights of a true shape in the formats of each engine.
#
#   bash make_models.sh OUT_DIR --llama-quantize PATH [--ik-llama-quantize PATH] [--edgellm PATH] [--python PATH]
#
# Takes about 9 GB of disk while it works and 5 GB in the end. Models that are there already are kept.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?OUT_DIR}
shift
quantize= ik_quantize= edgellm= python=python3
while [ $# -gt 0 ]; do
    case $1 in
    --llama-quantize) quantize=$2 ;;
    --ik-llama-quantize) ik_quantize=$2 ;;
    --edgellm) edgellm=$2 ;;
    --python) python=$2 ;;
    *) echo "unknown option $1" >&2 && exit 2 ;;
    esac
    shift 2
done
mkdir -p "$out"

# made NAME COMMAND...: runs the command unless the model is there; {} stands for the file to write.
made() {
    local name=$1
    shift
    if [ -e "$out/$name" ]; then return; fi
    echo "making $name" >&2
    "${@//\{\}/$out/$name.part}" >"$out/$name.log" 2>&1 || { tail -5 "$out/$name.log" >&2 && return 1; }
    mv "$out/$name.part" "$out/$name"
    rm "$out/$name.log"
}

# quantized NAME TOOL SOURCE TYPE HEAD: the layers in a type, the tied embedding in another.
quantized() {
    if [ -z "$2" ]; then return; fi
    made "$1" "$2" --allow-requantize --output-tensor-type "$5" --token-embedding-type "$5" "$out/$3" {} "$4"
}

made bitnet-2b-f16.gguf "$python" "$here/models.py" {} --shape bitnet-2b --type f16 --ternary
quantized bitnet-2b-tq2_0.gguf "$quantize" bitnet-2b-f16.gguf TQ2_0 q6_k
quantized bitnet-2b-tq1_0.gguf "$quantize" bitnet-2b-f16.gguf TQ1_0 q6_k
quantized bitnet-2b-q4_0.gguf "$quantize" bitnet-2b-f16.gguf Q4_0 q6_k
quantized bitnet-2b-iq2_bn.gguf "$ik_quantize" bitnet-2b-f16.gguf IQ2_BN q6_k
quantized bitnet-2b-iq1_bn.gguf "$ik_quantize" bitnet-2b-f16.gguf IQ1_BN q6_k

made stories110m-f32.gguf "$python" "$here/models.py" {} --shape stories110m --type f32 --ternary
quantized stories110m-tq2_0.gguf "$quantize" stories110m-f32.gguf TQ2_0 q6_k
quantized stories110m-q4_0.gguf "$quantize" stories110m-f32.gguf Q4_0 q6_k
quantized stories110m-iq2_bn.gguf "$ik_quantize" stories110m-f32.gguf IQ2_BN q6_k
# For llama2.c, which also wants its own tokenizer.bin beside it.
if [ -n "$edgellm" ]; then
    made stories110m.bin "$edgellm" convert "$out/stories110m-f32.gguf" {} --to llama2c
fi

made smollm-135m-f16.gguf "$python" "$here/models.py" {} --shape smollm-135m --type f16
quantized smollm-135m-q4_1.gguf "$quantize" smollm-135m-f16.gguf Q4_1 q8_0

made llama-1b-f16.gguf "$python" "$here/models.py" {} --shape llama-1b --type f16
quantized llama-1b-q4_0.gguf "$quantize" llama-1b-f16.gguf Q4_0 q6_k
