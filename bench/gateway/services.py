"""A Redis and a PostgreSQL of one's own, that can be stopped and begun again."""

import glob
import os
import shutil
import socket
import subprocess
import tempfile
import time


def wait_for(port):
    for _ in range(600):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"nothing comes up on port {port}")


class Redis:
    """In memory: it forgets when it is stopped."""

    def __init__(self, port):
        self.port = port
        self.url = f"redis://127.0.0.1:{port}"
        self.start()

    def start(self):
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_for(self.port)

    def stop(self):
        self.process.kill()
        self.process.wait()


class Postgres:
    """In a folder; as the user postgres where we are root, as which it does not run."""

    def __init__(self, port):
        self.port = port
        self.url = f"postgres://bench@127.0.0.1:{port}/postgres"
        self.programs = sorted(glob.glob("/usr/lib/postgresql/*/bin"))[-1]
        self.folder = tempfile.TemporaryDirectory(prefix="edgellm-postgres-")
        self.data = os.path.join(self.folder.name, "data")
        self.user = "postgres" if os.getuid() == 0 else None
        if self.user:
            shutil.chown(self.folder.name, self.user)
        self.run("initdb", "-U", "bench", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
        self.start()

    def run(self, program, *options):
        command = [os.path.join(self.programs, program), "-D", self.data, *options]
        subprocess.run(command, check=True, user=self.user, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def start(self):
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories="
        self.run("pg_ctl", "-o", options, "-w", "-l", "/dev/null", "start")

    def stop(self):
        self.run("pg_ctl", "-m", "immediate", "-w", "stop")
