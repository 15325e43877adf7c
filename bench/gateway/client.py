"""A server of one's own and an asynchronous HTTP client that takes the time of every event."""

import asyncio
import json
import os
import signal
import subprocess
import time
import urllib.request


class Server:
    """A process that serves on a port, and is gone at the end."""

    def __init__(self, command, port, ready="/ready", env=None):
        self.port = port
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
        for _ in range(1200):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=1).read()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(f"{command}: ended with {self.process.returncode}")
                time.sleep(0.1)
        raise SystemExit(f"{command}: not ready")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """SIGTERM, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait()

    def metrics(self):
        """Name to value, labels aside."""
        text = urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics").read().decode()
        lines = [line.rsplit(" ", 1) for line in text.splitlines() if line and line[0] != "#"]
        return {name.split("{")[0].removeprefix("edgellm_"): float(value) for name, value in lines}

    def resident(self):
        """Resident memory in bytes."""
        with open(f"/proc/{self.process.pid}/status") as status:
            line = next(line for line in status if line.startswith("VmRSS"))
        return int(line.split()[1]) * 1024

    def cpu(self):
        """Seconds of processor time so far."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def connect(port):
    return await asyncio.open_connection("127.0.0.1", port, limit=1 << 22)


def send(writer, path, body, key=None):
    body = json.dumps(body).encode()
    authorization = f"authorization: Bearer {key}\r\n" if key else ""
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\n{authorization}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)


async def head(reader):
    """Status and headers of an answer."""
    lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), headers


async def chunks(reader):
    """The chunks of a body."""
    while True:
        length = int(await reader.readline(), 16)
        data = await reader.readexactly(length + 2)
        if length == 0:
            return
        yield data[:-2]


async def whole(reader, headers):
    if "content-length" in headers:
        return await reader.readexactly(int(headers["content-length"]))
    return b"".join([chunk async for chunk in chunks(reader)])


async def ask(port, path, body):
    """A whole answer: status, headers, body."""
    reader, writer = await connect(port)
    send(writer, path, body)
    status, headers = await head(reader)
    data = await whole(reader, headers)
    writer.close()
    return status, headers, data


async def stream(port, body, path="/v1/completions"):
    """A streamed answer: status, when it was asked, the time of every event with text, and the text."""
    reader, writer = await connect(port)
    asked = time.perf_counter()
    send(writer, path, dict(body, stream=True))
    status, headers = await head(reader)
    if status != 200:
        await whole(reader, headers)
        writer.close()
        return {"status": status, "headers": headers, "asked": asked, "times": [], "text": "", "done": False}
    times, text, done = [], "", False
    pending = b""
    async for chunk in chunks(reader):
        now = time.perf_counter()
        pending += chunk
        *lines, pending = pending.split(b"\n")
        for line in lines:
            if line == b"data: [DONE]":
                done = True
            elif line.startswith(b"data: "):
                choices = json.loads(line[6:]).get("choices") or [{}]
                piece = choices[0].get("text") or (choices[0].get("delta") or {}).get("content") or ""
                if piece:
                    times.append(now)
                    text += piece
    writer.close()
    return {"status": 200, "headers": headers, "asked": asked, "times": times, "text": text, "done": done}


def gaps(result):
    """Seconds between the events of a stream."""
    return [b - a for a, b in zip(result["times"], result["times"][1:])]


def percentile(values, percent):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * percent / 100))]
