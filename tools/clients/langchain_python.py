"""LangChain's ChatOpenAI and OpenAIEmbeddings against the server."""

import asyncio

import pydantic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from shared import ANSWER, MODEL, QUESTION, URL


def chat(**options) -> ChatOpenAI:
    return ChatOpenAI(**{"base_url": f"{URL}/v1", "api_key": "none", "model": MODEL, "temperature": 0, "max_tokens": 24, "max_retries": 0, **options})


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"Rain in {city}"


class Person(pydantic.BaseModel):
    """A person."""

    name: str = pydantic.Field(max_length=30)
    age: int = pydantic.Field(ge=0, le=150)


def test_invoke_stream_and_batch():
    answer = chat().invoke([SystemMessage("You are helpful."), HumanMessage(QUESTION)])
    assert isinstance(answer, AIMessage) and ANSWER in answer.content and answer.usage_metadata["output_tokens"] > 0
    streamed = list(chat(stream_usage=True).stream([SystemMessage("You are helpful."), HumanMessage(QUESTION)]))
    assert "".join(chunk.content for chunk in streamed) == answer.content
    both = chat().batch([QUESTION, "Name a colour."])
    assert len(both) == 2 and all(one.content for one in both)


def test_async():
    async def text():
        return "".join([chunk.content async for chunk in chat().astream(QUESTION)])

    assert asyncio.run(text()) == chat().invoke(QUESTION).content


def test_tools():
    bound = chat(max_tokens=80).bind_tools([get_weather], tool_choice="get_weather")
    answer = bound.invoke("What is the weather in Oslo?")
    (call,) = answer.tool_calls
    assert call["name"] == "get_weather" and isinstance(call["args"]["city"], str)
    result = get_weather.invoke(call)
    assert isinstance(result, ToolMessage)
    after = chat().invoke([HumanMessage("What is the weather in Oslo?"), answer, result])
    assert after.content
    streamed = None
    for chunk in bound.stream("What is the weather in Oslo?"):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed.tool_calls[0]["args"] == call["args"]


def test_structured_output():
    for method in ("json_schema", "function_calling"):
        person = chat(max_tokens=120).with_structured_output(Person, method=method).invoke("Describe a person.")
        assert isinstance(person, Person), method


def test_logprobs():
    answer = chat(max_tokens=4).bind(logprobs=True, top_logprobs=2).invoke(QUESTION)
    assert len(answer.response_metadata["logprobs"]["content"]) == 4


def test_embeddings():
    # The texts as they are: LangChain would send tokens of its own tokenizer.
    embeddings = OpenAIEmbeddings(base_url=f"{URL}/v1", api_key="none", model=MODEL, check_embedding_ctx_length=False)
    vectors = embeddings.embed_documents(["a cat", "a dog"])
    assert len(vectors) == 2 and len(vectors[0]) == len(embeddings.embed_query("a cat"))
