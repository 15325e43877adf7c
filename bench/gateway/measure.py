"""Measures the server: `python3 bench/gateway/measure.py [ROW ...]`, all rows by default.

Rows: overhead, access, peers, soak, outage, statistics, batching, long-prompt, jitter, prefix, overload, cancel, drain. EDGELLM names the binary
(target/release/edgellm), SMOLLM2 a GGUF file of SmolLM2-135M, LLAMA_SERVER llama.cpp's server for the row of jitter, PEERS a Python
environment with fastapi, uvicorn[standard] and litellm[proxy] for the row of peers, SOAK_MINUTES the length of soak (30).
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

import services
from client import Server, ask, chunks, connect, gaps, head, percentile, send, stream, whole

EDGELLM = os.environ.get("EDGELLM", "target/release/edgellm")
SMOLLM2 = os.environ.get("SMOLLM2", "target/models/smollm2-135m-instruct-q4_1.gguf")
LLAMA_SERVER = os.environ.get("LLAMA_SERVER")
PORT = int(os.environ.get("PORT", "18080"))


def edgellm(model, *options):
    command = [EDGELLM, "serve", "--model", model, "--port", str(PORT), "--no-auth", "--threads", "2", *options]
    return Server(command, PORT)


def ids(n, seed):
    return [300 + (i * 31 + seed * 7919 + i * i) % 20000 for i in range(n)]


def greedy(prompt, n):
    return {"prompt": prompt, "max_tokens": n, "temperature": 0, "ignore_eos": True}


def show(row, **figures):
    print(json.dumps({"row": row, **{k: round(v, 4) if isinstance(v, float) else v for k, v in figures.items()}}), flush=True)


async def overhead():
    """One client on the null backend: time from request to answer beyond an empty route, and events of one stream."""
    with edgellm("null") as server:
        reader, writer = await connect(PORT)

        async def times(path, body, n):
            seconds = []
            for _ in range(n):
                before = time.perf_counter()
                send(writer, path, body)
                _, headers = await head(reader)
                await whole(reader, headers)
                seconds.append(time.perf_counter() - before)
            return seconds

        body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        await times("/v1/chat/completions", body, 200)
        bare = await times("/nothing", body, 3000)
        chat = await times("/v1/chat/completions", body, 3000)
        before = server.cpu()
        await times("/v1/chat/completions", body, 5000)
        cpu = server.cpu() - before
        n = 200000
        send(writer, "/v1/chat/completions", dict(body, max_tokens=n, stream=True))
        before, started = server.cpu(), time.perf_counter()
        await head(reader)
        events = 0
        async for chunk in chunks(reader):
            events += chunk.count(b"data: ")
        show(
            "overhead",
            p50_ms=percentile(chat, 50) * 1e3,
            p50_empty_route_ms=percentile(bare, 50) * 1e3,
            added_p50_ms=(percentile(chat, 50) - percentile(bare, 50)) * 1e3,
            requests_per_cpu_second=5000 / max(cpu, 0.01),
            events=events,
            events_per_cpu_second=events / max(server.cpu() - before, 0.01),
            events_per_second=events / (time.perf_counter() - started),
            resident_mb=server.resident() / 1e6,
        )


class Guarded:
    """A server that asks who is there, on a database of its own, and a key with limits that are never reached."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="edgellm-bench-")
        self.database = os.path.join(self.folder.name, "gateway.db")
        self.env = dict(os.environ, DATABASE_URL=self.database)
        limits = ["--requests-per-minute", "1000000000", "--tokens-per-minute", "1000000000", "--requests-per-day", "1000000000"]
        self.key = self.new_key("--parallel-requests", "100000", *limits)

    def new_key(self, *options):
        command = [EDGELLM, "keys", "create", *options]
        return subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout.strip()

    def server(self, *options):
        return Server([EDGELLM, "serve", "--model", "null", "--port", str(PORT), *options], PORT, env=self.env)


