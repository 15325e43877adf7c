#!/usr/bin/env bash
# Build llama.cpp's tools for this machine from the source that its Python package carries.
#
#   bash build_llama_cpp.sh PREFIX
#
# Needs a C++ compiler, python3 with pip, cmake. Prints the paths of the tools.
set -euo pipefail
version=0.3.36
prefix=${1:?PREFIX}
mkdir -p "$prefix"
cd "$prefix"
if [ ! -d llama_cpp_python-$version ]; then
    # Of this package alone the source: pip would also build cmake from source, for an hour.
    python3 -m pip download -q --no-deps --no-binary llama-cpp-python "llama-cpp-python==$version" -d .
    tar xzf llama_cpp_python-$version.tar.gz
fi
cmake -S llama_cpp_python-$version/vendor/llama.cpp -B build -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
    -DLLAMA_CURL=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_SERVER=OFF >cmake.log
cmake --build build -j "$(nproc)" \
    --target llama-bench llama-batched-bench llama-quantize llama-perplexity llama-simple >>cmake.log
ls "$PWD"/build/bin/llama-{bench,batched-bench,quantize,perplexity,simple}
