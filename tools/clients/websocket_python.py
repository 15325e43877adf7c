"""/v1/ws through the `websockets` Python package."""

import json

from shared import MESSAGES, MODEL, URL
from websockets.sync.client import connect

PATH = "/v1/chat/completions"
LONG = {"model": MODEL, "messages": [{"role": "user", "content": "Write a long story."}], "max_tokens": 4000, "stream": True}


def ask(socket, name, body, path=PATH):
    socket.send(json.dumps({"type": "request", "id": name, "path": path, "body": {"model": MODEL, **body}}))


def until_done(socket, names):
    """All messages until each of these requests has ended."""
    messages, open_names = [], set(names)
    while open_names:
        message = json.loads(socket.recv(timeout=60))
        messages.append(message)
        if message["type"] in ("done", "error", "cancelled"):
            open_names.discard(message["id"])
    return messages


def text(messages, name):
    events = [m["data"] for m in messages if m["type"] == "event" and m["id"] == name]
    return "".join(e["choices"][0]["delta"].get("content") or "" for e in events if e["choices"])


def test_several_at_a_time():
    body = {"messages": MESSAGES, "temperature": 0, "max_tokens": 16}
    with connect(URL.replace("http", "ws") + "/v1/ws") as socket:
        for name in "abc":
            ask(socket, name, {**body, "stream": True})
        ask(socket, "whole", body)
        messages = until_done(socket, ["a", "b", "c", "whole"])
    (whole,) = [m["data"] for m in messages if m["type"] == "response"]
    expected = whole["choices"][0]["message"]["content"]
    assert [text(messages, name) for name in "abc"] == [expected] * 3
    # They came between each other, not one after the other.
    names = [m["id"] for m in messages if m["type"] == "event"]
    assert len([1 for one, next_one in zip(names, names[1:]) if one != next_one]) > 3


def test_cancel():
    with connect(URL.replace("http", "ws") + "/v1/ws") as socket:
        ask(socket, "long", LONG)
        assert json.loads(socket.recv(timeout=60))["type"] == "event"
        socket.send(json.dumps({"type": "cancel", "id": "long"}))
        assert until_done(socket, ["long"])[-1] == {"type": "cancelled", "id": "long"}
        # The name is free again.
        ask(socket, "long", {"messages": MESSAGES, "max_tokens": 1})
        assert [m["type"] for m in until_done(socket, ["long"])] == ["response", "done"]


def test_errors():
    with connect(URL.replace("http", "ws") + "/v1/ws") as socket:
        for wrong in ("{", '{"type": "what"}', '{"type": "request", "body": {}}'):
            socket.send(wrong)
            error = json.loads(socket.recv(timeout=10))
            assert error["type"] == "error" and error["id"] == "" and error["status"] == 400
        ask(socket, "p", {}, path="/metrics")
        assert until_done(socket, ["p"])[0]["error"]["param"] == "path"
        ask(socket, "t", {"messages": MESSAGES, "temperature": 9})
        assert until_done(socket, ["t"])[0]["error"]["param"] == "temperature"
        ask(socket, "twice", LONG)
        ask(socket, "twice", LONG)
        while (message := json.loads(socket.recv(timeout=60)))["type"] == "event":
            pass
        assert message["error"]["param"] == "id"
