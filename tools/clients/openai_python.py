"""The `openai` Python package against the server."""

import asyncio
import json
import math

import openai
import pydantic
import pytest
from shared import ANSWER, MESSAGES, MODEL, PERSON_SCHEMA, QUESTION, URL, WEATHER_PARAMETERS, WEATHER_TOOL, check_person, check_weather

client = openai.OpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0, timeout=120)


def ask(**options):
    return client.chat.completions.create(**{"model": MODEL, "messages": MESSAGES, "temperature": 0, "max_tokens": 24, **options})


def test_models():
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_chat():
    answer = ask()
    assert ANSWER in answer.choices[0].message.content
    assert answer.object == "chat.completion" and answer.choices[0].message.role == "assistant"
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streaming_gives_the_same_text():
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = ask()
    assert text == whole.choices[0].message.content
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == whole.choices[0].finish_reason
    without = list(ask(stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in without)


def test_parallel_streams_give_the_text_of_one():
    questions = [QUESTION, "Name a colour.", "What is two plus two?", "Write one sentence about rain."]
    alone = [ask(messages=[{"role": "user", "content": text}]).choices[0].message.content for text in questions]

    async def together():
        async with openai.AsyncOpenAI(base_url=f"{URL}/v1", api_key="none", max_retries=0) as parallel:

            async def one(text):
                messages = [{"role": "user", "content": text}]
                parts = []
                async for chunk in await parallel.chat.completions.create(
                    model=MODEL, messages=messages, temperature=0, max_tokens=24, stream=True
                ):
                    parts.append(chunk.choices[0].delta.content or "")
                return "".join(parts)

            return await asyncio.gather(*map(one, questions))

    assert asyncio.run(together()) == alone


def test_a_client_that_goes_leaves_the_server_free():
    stream = ask(stream=True, max_tokens=1000, messages=[{"role": "user", "content": "Write a long story."}])
    next(iter(stream))
    stream.close()
    assert ask(max_tokens=1).usage.completion_tokens == 1


def test_limits_and_stops():
    short = ask(max_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens == 3
    newer = ask(max_tokens=openai.omit, max_completion_tokens=3)
    assert newer.choices[0].message.content == short.choices[0].message.content
    stopped = ask(stop=[ANSWER])
    assert ANSWER not in stopped.choices[0].message.content and stopped.choices[0].finish_reason == "stop"


def test_sampling():
    def sample(**options):
        return ask(temperature=1, max_tokens=16, **options).choices

    assert sample(seed=7)[0].message.content == sample(seed=7)[0].message.content
    several = sample(seed=7, n=3)
    assert [choice.index for choice in several] == [0, 1, 2]
    assert len({choice.message.content for choice in several}) > 1
    token = client.post("../tokenize", body={"model": MODEL, "content": f" {ANSWER}"}, cast_to=object)["tokens"][-1]
    banned = ask(logit_bias={str(token): -100})
    assert f" {ANSWER} " not in banned.choices[0].message.content
    for option in ({"presence_penalty": 1.5}, {"frequency_penalty": 1.5}, {"top_p": 0.5}, {"user": "someone"}):
        assert ask(**option).choices[0].message.content


def test_logprobs():
    content = ask(logprobs=True, top_logprobs=4, max_tokens=5).choices[0].logprobs.content
    assert len(content) == 5
    for token in content:
        tops = [top.logprob for top in token.top_logprobs]
        assert len(tops) == 4 and tops == sorted(tops, reverse=True)
        assert token.logprob == tops[0] and sum(map(math.exp, tops)) <= 1.0001
        assert bytes(token.bytes).decode() == token.token
    chunks = [chunk.choices[0] for chunk in ask(logprobs=True, max_tokens=5, stream=True)]
    streamed = [token.logprob for choice in chunks if choice.logprobs for token in choice.logprobs.content]
    assert streamed == pytest.approx([token.logprob for token in content], abs=1e-4)


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_tools(choice):
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    answer = ask(messages=messages, tools=[WEATHER_TOOL], tool_choice=choice, parallel_tool_calls=False, max_tokens=100)
    (call,) = answer.choices[0].message.tool_calls
    assert call.type == "function" and call.function.name == "get_weather" and call.id
    check_weather(json.loads(call.function.arguments))
    assert answer.choices[0].finish_reason in ("tool_calls", "stop")
    # The result goes back in, and the model answers in words.
    result = {"role": "tool", "tool_call_id": call.id, "content": "12 degrees and rain"}
    after = ask(messages=[*messages, answer.choices[0].message, result], tools=[WEATHER_TOOL], tool_choice="none")
    assert after.choices[0].message.content and not after.choices[0].message.tool_calls


def test_tools_streamed():
    name, arguments, ids = "", "", []
    for chunk in ask(tools=[WEATHER_TOOL], tool_choice="required", parallel_tool_calls=False, max_tokens=100, stream=True):
        for call in chunk.choices[0].delta.tool_calls or []:
            ids += [call.id] if call.id else []
            name += call.function.name or ""
            arguments += call.function.arguments or ""
    assert name == "get_weather" and len(ids) == 1
    check_weather(json.loads(arguments))


def test_tools_of_the_models_own_choice():
    answer = ask(tools=[WEATHER_TOOL], max_tokens=60).choices[0].message
    assert answer.content or answer.tool_calls


def test_json():
    schema = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON_SCHEMA, "strict": True}}
    check_person(json.loads(ask(response_format=schema, max_tokens=120).choices[0].message.content))
    free = ask(response_format={"type": "json_object"}, max_tokens=400, messages=[{"role": "user", "content": "A JSON object with a name"}])
    if free.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(free.choices[0].message.content), dict)

    class Person(pydantic.BaseModel):
        name: str = pydantic.Field(max_length=30)
        age: int = pydantic.Field(ge=0, le=150)

    parsed = client.chat.completions.parse(model=MODEL, messages=MESSAGES, response_format=Person, temperature=0, max_tokens=120)
    assert isinstance(parsed.choices[0].message.parsed, Person)


