#!/usr/bin/env python3
"""Runs llama.cpp's server tests against `edgellm serve`.

    tools/clients/llama_server_tests/run.py SUITE --stories stories260K.gguf [--long MODEL] [--report FILE.md] [PYTEST ARGUMENT ...]

SUITE is llama.cpp's folder tools/server/tests, as the source package of llama-cpp-python has it; it is copied to
target/clients and stays outside of this repository. shim.py stands in for llama-server; not_applicable.py says which
cases are not asked and why. Ends with 1 when fewer than --at-least portable cases pass.
"""

import argparse
import collections
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from run import INSTALLED, ROOT, free_port, run  # noqa: E402

VENV = INSTALLED / "llama-server-tests-venv"
COPY = INSTALLED / "llama-server-tests" / "tools" / "server" / "tests"


def install() -> None:
    """Python with what the suite needs."""
    wanted = (HERE / "requirements.txt").read_text()
    stamp = VENV / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
    if not run([sys.executable, "-m", "venv", "--clear", VENV]) or not run([VENV / "bin" / "python", *quiet]):
        sys.exit("error: what the suite needs cannot be installed")
    stamp.write_text(wanted)


def copy(suite: Path) -> None:
    """The suite and the chat templates that it looks for three folders above."""
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(suite, COPY)
    templates = suite.resolve().parents[2] / "models" / "templates"
    link = COPY.parents[2] / "models" / "templates"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(templates)


def report(results: dict, path: Path | None) -> int:
    """Prints the list, writes it as Markdown, and returns how many portable cases passed."""
    counts = collections.Counter(outcome for outcome, _ in results.values())
    lines = [
        "# llama.cpp's server tests",
        "",
        "What became of each case of llama.cpp's own tests of `llama-server` when `edgellm serve` stood in its place. Written by",
        "`tools/clients/llama_server_tests/run.py`, which says how to repeat it. Not applicable is what cannot be asked of another",
        "server, each with its reason; \"but for the drawn text\" is a case whose every other assertion is checked: llama.cpp's generator of",
        "random numbers draws its texts.",
        "",
        "| outcome | cases |",
        "|---|---|",
        *(f"| {outcome} | {counts[outcome]} |" for outcome in ("passed", "failed", "not applicable")),
        "",
        "| case | outcome | |",
        "|---|---|---|",
    ]
    shown: dict[tuple[str, str, str], int] = collections.Counter()
    for name, (outcome, reason) in results.items():
        case = name.removeprefix("unit/")
        # Cases that are not asked, and those that passed, are counted by test.
        shown[(case if outcome == "failed" else case.split("[")[0], outcome, reason)] += 1
    for (case, outcome, reason), number in shown.items():
        cases = f" ({number} cases)" if number > 1 else ""
        lines.append(f"| `{case}`{cases} | {outcome} | {reason} |".replace("\n", " "))
    if path:
        path.write_text("\n".join(lines) + "\n")
    for name, (outcome, reason) in results.items():
        if outcome == "failed":
            print(f"failed: {name}: {reason}")
    print(", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "not applicable")))
    return counts["passed"]


def main() -> int:
    parser = argparse.ArgumentParser(description="llama.cpp's server tests against edgellm serve.")
    parser.add_argument("suite", type=Path)
    parser.add_argument("--server", type=Path, default=ROOT / "target" / "release" / "edgellm")
    parser.add_argument("--stories", type=Path, required=True, help="stories260K as GGUF")
    parser.add_argument("--long", type=Path, help="a model with a longer context, also for vectors; stories260K unless given")
    parser.add_argument("--at-least", type=int, default=90)
    parser.add_argument("--report", type=Path)
    arguments, rest = parser.parse_known_args()

    install()
    copy(arguments.suite)
    results = INSTALLED / "llama-server-tests.json"
    results.unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(HERE),
        "PYTHONDONTWRITEBYTECODE": "1",
        "LLAMA_SERVER_BIN_PATH": str(HERE / "shim.py"),
        "EDGELLM_BIN": str(arguments.server.resolve()),
        "EDGELLM_STORIES": str(arguments.stories.resolve()),
        "EDGELLM_LONG": str((arguments.long or arguments.stories).resolve()),
        "EDGELLM_RESULTS": str(results),
        "PORT": str(free_port()),
    }
    command = [VENV / "bin" / "python", "-m", "pytest", "-q", "-p", "plugin", "-p", "no:cacheprovider", "--tb=no", "-rN", *rest]
    subprocess.run([str(part) for part in command], cwd=COPY, env=environment, check=False)
    if not results.exists():
        sys.exit("error: the suite did not run")
    passed = report(json.loads(results.read_text()), arguments.report)
    return 0 if passed >= arguments.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
