"""Measures the server: `python3 bench/gateway/measure.py [ROW ...]`, all rows by default.

Rows: overhead, batching, long-prompt, jitter, prefix, overload, cancel, drain. EDGELLM names the binary
(target/release/edgellm), SMOLLM2 a GGUF file of SmolLM2-135M, LLAMA_SERVER llama.cpp's server for the row of jitter.
"""

import asyncio
import json
import os
import sys
import time

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
            await asyncio.sleep(0.02)
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