def test_completions():
    def complete(**options):
        return client.completions.create(**{"model": MODEL, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 8, **options})

    answer = complete()
    assert "Paris" in answer.choices[0].text and answer.object == "text_completion"
    assert "".join(chunk.choices[0].text for chunk in complete(stream=True)) == answer.choices[0].text
    assert complete(echo=True).choices[0].text == "The capital of France is" + answer.choices[0].text
    two = complete(prompt=["One, two,", "The capital of France is"])
    assert [choice.index for choice in two.choices] == [0, 1] and two.choices[1].text == answer.choices[0].text
    logprobs = complete(logprobs=2).choices[0].logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == answer.usage.completion_tokens
    assert "".join(logprobs.tokens) == answer.choices[0].text
    assert len(complete(n=2, best_of=3, temperature=1, seed=1).choices) == 2


def test_embeddings():
    texts = ["a cat", "a kitten", "the stock market"]
    # The package asks for base64 unless told otherwise.
    packed = client.embeddings.create(model=MODEL, input=texts)
    plain = client.embeddings.create(model=MODEL, input=texts, encoding_format="float")
    vectors = [entry.embedding for entry in packed.data]
    assert [entry.index for entry in packed.data] == [0, 1, 2] and len({len(v) for v in vectors}) == 1
    for one, other in zip(vectors, plain.data):
        assert one == pytest.approx(other.embedding, abs=1e-6)

    def cosine(a, b):
        return sum(map(lambda x, y: x * y, a, b)) / math.hypot(*a) / math.hypot(*b)

    assert cosine(vectors[0], vectors[1]) > cosine(vectors[0], vectors[2])
    assert packed.usage.prompt_tokens > 0


@pytest.mark.parametrize(
    "options, parameter",
    [
        ({"temperature": 3}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"n": 0}, "n"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"top_logprobs": 5}, "top_logprobs"),
        ({"presence_penalty": 9}, "presence_penalty"),
        ({"modalities": ["audio"]}, "modalities"),
        ({"messages": []}, "messages"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(options, parameter):
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(**options)
    assert refusal.value.param == parameter, refusal.value.body


def test_errors():
    with pytest.raises(openai.NotFoundError) as refusal:
        ask(model="no-such-model")
    assert refusal.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(messages=[{"role": "user", "content": "word " * 20_000}])
    assert refusal.value.code == "context_length_exceeded"


def test_responses():
    options = {"model": MODEL, "temperature": 0, "max_output_tokens": 24}
    answer = client.responses.create(input=QUESTION, **options)
    assert answer.status in ("completed", "incomplete") and ANSWER in answer.output_text
    assert answer.usage.total_tokens == answer.usage.input_tokens + answer.usage.output_tokens
    events = list(client.responses.create(input=QUESTION, stream=True, **options))
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.incomplete"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == answer.output_text
    assert events[-1].response.output_text == answer.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))


def test_responses_with_tools_and_schema():
    tool = {"type": "function", "name": "get_weather", "parameters": WEATHER_PARAMETERS, "strict": True}
    called = client.responses.create(model=MODEL, input="Weather in Oslo?", tools=[tool], tool_choice="required", parallel_tool_calls=False, temperature=0, max_output_tokens=100)
    (call,) = [item for item in called.output if item.type == "function_call"]
    check_weather(json.loads(call.arguments))
    text = {"format": {"type": "json_schema", "name": "person", "schema": PERSON_SCHEMA, "strict": True}}
    made = client.responses.create(model=MODEL, input="Describe a person.", text=text, temperature=0, max_output_tokens=120)
    check_person(json.loads(made.output_text))
    with client.responses.stream(model=MODEL, input="Describe a person.", text=text, temperature=0, max_output_tokens=120) as stream:
        assert [event.type for event in stream][-1] == "response.completed"
        assert stream.get_final_response().output_text == made.output_text


def test_batch():
    lines = [
        {"custom_id": f"q{i}", "method": "POST", "url": "/v1/chat/completions", "body": {"model": MODEL, "messages": MESSAGES, "max_tokens": 8, "temperature": 0}}
        for i in range(3)
    ]
    content = "\n".join(map(json.dumps, lines)).encode()
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    for _ in range(300):
        batch = client.batches.retrieve(batch.id)
        if batch.status in ("completed", "failed", "cancelled", "expired"):
            break
        asyncio.run(asyncio.sleep(0.2))
    assert batch.status == "completed" and batch.request_counts.completed == 3, batch
    results = [json.loads(line) for line in client.files.content(batch.output_file_id).text.splitlines()]
    assert [result["custom_id"] for result in results] == ["q0", "q1", "q2"]
    assert all(result["response"]["status_code"] == 200 for result in results)
    assert file.id in [entry.id for entry in client.files.list()]
    assert client.files.delete(file.id).deleted