async def access():
    """Keys, limits, usage and metrics on, the null backend: what a request costs, alone and beside 63 others."""
    guarded = Guarded()
    body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    with guarded.server("--parallel", "256", "--queue", "256") as server:

        async def client(path, n, key):
            reader, writer = await connect(PORT)
            seconds = []
            for _ in range(n):
                before = time.perf_counter()
                send(writer, path, body, key)
                status, headers = await head(reader)
                await whole(reader, headers)
                seconds.append(time.perf_counter() - before)
                assert status == (200 if path.startswith("/v1") else 404), status
            writer.close()
            return seconds

        await client("/v1/chat/completions", 300, guarded.key)
        bare = await client("/nothing", 3000, guarded.key)
        chat = await client("/v1/chat/completions", 3000, guarded.key)
        figures = {}
        for clients in (1, 64):
            n = 20000 // clients
            before, started = server.cpu(), time.perf_counter()
            await asyncio.gather(*(client("/v1/chat/completions", n, guarded.key) for _ in range(clients)))
            cpu, seconds = server.cpu() - before, time.perf_counter() - started
            figures |= {
                f"requests_per_cpu_second_{clients}": n * clients / max(cpu, 0.01),
                f"requests_per_second_{clients}": n * clients / seconds,
            }
        show(
            "access",
            p50_ms=percentile(chat, 50) * 1e3,
            added_p50_ms=(percentile(chat, 50) - percentile(bare, 50)) * 1e3,
            resident_mb=server.resident() / 1e6,
            **figures,
        )


async def chats(port, key, clients, n, model="null"):
    """So many chats of one token by each client; seconds of each chat."""
    body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}

    async def client():
        reader, writer = await connect(port)
        seconds = []
        for _ in range(n):
            before = time.perf_counter()
            send(writer, "/v1/chat/completions", body, key)
            status, headers = await head(reader)
            data = await whole(reader, headers)
            seconds.append(time.perf_counter() - before)
            assert status == 200, (status, data)
        writer.close()
        return seconds

    return [second for seconds in await asyncio.gather(*(client() for _ in range(clients))) for second in seconds]


LITELLM = """
model_list:
  - model_name: "null"
    litellm_params: {model: openai/null, api_key: none, mock_response: "a"}
general_settings: {master_key: sk-bench}
"""


