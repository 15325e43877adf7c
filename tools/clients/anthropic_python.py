"""The `anthropic` Python package against the server."""

import anthropic
import pytest
from shared import ANSWER, MESSAGES, MODEL, URL, WEATHER_PARAMETERS, check_weather

client = anthropic.Anthropic(base_url=URL, api_key="none", max_retries=0, timeout=120)
TOOL = {"name": "get_weather", "description": "The weather of a city", "input_schema": WEATHER_PARAMETERS}


# The package leaves this parameter to `extra_body`.
GREEDY = {"temperature": 0}


def ask(**options):
    return client.messages.create(**{"model": MODEL, "messages": MESSAGES, "extra_body": GREEDY, "max_tokens": 24, **options})


def test_chat():
    answer = ask()
    assert answer.type == "message" and answer.role == "assistant" and answer.model == MODEL
    assert ANSWER in answer.content[0].text
    assert answer.stop_reason in ("end_turn", "max_tokens") and answer.usage.output_tokens > 0
    assert ask(system="Answer in one word.").content[0].text
    blocks = [{"role": "user", "content": [{"type": "text", "text": MESSAGES[0]["content"]}]}]
    assert ask(messages=blocks).content[0].text == answer.content[0].text


def test_streaming_gives_the_same_text():
    whole = ask()
    with client.messages.stream(model=MODEL, messages=MESSAGES, extra_body=GREEDY, max_tokens=24) as stream:
        assert "".join(stream.text_stream) == whole.content[0].text
        final = stream.get_final_message()
    assert final.usage.output_tokens == whole.usage.output_tokens and final.stop_reason == whole.stop_reason
    kinds = [event.type for event in ask(stream=True)]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_limits_and_stops():
    short = ask(max_tokens=3)
    assert short.stop_reason == "max_tokens" and short.usage.output_tokens == 3
    stopped = ask(stop_sequences=["END", ANSWER])
    assert stopped.stop_reason == "stop_sequence" and stopped.stop_sequence == ANSWER
    assert ANSWER not in stopped.content[0].text
    # Sampling parameters are taken.
    assert ask(extra_body={"temperature": 1, "top_p": 0.9, "top_k": 20}).content


@pytest.mark.parametrize("choice", [{"type": "any", "disable_parallel_tool_use": True}, {"type": "tool", "name": "get_weather"}])
def test_tools(choice):
    answer = ask(tools=[TOOL], tool_choice=choice, max_tokens=100)
    (call,) = [block for block in answer.content if block.type == "tool_use"]
    assert call.name == "get_weather" and call.id and answer.stop_reason == "tool_use"
    check_weather(call.input)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "12 degrees and rain"}
    dialogue = [*MESSAGES, {"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
    assert ask(messages=dialogue, tools=[TOOL], tool_choice={"type": "none"}).content


def test_tools_streamed():
    with client.messages.stream(
        model=MODEL, messages=MESSAGES, tools=[TOOL], tool_choice={"type": "any", "disable_parallel_tool_use": True}, extra_body=GREEDY, max_tokens=100
    ) as stream:
        final = stream.get_final_message()
    check_weather(final.content[-1].input)


def test_count_tokens():
    counted = client.messages.count_tokens(model=MODEL, messages=MESSAGES)
    assert counted.input_tokens == ask(max_tokens=1).usage.input_tokens


def test_errors():
    with pytest.raises(anthropic.NotFoundError) as refusal:
        ask(model="no-such-model")
    assert refusal.value.body["type"] == "error" and refusal.value.body["error"]["type"] == "not_found_error"
    for options in ({"max_tokens": 0}, {"extra_body": {"temperature": 2}}, {"messages": []}):
        with pytest.raises(anthropic.BadRequestError) as refusal:
            ask(**options)
        assert refusal.value.body["error"]["type"] == "invalid_request_error"
