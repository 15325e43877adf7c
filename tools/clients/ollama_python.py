"""The `ollama` Python package against the server."""

import asyncio
import json

import ollama
import pytest
from shared import ANSWER, MESSAGES, MODEL, PERSON_SCHEMA, QUESTION, URL, WEATHER_TOOL, check_person, check_weather

client = ollama.Client(host=URL)
OPTIONS = {"temperature": 0, "num_predict": 24}


def check_timing(answer) -> None:
    """The last object carries counts and times in nanoseconds."""
    assert answer.done and answer.done_reason in ("stop", "length")
    assert answer.prompt_eval_count > 0 and answer.eval_count > 0
    assert 0 < answer.eval_duration <= answer.total_duration


def test_list_show_ps():
    assert MODEL in [model.model for model in client.list().models]
    shown = client.show(MODEL)
    assert shown.details.format and shown.modelinfo and "completion" in shown.capabilities
    client.generate(MODEL, "Hi", options={"num_predict": 1})
    assert MODEL in [model.model for model in client.ps().models]
    with pytest.raises(ollama.ResponseError) as refusal:
        client.show("no-such-model")
    assert refusal.value.status_code == 404


def test_chat():
    answer = client.chat(MODEL, MESSAGES, options=OPTIONS)
    assert ANSWER in answer.message.content and answer.message.role == "assistant"
    check_timing(answer)
    parts = list(client.chat(MODEL, MESSAGES, options=OPTIONS, stream=True))
    assert "".join(part.message.content for part in parts) == answer.message.content
    assert [part.done for part in parts[:-1]] == [False] * (len(parts) - 1)
    check_timing(parts[-1])


def test_generate():
    answer = client.generate(MODEL, QUESTION, options=OPTIONS)
    check_timing(answer)
    parts = list(client.generate(MODEL, QUESTION, options=OPTIONS, stream=True))
    assert "".join(part.response for part in parts) == answer.response
    raw = client.generate(MODEL, "The capital of France is", raw=True, options=OPTIONS)
    assert "Paris" in raw.response
    system = client.generate(MODEL, QUESTION, system="Answer in one word.", options=OPTIONS)
    assert system.response
    stopped = client.generate(MODEL, "The capital of France is", raw=True, options={**OPTIONS, "stop": ["Paris"]})
    assert "Paris" not in stopped.response


def test_options():
    def sample(seed):
        return client.generate(MODEL, "Once", raw=True, options={"temperature": 1, "seed": seed, "num_predict": 16, "top_k": 40, "top_p": 0.9}).response

    assert sample(3) == sample(3) != sample(4)


def test_tools():
    answer = client.chat(MODEL, MESSAGES, tools=[WEATHER_TOOL], options={"temperature": 0, "num_predict": 80})
    for call in answer.message.tool_calls or []:
        assert call.function.name == "get_weather"
        check_weather(dict(call.function.arguments))
    assert answer.message.tool_calls or answer.message.content


def test_format():
    answer = client.chat(MODEL, MESSAGES, format=PERSON_SCHEMA, options={"temperature": 0, "num_predict": 120})
    check_person(json.loads(answer.message.content))
    free = client.generate(MODEL, "A JSON object:", format="json", options={"temperature": 0, "num_predict": 400})
    if free.done_reason == "stop":
        json.loads(free.response)


def test_logprobs():
    options = {**OPTIONS, "num_predict": 6}
    for answer in (
        client.chat(MODEL, MESSAGES, logprobs=True, top_logprobs=2, options=options),
        client.generate(MODEL, QUESTION, logprobs=True, top_logprobs=2, options=options),
    ):
        assert len(answer.logprobs) == answer.eval_count
        for token in answer.logprobs:
            assert token.logprob <= 0 and len(token.top_logprobs) == 2
            # Greedy, though Ollama's repeat_penalty may pass over the likeliest.
            assert token.logprob <= token.top_logprobs[0].logprob
        text = answer.message.content if hasattr(answer, "message") else answer.response
        assert "".join(token.token for token in answer.logprobs).startswith(text)
    parts = list(client.chat(MODEL, MESSAGES, logprobs=True, options=options, stream=True))
    told = [token.token for part in parts for token in part.logprobs or []]
    assert "".join(told).startswith("".join(part.message.content for part in parts)) and len(told) == parts[-1].eval_count
    assert client.chat(MODEL, MESSAGES, options=options).logprobs is None
    with pytest.raises(ollama.ResponseError) as refusal:
        client.chat(MODEL, MESSAGES, logprobs=True, top_logprobs=21, options=options)
    assert refusal.value.status_code == 400 and "top_logprobs" in refusal.value.error


def test_embeddings():
    both = client.embed(MODEL, ["a cat", "the stock market"]).embeddings
    one = client.embed(MODEL, "a cat").embeddings
    assert len(both) == 2 and len(one) == 1 and list(both[0]) == pytest.approx(list(one[0]), abs=1e-5)
    # Ollama gives unit vectors.
    assert sum(x * x for x in one[0]) == pytest.approx(1, abs=1e-4)


def test_async_streaming():
    async def text():
        parts = await ollama.AsyncClient(host=URL).chat(MODEL, MESSAGES, options=OPTIONS, stream=True)
        return "".join([part.message.content async for part in parts])

    assert asyncio.run(text()) == client.chat(MODEL, MESSAGES, options=OPTIONS).message.content


def test_errors():
    with pytest.raises(ollama.ResponseError) as refusal:
        client.chat("no-such-model", MESSAGES)
    assert refusal.value.status_code == 404 and "no-such-model" in refusal.value.error
