#!/usr/bin/env python3
"""Run EdgeLLM and its peers in turns on the same models and print the ratios as Markdown.

    python3 compare.py --edgellm target/release/edgellm --models DIR \\
        [--llama-bench PATH] [--llama-batched-bench PATH] \\
        [--ik-llama-bench PATH] [--ik-llama-batched-bench PATH] \\
        [--bitnet-bench PATH] [--llama2c PATH] \\
        [--threads 2,1] [--rounds 5] [--only bitnet] [--json raw.json]

make_models.sh fills DIR. In every round each engine runs once, one after the other, so that a machine that changes
its speed changes it for all; the table has the medians of the rounds. A peer whose path or model is missing is left
out. The peers' figures are those of their own llama-bench, which chooses no token; EdgeLLM's include choosing it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict

# EdgeLLM's arguments; the peers' models: (name in the table, engine, file, further arguments).
SUITES = {
    "bitnet-2b ternary": (
        ["--synthetic", "bitnet-2b", "--type", "ternary"],
        [
            ("ik_llama IQ2_BN R4", "ik", "bitnet-2b-iq2_bn.gguf", ["-rtr", "1"]),
            ("ik_llama IQ1_BN", "ik", "bitnet-2b-iq1_bn.gguf", []),
            ("llama.cpp TQ2_0", "llama", "bitnet-2b-tq2_0.gguf", []),
            ("llama.cpp TQ1_0", "llama", "bitnet-2b-tq1_0.gguf", []),
            ("bitnet.cpp I2_S", "bitnet", "bitnet-2b-i2_s.gguf", []),
        ],
    ),
    "stories110m ternary": (
        ["--synthetic", "stories110m", "--type", "ternary"],
        [
            ("ik_llama IQ2_BN R4", "ik", "stories110m-iq2_bn.gguf", ["-rtr", "1"]),
            ("ik_llama IQ2_BN", "ik", "stories110m-iq2_bn.gguf", []),
            ("llama.cpp TQ2_0", "llama", "stories110m-tq2_0.gguf", []),
        ],
    ),
    "bitnet-2b int4": (
        ["--synthetic", "bitnet-2b", "--type", "int4"],
        [
            ("llama.cpp Q4_0", "llama", "bitnet-2b-q4_0.gguf", []),
            ("ik_llama Q4_0", "ik", "bitnet-2b-q4_0.gguf", []),
            ("ik_llama Q4_0 R8", "ik", "bitnet-2b-q4_0.gguf", ["-rtr", "1"]),
        ],
    ),
    "smollm-135m int4": (
        ["smollm-135m-q4_1.gguf"],
        [
            ("llama.cpp Q4_1", "llama", "smollm-135m-q4_1.gguf", []),
            ("ik_llama Q4_1", "ik", "smollm-135m-q4_1.gguf", []),
        ],
    ),
    "stories110m f32": (
        ["--synthetic", "stories110m", "--type", "f32"],
        [
            ("llama.cpp F32", "llama", "stories110m-f32.gguf", []),
            ("ik_llama F32", "ik", "stories110m-f32.gguf", []),
            ("llama2.c run", "llama2c", "stories110m.bin", []),
        ],
    ),
    "llama-1b f16": (
        ["--synthetic", "llama-1b", "--type", "f16"],
        [
            ("llama.cpp F16", "llama", "llama-1b-f16.gguf", []),
            ("ik_llama F16", "ik", "llama-1b-f16.gguf", []),
        ],
    ),
}
OURS = "EdgeLLM"
PROMPTS = [128, 512]
DECODES = [128]
SEQUENCES = [1, 8]


def run(command):
    """Standard output, standard error and the peak memory in MB of a command."""
    # Some of them leave a log where they run.
    with tempfile.TemporaryFile("w+") as errors_file, tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors_file, text=True, cwd=folder)
        text = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        errors_file.seek(0)
        errors = errors_file.read()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{errors[-2000:]}")
    return text, errors, usage.ru_maxrss * 1024 / 1e6


class Runner:
    def __init__(self, args):
        self.args = args
        self.bench = {"llama": args.llama_bench, "ik": args.ik_llama_bench, "bitnet": args.bitnet_bench}
        self.batched = {"llama": args.llama_batched_bench, "ik": args.ik_llama_batched_bench}

    def file(self, name):
        return os.path.join(self.args.models, name)

    def can(self, engine, name):
        tool = self.args.llama2c if engine == "llama2c" else self.bench.get(engine)
        return bool(tool) and os.path.exists(self.file(name))

    def ours(self, model, threads, batches):
        model = [self.file(part) if part.endswith(".gguf") else part for part in model]
        command = [self.args.edgellm, "benchmark", *model, "--threads", str(threads), "--repeat", "1", "--json"]
        command += ["--prompt-lengths", ",".join(map(str, PROMPTS)), "--decode-lengths", ",".join(map(str, DECODES))]
        if batches:
            command += ["--batch-sizes", ",".join(map(str, SEQUENCES))]
        text, _, _ = run(command + self.args.edgellm_args)
        report = json.loads(text)
        found = {f"prefill {n}": report["prefill_tok_s"][str(n)] for n in PROMPTS}
        found |= {f"decode {n}": report["decode_tok_s"][str(n)] for n in DECODES}
        if batches:
            found |= {f"{n} sequences": report["batch_tok_s"][str(n)] for n in SEQUENCES if n > 1}
        found["peak MB"] = report["peak_rss_mb"]
        found["GB/s"] = report["read_bandwidth_gb_s"]
        return found

    def peer(self, engine, name, extra, threads, batches):
        if engine == "llama2c":
            return self.llama2c(name, threads)
        model = ["-m", self.file(name), "-t", str(threads)]
        lengths = ["-p", ",".join(map(str, PROMPTS)), "-n", ",".join(map(str, DECODES))]
        text, _, peak = run([self.bench[engine], *model, *lengths, "-r", "1", "-o", "json", *extra])
        found = {"peak MB": peak}
        for entry in json.loads(text[text.index("[") :]):
            kind, n = ("decode", entry["n_gen"]) if entry["n_gen"] else ("prefill", entry["n_prompt"])
            found[f"{kind} {n}"] = entry["avg_ts"]
        if batches and self.batched.get(engine):
            repack = ["-rtr"] if "-rtr" in extra else []
            sequences = ",".join(str(n) for n in SEQUENCES if n > 1)
            sizes = ["-c", "4096", "-npp", "16", "-ntg", "128", "-npl", sequences]
            text, errors, _ = run([self.batched[engine], *model, *repack, *sizes])
            for line in (text + errors).splitlines():
                # | PP | TG | B | N_KV | T_PP s | S_PP t/s | T_TG s | S_TG t/s | T s | S t/s |
                cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
                if len(cells) == 10 and cells[0] == "16":
                    found[f"{cells[2]} sequences"] = float(cells[7])
        return found

    def llama2c(self, name, threads):
        os.environ["OMP_NUM_THREADS"] = str(threads)
        _, errors, peak = run([self.args.llama2c, self.file(name), "-z", self.file("tokenizer.bin"), "-t", "0", "-n", "129"])
        return {"decode 128": float(re.search(r"tok/s: ([\d.]+)", errors)[1]), "peak MB": peak}


def measure(runner, suite, threads, rounds):
    """engine -> measure -> values, one a round."""
    model, peers = SUITES[suite]
    peers = [peer for peer in peers if runner.can(peer[1], peer[2])]
    batches = suite == "bitnet-2b ternary" and runner.args.batches
    values = defaultdict(lambda: defaultdict(list))
    for done in range(rounds):
        print(f"{suite}, {threads} threads, round {done + 1} of {rounds}", file=sys.stderr)
        for name, found in [(OURS, runner.ours(model, threads, batches))] + [
            (name, runner.peer(engine, file, extra, threads, batches)) for name, engine, file, extra in peers
        ]:
            for what, value in found.items():
                values[name][what].append(value)
    return values


def table(suite, threads, values):
    """Markdown: a row for each measure, a column for each engine, ours over the best of the others at the end."""
    medians = {name: {what: statistics.median(v) for what, v in found.items()} for name, found in values.items()}
    peers = [name for name in medians if name != OURS]
    rows = [f"### {suite}, {threads} thread{'s' if threads > 1 else ''}", ""]
    rows.append("| tokens/s | " + " | ".join([OURS, *peers]) + " | to the best peer |")
    rows.append("|---|" + "---|" * (len(peers) + 2))
    for what, own in medians[OURS].items():
        others = {name: medians[name][what] for name in peers if what in medians[name]}
        cells = [f"{medians[name][what]:.1f}" if what in medians[name] else "-" for name in [OURS, *peers]]
        if not others:
            ratio = "-"
        elif what == "peak MB":
            ratio = f"{own / min(others.values()):.2f} x"
        else:
            ratio = f"**{own / max(others.values()):.2f} x**"
        rows.append(f"| {what} | " + " | ".join(cells) + f" | {ratio} |")
    return "\n".join(rows) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--edgellm", required=True)
    parser.add_argument("--edgellm-args", type=str.split, default=[], help="further arguments, as '--kernel lookup'")
    parser.add_argument("--models", required=True)
    for tool in ["llama-bench", "llama-batched-bench", "ik-llama-bench", "ik-llama-batched-bench", "bitnet-bench", "llama2c"]:
        parser.add_argument(f"--{tool}")
    parser.add_argument("--threads", default="2,1")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="suites whose name contains this")
    parser.add_argument("--batches", action="store_true", help="also several sequences together")
    parser.add_argument("--json", help="write all values here")
    args = parser.parse_args()
    for name, value in vars(args).items():
        # They run in a folder of their own.
        if isinstance(value, str) and os.path.exists(value):
            setattr(args, name, os.path.abspath(value))
    runner = Runner(args)
    raw = {}
    for suite in SUITES:
        if args.only not in suite:
            continue
        for threads in map(int, args.threads.split(",")):
            values = measure(runner, suite, threads, args.rounds)
            raw[f"{suite}, {threads}"] = values
            print(table(suite, threads, values), flush=True)
    if args.json:
        with open(args.json, "w") as file:
            json.dump(raw, file, indent=1)


if __name__ == "__main__":
    main()
