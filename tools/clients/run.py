#!/usr/bin/env python3
"""Runs the tests of real clients against a real server.

    tools/clients/run.py --model MODEL.gguf [--model SECOND] [--server target/release/edgellm] [--only NAME ...]

Installs the pinned clients under target/clients (Python's venv, Node's node_modules), starts `edgellm serve` on a free
port, runs each suite and ends with 1 where one failed. What is missing (Node, npm, a browser) is said and skipped.
Models are named by `NAME=PATH` or by the file's stem; the first is the one that the clients ask.
"""

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
INSTALLED = ROOT / "target" / "clients"
VENV = INSTALLED / "venv"
START_SECONDS = 120
STOP_SECONDS = 30

# Name, command, what it needs.
PYTEST = [str(VENV / "bin" / "python"), "-m", "pytest", "-q", "-p", "no:cacheprovider"]
NODE = ["node", "--test"]
SUITES = {
    "openai-python": ([*PYTEST, "openai_python.py"], "python"),
    "openai-node": ([*NODE, "openai_node.test.mjs"], "node"),
    "ollama": ([*PYTEST, "ollama_python.py"], "python"),
    "anthropic": ([*PYTEST, "anthropic_python.py"], "python"),
    "langchain": ([*PYTEST, "langchain_python.py"], "python"),
    "websocket": ([*PYTEST, "websocket_python.py"], "python"),
    "page-modules": ([*NODE, "page/markdown.test.mjs"], "node"),
    "page": ([*NODE, "page/page.mjs"], "browser"),
    "admin-page": ([*NODE, "page/admin.mjs"], "browser"),
    "schema": ([str(VENV / "bin" / "python"), "schema.py"], "python"),
    "schema-access": ([str(VENV / "bin" / "python"), "schema_access.py"], "python"),
}


def run(command: list, **options) -> bool:
    """Whether the command succeeded."""
    return subprocess.run([str(part) for part in command], check=False, **options).returncode == 0


def install_python() -> str | None:
    """Why the Python clients cannot be had, or None."""
    wanted = (HERE / "requirements.txt").read_text()
    stamp = VENV / "installed.txt"
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", HERE / "requirements.txt"]
    if not run([sys.executable, "-m", "venv", "--clear", VENV]) or not run([VENV / "bin" / "python", *quiet]):
        return "the Python clients cannot be installed"
    stamp.write_text(wanted)
    return None


def install_node() -> str | None:
    """Why the clients of Node cannot be had, or None."""
    if not shutil.which("node") or not shutil.which("npm"):
        return "there is no Node with npm"
    wanted = (HERE / "package.json").read_text()
    copy = INSTALLED / "package.json"
    if copy.exists() and copy.read_text() == wanted and (INSTALLED / "node_modules").exists():
        return None
    shutil.copy(HERE / "package.json", copy)
    flags = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error"]
    if not run(["npm", "install", *flags], cwd=INSTALLED):
        copy.unlink()
        return "the clients of Node cannot be installed"
    return None


def browser() -> str | None:
    """Debian's Chromium, or another one that is named in CHROMIUM."""
    return os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def named(model: str) -> tuple[str, str]:
    name, _, path = model.rpartition("=")
    return (name or Path(path).stem, path)


class Server:
    """`edgellm serve` while the block runs."""

    def __init__(self, binary: Path, models: list[tuple[str, str]], flags: list[str]):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.command = [str(binary), "serve", "--host", "127.0.0.1", "--port", str(port), "--no-auth", *flags]
        self.data = tempfile.TemporaryDirectory(prefix="edgellm-clients-")
        self.command += ["--data", self.data.name]
        for name, path in models:
            self.command += ["--model", f"{name}={path}"]

    def __enter__(self):
        print("+", " ".join(self.command), flush=True)
        self.log = open(INSTALLED / "server.log", "w")
        self.process = subprocess.Popen(self.command, stdout=self.log, stderr=self.log)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/ready", timeout=2):
                    return self
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        self.process.kill()
        sys.exit(f"error: the server did not become ready; see {self.log.name}")

    def __exit__(self, *_):
        alive = self.process.poll() is None
        self.process.terminate()
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = "no end within the grace period"
        self.log.close()
        self.data.cleanup()
        self.fault = None if alive and status == 0 else f"the server ended with {status}; see {self.log.name}"


def main() -> int:
    parser = argparse.ArgumentParser(description="Tests of real clients against a real server.")
    parser.add_argument("--model", action="append", required=True, help="[NAME=]PATH; the first one is asked")
    parser.add_argument("--server", type=Path, default=ROOT / "target" / "release" / "edgellm")
    parser.add_argument("--only", nargs="*", choices=SUITES, default=list(SUITES))
    parser.add_argument("--screenshots", type=Path, help="where the pictures of the page go")
    parser.add_argument("--serve-flag", action="append", default=[], help="passed on to edgellm serve")
    arguments = parser.parse_args()

    INSTALLED.mkdir(parents=True, exist_ok=True)
    needs = {SUITES[name][1] for name in arguments.only}
    missing = {"python": install_python() if "python" in needs else None}
    missing["node"] = install_node() if needs & {"node", "browser"} else None
    missing["browser"] = missing["node"] or (None if browser() else "there is no Chromium")

    models = [named(model) for model in arguments.model]
    environment = {**os.environ, "EDGELLM_MODEL": models[0][0], "NODE_MODULES": str(INSTALLED), "PYTHONDONTWRITEBYTECODE": "1"}
    environment["EDGELLM_BINARY"] = str(arguments.server.resolve())
    if browser():
        environment["CHROMIUM"] = browser()
    if arguments.screenshots:
        environment["EDGELLM_SCREENSHOTS"] = str(arguments.screenshots.resolve())

    failed = []
    server = Server(arguments.server, models, arguments.serve_flag)
    with server:
        for name in arguments.only:
            command, need = SUITES[name]
            if missing[need]:
                print(f"-- {name}: skipped: {missing[need]}", flush=True)
                continue
            start = time.monotonic()
            print(f"-- {name}", flush=True)
            if not run(command, cwd=HERE, env={**environment, "EDGELLM_URL": server.url}):
                failed.append(name)
            print(f"-- {name}: {'FAILED' if name in failed else 'ok'} after {time.monotonic() - start:.0f} s", flush=True)
    if server.fault:
        failed.append(server.fault)
    print("clients:", f"failed: {', '.join(failed)}" if failed else "all that ran passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
