"""What a gateway in Python at its plainest costs: FastAPI on uvicorn with a key, a limit and a record of usage in SQLite.

    uvicorn fastapi_app:app    GATEWAY_KEY: the only key; GATEWAY_DATABASE: a file; GATEWAY_UPSTREAM: who runs the model

It checks the request by a model, the key by its SHA-256 in constant time, counts it in a sliding window, lets the upstream
answer by httpx, and writes the usage in the background once a second, all in one process. Without an upstream it answers with a fixed text, which no
gateway does: its model runs elsewhere.
"""

import asyncio
import collections
import contextlib
import hashlib
import hmac
import os
import sqlite3
import time
import uuid

import httpx
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from pydantic import BaseModel

KEY = hashlib.sha256(os.environ["GATEWAY_KEY"].encode()).digest()
LIMIT = 1_000_000_000
UPSTREAM = os.environ.get("GATEWAY_UPSTREAM")
recent: collections.deque = collections.deque()
records: list = []


class Message(BaseModel):
    role: str
    content: str


class Chat(BaseModel):
    model: str = "null"
    messages: list[Message]
    max_tokens: int | None = None


async def write(database: sqlite3.Connection):
    while True:
        await asyncio.sleep(1)
        new, records[:] = list(records), []
        database.executemany("INSERT INTO usage VALUES (?, ?, ?, ?)", new)
        database.commit()


@contextlib.asynccontextmanager
async def lifespan(_: FastAPI):
    database = sqlite3.connect(os.environ["GATEWAY_DATABASE"])
    database.execute("CREATE TABLE usage (id TEXT PRIMARY KEY, at REAL, prompt INTEGER, completion INTEGER)")
    task = asyncio.create_task(write(database))
    async with httpx.AsyncClient(timeout=60) as client:
        app.state.client = client
        yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


async def known(response: Response, authorization: str = Header("")):
    given = hashlib.sha256(authorization.removeprefix("Bearer ").encode()).digest()
    if not hmac.compare_digest(given, KEY):
        raise HTTPException(401, "Incorrect API key provided")
    now = time.monotonic()
    while recent and recent[0] < now - 60:
        recent.popleft()
    if len(recent) >= LIMIT:
        raise HTTPException(429, "Rate limit reached")
    recent.append(now)
    response.headers["x-ratelimit-remaining-requests"] = str(LIMIT - len(recent))


@app.get("/ready")
async def ready():
    return {"status": "ok"}


@app.post("/v1/chat/completions", dependencies=[Depends(known)])
async def chat(request: Chat):
    if UPSTREAM:
        answer = await app.state.client.post(f"{UPSTREAM}/v1/chat/completions", json=request.model_dump(exclude_none=True))
        answer.raise_for_status()
        made = answer.json()
        used = made["usage"]
        records.append((uuid.uuid4().hex, time.time(), used["prompt_tokens"], used["completion_tokens"]))
        return made
    name = f"chatcmpl-{uuid.uuid4().hex}"
    prompt = sum(len(message.content) for message in request.messages)
    records.append((name, time.time(), prompt, 1))
    return {
        "id": name,
        "object": "chat.completion",
        "created": int(time.time()),
        "model": request.model,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "length"}],
        "usage": {"prompt_tokens": prompt, "completion_tokens": 1, "total_tokens": prompt + 1},
    }
