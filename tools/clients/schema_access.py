"""schemathesis on a server of its own that asks for keys: as an admin, as a user, and as nobody. No server errors, every answer as
the description says, and no route that takes a wrong key."""

import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

BINARY = os.environ["EDGELLM_BINARY"]
HERE = Path(__file__).resolve().parent
START_SECONDS = 60


def key(env: dict, *options: str) -> str:
    command = [BINARY, "keys", "create", *options]
    return subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="edgellm-schema-") as folder:
        env = {**os.environ, "DATABASE_URL": str(Path(folder) / "gateway.db")}
        callers = {"admin": key(env, "--role", "admin"), "user": key(env, "--owner", "user"), "nobody": ""}
        # One that is shown to anybody who may see a list of keys.
        key(env, "--owner", "somebody else")
        command = [BINARY, "serve", "--model", "null", "--port", "0", "--data", str(Path(folder) / "files")]
        server = subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True)
        try:
            url = next(line for line in server.stderr if " at http" in line).rsplit(" at ", 1)[1].strip()
            end = time.monotonic() + START_SECONDS
            while time.monotonic() < end:
                try:
                    urllib.request.urlopen(f"{url}/ready", timeout=1).read()
                    break
                except OSError:
                    time.sleep(0.05)
            description = Path(folder) / "openapi.json"
            request = urllib.request.Request(f"{url}/openapi.json", headers={"x-api-key": callers["admin"]})
            description.write_bytes(urllib.request.urlopen(request).read())
            failed = []
            for who, secret in callers.items():
                print(f"-- as {who}", flush=True)
                asked = {**env, "EDGELLM_URL": url, "EDGELLM_KEY": secret, "EDGELLM_DESCRIPTION": str(description)}
                if subprocess.run([sys.executable, "schema.py"], cwd=HERE, env=asked, check=False).returncode != 0:
                    failed.append(who)
        finally:
            server.terminate()
            server.wait()
        print("schema with keys:", f"failed: {', '.join(failed)}" if failed else "all passed")
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
