#!/usr/bin/env python3
"""Measure what a table of speeds does not show: how even tokens come, what busy neighbours cost, and how long a start takes.

    python3 steady.py --edgellm target/release/edgellm --even SMALL.gguf --start LARGE.gguf \\
        [--llama-bench PATH] [--llama-simple PATH] [--threads 2] [--rounds 5]

Even tokens: the gaps between 256 tokens of SMALL.gguf on an idle machine. Neighbours: the speed of decoding SMALL.gguf with a
busy process on each core, over that without, and the longest gap; of llama.cpp the speed. Start: from the start of the
program to the end of its first token of LARGE.gguf, which has been read before, and the most memory that it held. Every
measurement runs once a round, one after the other; the figures are the medians.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

from compare import run

BUSY = [sys.executable, "-c", "while True: pass"]


def timed(command):
    """Seconds and peak memory in MB of a command."""
    began = time.perf_counter()
    _, _, peak = run(command)
    return time.perf_counter() - began, peak


class Steady:
    def __init__(self, args):
        self.args = args
        self.threads = ["--threads", str(args.threads)]

    def decode(self, tokens):
        """EdgeLLM's report of decoding so many tokens of the small model."""
        lengths = ["--prompt-lengths", "16", "--decode-lengths", str(tokens), "--bandwidth-mb", "64"]
        command = [self.args.edgellm, "benchmark", self.args.even, "--repeat", "1", "--json", *self.threads, *lengths]
        return json.loads(run(command)[0])

    def llama_decode(self):
        command = [self.args.llama_bench, "-m", self.args.even, "-t", str(self.args.threads)]
        text = run([*command, "-p", "0", "-n", "128", "-r", "1", "-o", "json"])[0]
        return json.loads(text[text.index("[") :])[0]["avg_ts"]

    def round(self):
        found = {}
        gaps = self.decode(256)["inter_token_ms"]
        found["gap p50, ms"] = gaps["p50"]
        found["gap p99 / p50"] = gaps["p99"] / gaps["p50"]
        found["gap max / p50"] = gaps["max"] / gaps["p50"]
        alone = self.decode(128)["decode_tok_s"]["128"]
        llama_alone = self.llama_decode() if self.args.llama_bench else None
        neighbours = [subprocess.Popen(BUSY) for _ in range(os.cpu_count())]
        try:
            time.sleep(0.5)
            report = self.decode(128)
            llama_beside = self.llama_decode() if self.args.llama_bench else None
        finally:
            for neighbour in neighbours:
                neighbour.kill()
                neighbour.wait()
        found["speed beside busy neighbours / alone"] = report["decode_tok_s"]["128"] / alone
        found["longest gap beside them / their median"] = report["inter_token_ms"]["max"] / report["inter_token_ms"]["p50"]
        if llama_alone:
            found["the same of llama.cpp"] = llama_beside / llama_alone
        if self.args.start:
            size = os.path.getsize(self.args.start) / 1e6
            generate = [self.args.edgellm, "generate", self.args.start, "--prompt", "w1", "-n", "1", *self.threads]
            found["start to first token, s"], peak = timed(generate)
            found["peak memory / file"] = peak / size
            if self.args.llama_simple:
                simple = [self.args.llama_simple, "-m", self.args.start, "-n", "1", "w1"]
                found["start of llama.cpp, s"], _ = timed(simple)
        return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgellm", required=True)
    parser.add_argument("--even", required=True, help="a small model")
    parser.add_argument("--start", help="a large model")
    parser.add_argument("--llama-bench")
    parser.add_argument("--llama-simple")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    for name in ["edgellm", "even", "start", "llama_bench", "llama_simple"]:
        if getattr(args, name):
            # They run in a folder of their own.
            setattr(args, name, os.path.abspath(getattr(args, name)))
    steady = Steady(args)
    if args.start:
        # The file is in memory before anything is measured.
        with open(args.start, "rb") as file:
            while file.read(1 << 24):
                pass
    rounds = [steady.round() for _ in range(args.rounds)]
    print("| what | median | least | most |\n|---|---|---|---|")
    for what in rounds[0]:
        values = [found[what] for found in rounds]
        print(f"| {what} | {statistics.median(values):.2f} | {min(values):.2f} | {max(values):.2f} |")


if __name__ == "__main__":
    main()
