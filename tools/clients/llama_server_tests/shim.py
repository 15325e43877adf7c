#!/usr/bin/env python3
"""Stands where the suite expects llama-server: takes its flags and becomes `edgellm serve` with ours.

EDGELLM_BIN is the binary, EDGELLM_STORIES and EDGELLM_EMBEDDER the models that stand in for those of the suite, which
come from a hub. A flag that is not in the table below ends with 1, so that nothing is silently ignored.
"""

import os
import sys

STORIES = os.environ.get("EDGELLM_STORIES", "")
EMBEDDER = os.environ.get("EDGELLM_EMBEDDER", STORIES)

# Flags with a value that become ours.
OURS = {
    "--host": "--host",
    "--port": "--port",
    "--temp": "--temperature",
    "--seed": "--seed",
    "--threads": "--threads",
    "--n-predict": "--max-tokens",
    "--chat-template": "--chat-template",
    "--chat-template-file": "--chat-template",
    "--cors-origins": "--cors",
}
# Flags with a value that have no meaning here: batches, caches and layers are ours to choose, or it is said otherwise.
WITH_VALUE = {"--batch-size", "--ubatch-size", "--n-gpu-layers", "-fa", "-ctk", "-ctv", "--hf-file", "--model-url", "--reasoning-format"}
# Flags alone. Templates are always Jinja; embeddings and metrics are always on.
ALONE = {"--cont-batching", "--embedding", "--metrics", "--jinja", "--no-jinja", "--offline", "--verbose", "--no-slots", "--slots", "--kv-unified"}


def translate(arguments: list[str]) -> list[str]:
    """Our arguments for theirs."""
    found = ["--no-auth", "--any-model-name", "--llama-cpp-routes"]
    name, model = "model", STORIES
    context, slots = None, 1
    rest = iter(arguments)
    for flag in rest:
        if flag in ALONE:
            continue
        value = next(rest, None)
        if value is None:
            sys.exit(f"shim: {flag} needs a value")
        if flag in OURS:
            if flag == "--n-predict" and int(value) < 0:
                continue
            found += [OURS[flag], value]
        elif flag == "--alias":
            name = value
        elif flag == "--ctx-size":
            context = int(value)
        elif flag == "--parallel":
            slots = int(value)
        elif flag in ("--hf-repo", "--model"):
            model = EMBEDDER if "bert" in value else STORIES
        elif flag == "--reasoning":
            if value != "auto":
                found += ["--thinking", value]
        elif flag == "--pooling":
            if value != "mean":
                sys.exit(f"shim: embeddings are mean-pooled, not {value}")
        elif flag not in WITH_VALUE:
            sys.exit(f"shim: {flag} has no counterpart")
    if context:
        # llama-server divides its context among the slots.
        found += ["--ctx-size", str(context // slots)]
    return [*found, "--max-sequences", str(slots), "--model", f"{name}={model}"]


if __name__ == "__main__":
    binary = os.environ["EDGELLM_BIN"]
    os.execv(binary, [binary, "serve", *translate(sys.argv[1:])])
