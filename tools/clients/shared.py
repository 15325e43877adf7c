"""What the tests of all clients share: where the server is, which models it has, and the tasks that they give it."""

import os

URL = os.environ["EDGELLM_URL"]
MODEL = os.environ["EDGELLM_MODEL"]

QUESTION = "Why is the sky blue?"
# What any answer to it says.
ANSWER = "light"
MESSAGES = [{"role": "user", "content": QUESTION}]

WEATHER_PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 30}, "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]}},
    "required": ["city", "unit"],
    "additionalProperties": False,
}
WEATHER_TOOL = {
    "type": "function",
    "function": {"name": "get_weather", "description": "The weather of a city", "parameters": WEATHER_PARAMETERS},
}
PERSON_SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer", "minimum": 0, "maximum": 150}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def check_weather(arguments: dict) -> None:
    """The arguments of a call fit the tool's parameters."""
    assert set(arguments) == {"city", "unit"}, arguments
    assert isinstance(arguments["city"], str) and arguments["unit"] in ("celsius", "fahrenheit"), arguments


def check_person(person: dict) -> None:
    """The answer fits the schema."""
    assert set(person) == {"name", "age"}, person
    assert isinstance(person["name"], str) and len(person["name"]) <= 30, person
    assert isinstance(person["age"], int) and 0 <= person["age"] <= 150, person
