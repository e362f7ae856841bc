"""Do the official clients, OpenAI's and Anthropic's, work against our router with a real engine, errors included?"""

from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.deployments.forwarded import NAMED_SCHEMA
from tests.deployments.two_servers import Pair

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

MODEL = "tiny"
QUESTION = "What is a class?"
NOTHING: dict[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}
TRIES = 20
GREEDY = {"temperature": 0}
"""Anthropic's client has no argument for it any more."""


@pytest.fixture(scope="module")
def gpt(pair: Pair) -> Iterator[openai.OpenAI]:
    url = f"{str(pair.ours.client.base_url).rstrip('/')}/v1"
    with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(pair: Pair) -> Iterator[anthropic.Anthropic]:
    url = str(pair.ours.client.base_url).rstrip("/")
    with anthropic.Anthropic(base_url=url, api_key="unused", max_retries=0) as client:
        yield client


def test_a_chat_whole_and_streamed(gpt: openai.OpenAI) -> None:
    ask = gpt.chat.completions.create
    whole = ask(model=MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=30)
    text = whole.choices[0].message.content
    assert text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == 30
    chunks = list(
        ask(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=30,
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == text
    assert chunks[-1].usage == whole.usage


def until_whole(ask: Callable[[], list[Any]]) -> Any:
    """The one call of a tool. A model this small does not always end what it began within its tokens."""
    for _ in range(TRIES):
        if calls := ask():
            (call,) = calls
            return call
    pytest.fail(f"no whole call in {TRIES} answers")


def test_a_chat_that_calls_a_tool(gpt: openai.OpenAI) -> None:
    def ask() -> list[Any]:
        answer = gpt.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": QUESTION}],
            tools=[{"type": "function", "function": {"name": "look", "parameters": NOTHING}}],
            tool_choice={"type": "function", "function": {"name": "look"}},
            max_tokens=100,
        )
        return answer.choices[0].message.tool_calls or []

    call = until_whole(ask)
    assert (call.type, call.function.name) == ("function", "look")


def test_texts_whole_and_streamed(gpt: openai.OpenAI) -> None:
    ask = gpt.completions.create
    prompts = ["The import statement", "A list"]
    whole = ask(model=MODEL, prompt=prompts, temperature=0, max_tokens=20, logprobs=1)
    assert [choice.index for choice in whole.choices] == [0, 1]
    assert all(choice.logprobs is not None for choice in whole.choices)
    told = {0: "", 1: ""}
    for chunk in ask(model=MODEL, prompt=prompts, temperature=0, max_tokens=20, stream=True):
        for choice in chunk.choices:
            told[choice.index] += choice.text
    assert told == {choice.index: choice.text for choice in whole.choices}


def test_a_response_whole_streamed_and_in_a_schema(gpt: openai.OpenAI) -> None:
    whole = gpt.responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=30)
    assert whole.output_text
    events = list(gpt.responses.create(model=MODEL, input=QUESTION, temperature=0, max_output_tokens=30, stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert events[-1].type in ("response.completed", "response.incomplete")
    shaped = gpt.responses.create(
        model=MODEL,
        input=QUESTION,
        instructions="Be brief.",
        text={"format": NAMED_SCHEMA},
        max_output_tokens=60,
    )
    assert shaped.output_text.startswith("{")


def test_openai_s_errors_are_its_own(gpt: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        gpt.responses.create(model="big", input=QUESTION)
    with pytest.raises(openai.BadRequestError, match="stored responses"):
        gpt.responses.create(model=MODEL, input=QUESTION, background=True)
    with pytest.raises(openai.BadRequestError, match="temperature"):
        gpt.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "x"}], temperature=-1)
    assert [model.id for model in gpt.models.list()] == [MODEL]


def test_a_message_whole_and_streamed(claude: anthropic.Anthropic) -> None:
    whole = claude.messages.create(
        model=MODEL,
        max_tokens=30,
        extra_body=GREEDY,
        system="Be brief.",
        messages=[{"role": "user", "content": QUESTION}],
    )
    (block,) = whole.content
    assert block.type == "text"
    assert (whole.stop_reason, whole.usage.output_tokens) == ("max_tokens", 30)
    with claude.messages.stream(
        model=MODEL,
        max_tokens=30,
        extra_body=GREEDY,
        system="Be brief.",
        messages=[{"role": "user", "content": QUESTION}],
    ) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == block.text
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, whole.usage.output_tokens)


def test_a_message_ends_at_a_stop_sequence(claude: anthropic.Anthropic) -> None:
    long = claude.messages.create(
        model=MODEL, max_tokens=60, extra_body=GREEDY, messages=[{"role": "user", "content": QUESTION}]
    )
    assert long.content[0].type == "text"
    word = long.content[0].text.split()[3]
    short = claude.messages.create(
        model=MODEL,
        max_tokens=60,
        extra_body=GREEDY,
        stop_sequences=[word],
        messages=[{"role": "user", "content": QUESTION}],
    )
    assert short.content[0].type == "text"
    assert short.content[0].text == long.content[0].text.partition(word)[0]


def test_a_message_that_uses_a_tool(claude: anthropic.Anthropic) -> None:
    def ask() -> list[Any]:
        answer = claude.messages.create(
            model=MODEL,
            max_tokens=100,
            tools=[{"name": "look", "input_schema": NOTHING}],
            tool_choice={"type": "tool", "name": "look"},
            messages=[{"role": "user", "content": QUESTION}],
        )
        return [block for block in answer.content if block.type == "tool_use"]

    assert until_whole(ask).name == "look"


def test_a_message_s_tokens_are_those_that_its_answer_reports(claude: anthropic.Anthropic) -> None:
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": QUESTION}]
    counted = claude.messages.count_tokens(model=MODEL, messages=messages, system="Be brief.")
    answer = claude.messages.create(model=MODEL, messages=messages, system="Be brief.", max_tokens=1)
    assert counted.input_tokens == answer.usage.input_tokens > 0


def test_anthropic_s_errors_are_its_own(claude: anthropic.Anthropic) -> None:
    messages: list[anthropic.types.MessageParam] = [{"role": "user", "content": QUESTION}]
    with pytest.raises(anthropic.NotFoundError) as unknown:
        claude.messages.create(model="big", messages=messages, max_tokens=5)
    assert unknown.value.type == "not_found_error"
    with pytest.raises(anthropic.BadRequestError, match="'priority' is set by this server"):
        claude.messages.create(model=MODEL, messages=messages, max_tokens=5, extra_body={"priority": 1})
    with pytest.raises(anthropic.BadRequestError):  # in vLLM's words
        claude.messages.create(model=MODEL, messages=messages, max_tokens=20_000)
    with (
        pytest.raises(anthropic.BadRequestError),
        claude.messages.stream(model=MODEL, messages=messages, max_tokens=5, extra_body={"temperature": -1}),
    ):
        pass