async def peers():
    """The same chats with a key behind this server, FastAPI (fastapi_app.py, before a model elsewhere as a gateway is, and with a
    fixed answer) and LiteLLM's proxy (with a fixed answer of its own), in turns."""
    guarded = Guarded()
    programs = os.path.join(os.environ["PEERS"], "bin")
    here = os.path.dirname(os.path.abspath(__file__))
    config = os.path.join(guarded.folder.name, "litellm.yaml")
    with open(config, "w") as file:
        file.write(LITELLM)
    env = dict(os.environ, GATEWAY_KEY="sk-bench", GATEWAY_DATABASE=os.path.join(guarded.folder.name, "fastapi.db"))
    fixed = dict(env, GATEWAY_DATABASE=os.path.join(guarded.folder.name, "fixed.db"))
    env["GATEWAY_UPSTREAM"] = f"http://127.0.0.1:{PORT + 3}"
    fastapi = [f"{programs}/uvicorn", "--app-dir", here, "--no-access-log", "fastapi_app:app", "--port"]
    upstream = [EDGELLM, "serve", "--model", "null", "--port", str(PORT + 3), "--no-auth", "--parallel", "256", "--queue", "256"]
    litellm = [f"{programs}/litellm", "--config", config, "--port", str(PORT + 2)]
    with (
        guarded.server("--parallel", "256", "--queue", "256") as ours,
        Server(upstream, PORT + 3),
        Server([*fastapi, str(PORT + 1)], PORT + 1, env=env) as plain,
        Server([*fastapi, str(PORT + 4)], PORT + 4, env=fixed) as bare,
        Server(litellm, PORT + 2, ready="/health/liveliness", env=env) as proxy,
    ):
        contestants = {
            "edgellm": (ours, guarded.key, 2000),
            "fastapi": (plain, "sk-bench", 100),
            "fastapi_fixed": (bare, "sk-bench", 200),
            "litellm": (proxy, "sk-bench", 20),
        }
        for server, key, n in contestants.values():
            await chats(server.port, key, 16, max(5, n // 20))
        costs, alone = {name: [] for name in contestants}, {name: [] for name in contestants}
        for _ in range(3):
            for name, (server, key, n) in contestants.items():
                before = server.cpu()
                await chats(server.port, key, 16, n)
                costs[name].append(16 * n / max(server.cpu() - before, 0.01))
                alone[name] += await chats(server.port, key, 1, n)
        per_cpu = {name: percentile(values, 50) for name, values in costs.items()}
        show(
            "peers",
            **{f"{name}_requests_per_cpu_second": value for name, value in per_cpu.items()},
            **{f"{name}_p50_ms": percentile(values, 50) * 1e3 for name, values in alone.items()},
            **{f"{name}_resident_mb": server.resident() / 1e6 for name, (server, _, _) in contestants.items()},
            times_fastapi=per_cpu["edgellm"] / per_cpu["fastapi"],
            times_litellm=per_cpu["edgellm"] / per_cpu["litellm"],
        )


async def soak():
    """Half load for SOAK_MINUTES: 16 clients who pause, streams and chats, some of which leave early; memory and descriptors."""
    guarded = Guarded()
    seconds = 60 * float(os.environ.get("SOAK_MINUTES", "30"))
    with guarded.server("--parallel", "32", "--queue", "64") as server:
        end, answered = time.monotonic() + seconds, [0]
        samples = []

        async def client(i):
            n = 0
            while time.monotonic() < end:
                n += 1
                kind = (i + n) % 4
                reader, writer = await connect(PORT)
                body = {"messages": [{"role": "user", "content": f"Hi {n}"}], "max_tokens": 20 + n % 30, "stream": kind > 0}
                if kind == 3:
                    body["max_tokens"] = 100_000
                send(writer, "/v1/chat/completions", body, guarded.key)
                status, headers = await head(reader)
                assert status == 200, status
                if kind == 3:
                    # It leaves in the middle.
                    await reader.readexactly(100)
                elif kind:
                    async for _ in chunks(reader):
                        pass
                else:
                    await whole(reader, headers)
                writer.close()
                answered[0] += 1
                await asyncio.sleep(0.05)

        async def watch():
            while time.monotonic() < end:
                await asyncio.sleep(seconds / 60)
                files = len(os.listdir(f"/proc/{server.process.pid}/fd"))
                samples.append((server.resident() / 1e6, files))

        before, started = server.cpu(), time.monotonic()
        await asyncio.gather(watch(), *(client(i) for i in range(16)))
        share = (server.cpu() - before) / (time.monotonic() - started)
        await asyncio.sleep(2)
        # The first tenth is the warm-up.
        memory = [megabytes for megabytes, _ in samples[len(samples) // 10 :]]
        show(
            "soak",
            minutes=seconds / 60,
            requests=answered[0],
            processors=share,
            first_mb=memory[0],
            last_mb=memory[-1],
            most_mb=max(memory),
            growth=memory[-1] / memory[0] - 1,
            files_first=samples[len(samples) // 10][1],
            files_at_rest=len(os.listdir(f"/proc/{server.process.pid}/fd")),
        )


async def outage():
    """Redis and PostgreSQL are gone for 10 of 30 seconds under 8 clients: what clients see, and whether the usage that is written
    is that of the answers."""
    redis, postgres = services.Redis(PORT + 5), services.Postgres(PORT + 6)
    folder = tempfile.TemporaryDirectory(prefix="edgellm-bench-")
    env = dict(os.environ, DATABASE_URL=postgres.url, REDIS_URL=redis.url, XDG_DATA_HOME=folder.name)
    command = [EDGELLM, "keys", "create", "--requests-per-minute", "1000000"]
    try:
        key = subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout.strip()
        with Server([EDGELLM, "serve", "--model", "null", "--port", str(PORT)], PORT, env=env):
            body = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}
            end, statuses, slowest = time.monotonic() + 30, {}, [0.0]

            async def client():
                while time.monotonic() < end:
                    before = time.monotonic()
                    reader, writer = await connect(PORT)
                    send(writer, "/v1/chat/completions", body, key)
                    status, headers = await head(reader)
                    await whole(reader, headers)
                    writer.close()
                    statuses[status] = statuses.get(status, 0) + 1
                    slowest[0] = max(slowest[0], time.monotonic() - before)
                    await asyncio.sleep(0.02)

            async def interrupt():
                await asyncio.sleep(10)
                for service in (redis, postgres):
                    await asyncio.to_thread(service.stop)
                await asyncio.sleep(10)
                for service in (redis, postgres):
                    await asyncio.to_thread(service.start)

            await asyncio.gather(interrupt(), *(client() for _ in range(8)))
            request = urllib.request.Request(f"http://127.0.0.1:{PORT}/api/stats", headers={"x-api-key": key})
            stats = json.load(await asyncio.to_thread(urllib.request.urlopen, request))
            health = json.load(await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{PORT}/health"))
        show(
            "outage",
            statuses=statuses,
            slowest_ms=slowest[0] * 1e3,
            written=stats["requests"],
            completion_tokens=stats["completion_tokens"],
            health={name: health.get(name) for name in ("database", "redis")},
        )
    finally:
        redis.stop()
        postgres.stop()


async def statistics():
    """Time of the answers about 1,000,000 records of 100 keys, 3 models and 30 days."""
    guarded = Guarded()
    admin = guarded.new_key("--role", "admin")
    with guarded.server():
        pass
    database = sqlite3.connect(guarded.database)
    today = int(time.time()) // 86400
    n, keys, models, days = 1_000_000, 100, 3, 30
    rows = (
        (f"r{i}", (today - i % days) * 86400000 + i, f"key{i * 7919 % keys}", f"owner{i * 7919 % keys % 20}", f"m{i % models}",
         "/v1/chat/completions", 200 if i % 100 else 429, 10, 2, 20, 1000 * (1 + i * 31 % 5000))
        for i in range(n)
    )
    database.executemany("INSERT INTO usage_records VALUES (?,?,?,?,?,?,?,?,?,?,?)", rows)
    database.execute(
        "INSERT INTO usage_days SELECT at / 86400000, subject, owner, model, endpoint, COUNT(*), SUM(status >= 400), "
        "SUM(prompt_tokens), SUM(cached_tokens), SUM(completion_tokens) FROM usage_records GROUP BY 1, 2, 3, 4, 5"
    )
    # As many buckets as times that differ by an eighth of a doubling.
    database.execute(
        "INSERT INTO usage_latency SELECT at / 86400000, subject, owner, model, CAST(8 * log2(micros) AS INTEGER), COUNT(*) "
        "FROM usage_records WHERE status < 400 GROUP BY 1, 2, 3, 4, 5"
    )
    database.commit()
    database.close()
    with guarded.server():
        figures = {}
        for name in ("stats", "stats/detailed", "admin/stats"):
            seconds = []
            for _ in range(7):
                request = urllib.request.Request(f"http://127.0.0.1:{PORT}/api/{name}", headers={"x-api-key": admin})
                before = time.perf_counter()
                answer = json.load(urllib.request.urlopen(request))
                seconds.append(time.perf_counter() - before)
            figures[f"{name}_p50_ms".replace("/", "_")] = percentile(seconds, 50) * 1e3
            figures[f"{name}_max_ms".replace("/", "_")] = max(seconds) * 1e3
        show("statistics", records=answer["totals"]["requests"], **figures)


async def batching():
    """Tokens a second of one stream and of eight on BitNet 2B's shape, and whether each text is that of its stream alone."""
    with edgellm("synthetic:bitnet-2b") as server:
        n = 48
        prompts = [ids(16, i) for i in range(8)]
        alone = [await stream(PORT, greedy(prompt, n)) for prompt in prompts]
        one = [n / (result["times"][-1] - result["times"][0]) for result in alone]
        together = await asyncio.gather(*(stream(PORT, greedy(prompt, n)) for prompt in prompts))
        # While all eight run: from the last first token to the first last one.
        start = max(result["times"][0] for result in together)
        end = min(result["times"][-1] for result in together)
        tokens = sum(sum(start < t <= end for t in result["times"]) for result in together)
        eight = tokens / (end - start)
        show(
            "batching",
            one_tok_s=percentile(one, 50),
            eight_tok_s=eight,
            ratio=eight / percentile(one, 50),
            equal=all(a["text"] == b["text"] for a, b in zip(alone, together)),
        )


async def long_prompt():
    """Time between tokens of four streams while a prompt of 4096 tokens is read, and before."""
    with edgellm("synthetic:bitnet-2b", "--context", "8192") as server:
        async def others(n):
            return await asyncio.gather(*(stream(PORT, greedy(ids(16, i), n)) for i in range(4)))

        normal = [gap for result in await others(60) for gap in gaps(result)]
        running = asyncio.create_task(others(400))
        await asyncio.sleep(3)
        asked = time.perf_counter()
        prompt = await stream(PORT, greedy(ids(4096, 99), 1))
        first = prompt["times"][0]
        results = await running
        during = [b - a for r in results for a, b in zip(r["times"], r["times"][1:]) if a >= asked and b <= first]
        show(
            "long prompt",
            normal_p50_ms=percentile(normal, 50) * 1e3,
            normal_p99_ms=percentile(normal, 99) * 1e3,
            during_p99_ms=percentile(during, 99) * 1e3,
            ratio=percentile(during, 99) / percentile(normal, 50),
            gaps=len(during),
            prompt_s=first - asked,
        )


async def one_stream(port, n):
    body = {"messages": [{"role": "user", "content": "Tell me a long story."}], "max_tokens": n, "temperature": 0}
    return gaps(await stream(port, body, "/v1/chat/completions"))


async def jitter():
    """Time between tokens of one stream, ours and llama-server's in turn."""
    other = PORT + 1
    servers = [edgellm(SMOLLM2)]
    if LLAMA_SERVER:
        command = [LLAMA_SERVER, "-m", SMOLLM2, "--port", str(other), "-t", "2", "-np", "1", "--no-webui"]
        servers.append(Server(command, other, "/health"))
    ours, theirs = [], []
    for _ in range(4):
        ours += await one_stream(PORT, 200)
        if LLAMA_SERVER:
            theirs += await one_stream(other, 200)
    for server in servers:
        server.stop()
    figures = {}
    for name, values in (("edgellm", ours), ("llama_server", theirs)):
        if values:
            p50, p99 = percentile(values, 50) * 1e3, percentile(values, 99) * 1e3
            figures |= {f"{name}_p50_ms": p50, f"{name}_p99_minus_p50_ms": p99 - p50}
    show("jitter", **figures)


async def prefix():
    """Time to the first token of two requests with the same system prompt of 2048 tokens."""
    with edgellm("synthetic:bitnet-2b") as server:
        system = ids(2048, 5)
        first, second = [], []
        for i in range(3):
            # Another beginning each time, so that the first request finds nothing.
            prompt = [400 + i] + system
            for times, tail in ((first, 1), (second, 2)):
                result = await stream(PORT, greedy(prompt + ids(20, tail), 2))
                times.append(result["times"][0] - result["asked"])
        first, second = percentile(first, 50), percentile(second, 50)
        show("prefix sharing", first_s=first, second_s=second, ratio=second / first)


async def overload():
    """Ten times as many clients as run at a time, for a minute."""
    with edgellm(SMOLLM2, "--parallel", "4", "--queue", "4") as server:
        body = greedy("Once upon a time", 24)

        async def clients(count, seconds):
            end = time.perf_counter() + seconds
            latencies, refused, wrong = [], 0, 0

            async def client(i):
                nonlocal refused, wrong
                while time.perf_counter() < end:
                    before = time.perf_counter()
                    status, headers, _ = await ask(PORT, "/v1/completions", dict(body, user=str(i)))
                    if status == 200:
                        latencies.append(time.perf_counter() - before)
                    elif status == 429 and "retry-after" in headers:
                        refused += 1
                        await asyncio.sleep(0.25)
                    else:
                        wrong += 1

            await asyncio.gather(*(client(i) for i in range(count)))
            return latencies, refused, wrong

        normal, _, _ = await clients(8, 15)
        memory = server.resident()
        admitted, refused, wrong = await clients(80, 60)
        after = server.resident()
        again, _, _ = await clients(8, 10)
        show(
            "overload",
            normal_p99_s=percentile(normal, 99),
            admitted_p99_s=percentile(admitted, 99),
            ratio=percentile(admitted, 99) / percentile(normal, 99),
            admitted=len(admitted),
            refused_with_retry_after=refused,
            wrong=wrong,
            memory_growth=after / memory - 1,
            after_p99_s=percentile(again, 99),
        )


async def cancel():
    """A hundred clients vanish in the middle of answers and of prompts."""
    with edgellm(SMOLLM2, "--parallel", "64", "--queue", "64") as server:
        writers = []
        for i in range(100):
            reader, writer = await connect(PORT)
            prompt = "Once upon a time" if i % 2 else ids(1500, i)
            send(writer, "/v1/completions", dict(greedy(prompt, 2000), stream=True))
            writers.append(writer)
        await asyncio.sleep(4)
        before = server.metrics()
        for writer in writers:
            writer.transport.abort()
        gone = time.perf_counter()
        while True:
            metrics = server.metrics()
            if metrics["running"] + metrics["waiting"] + metrics["kv_pages"] == 0:
                break
            if time.perf_counter() - gone > 30:
                break
            await asyncio.sleep(0.05)
        show(
            "cancel",
            running_before=before["running"],
            waiting_before=before["waiting"],
            kv_pages_before=before["kv_pages"],
            free_after_s=time.perf_counter() - gone,
            kv_pages_after=metrics["kv_pages"],
        )


async def drain():
    """SIGTERM in the middle of sixteen streams."""
    with edgellm(SMOLLM2, "--grace", "60") as server:
        streams = [asyncio.create_task(stream(PORT, greedy("Once upon a time", 64))) for _ in range(16)]
        await asyncio.sleep(1)
        server.process.terminate()
        await asyncio.sleep(0.2)
        status, _, _ = await ask(PORT, "/v1/completions", greedy("x", 1))
        results = await asyncio.gather(*streams)
        code = await asyncio.to_thread(server.process.wait)
        show("drain", done=sum(r["done"] for r in results), of=16, status_while_draining=status, exit_code=code)


ROWS = {
    "overhead": overhead,
    "access": access,
    "peers": peers,
    "soak": soak,
    "outage": outage,
    "statistics": statistics,
    "batching": batching,
    "long-prompt": long_prompt,
    "jitter": jitter,
    "prefix": prefix,
    "overload": overload,
    "cancel": cancel,
    "drain": drain,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or ROWS:
        asyncio.run(ROWS[name]())
