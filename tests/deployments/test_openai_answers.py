"""Is what goes to the client JSON that any client reads, and are its tokens counted right?"""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.frames import Delta
from deployments.openai_answers import DONE, Answer, Usage, error_event
from deployments.openai_wire import ApiError

# Surrogates are not text: they can't arrive from a tokenizer, nor leave as UTF-8.
nasty = st.text(
    st.characters(exclude_categories=["Cs"]) | st.sampled_from('"\\\0\r\n\u2028\u2029{}[]:,/<'), max_size=30
)


def events(body: bytes) -> list[Any]:
    """The events of a stream, as a strict reader of server-sent events takes them apart."""
    assert body.endswith(b"\n\n")
    blocks = body.decode().removesuffix("\n\n").split("\n\n")
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    said = [block.removeprefix("data: ") for block in blocks]
    return [text if text == "[DONE]" else json.loads(text) for text in said]


def delta(text: str, ids: int = 1, index: int = 0, finish: str | None = None, **more: Any) -> Delta:
    return Delta(1, 0, index, text, [7] * ids, finish, **more)


@given(st.booleans(), nasty, st.lists(nasty, min_size=1, max_size=4), st.integers(0, 200))
def test_the_quick_way_writes_the_same_bytes_as_the_slow_one(
    chat: bool, model: str, texts: list[str], index: int
) -> None:
    answer = Answer(model, chat, Usage(3))
    for text in texts:
        slow = answer._event(index, {"content": text} if chat else text)
        assert answer._text_event(index, text) == slow


@given(st.booleans(), nasty, st.lists(nasty, min_size=1, max_size=6))
def test_a_stream_is_valid_events_that_join_to_the_text(chat: bool, model: str, texts: list[str]) -> None:
    answer = Answer(model, chat, Usage(3), include_usage=True)
    body = b"".join(answer.events(0, delta(text)) for text in texts)
    *said, usage, done = events(body + answer.events(0, delta("", finish="stop")) + answer.ending())
    choices = [event["choices"][0] for event in said]
    read = [choice["delta"].get("content", "") if chat else choice["text"] for choice in choices]
    assert "".join(read) == "".join(texts)
    assert [choice["finish_reason"] for choice in choices] == [None] * (len(choices) - 1) + ["stop"]
    assert {event["model"] for event in said} == {model}
    assert len({event["id"] for event in said}) == 1
    assert done == "[DONE]"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(texts) + 1


def test_a_chat_choice_opens_with_its_role_once() -> None:
    answer = Answer("m", True, Usage(3), n=2)
    body = b"".join(answer.events(index, delta(text, index=index)) for text in ("a", "b") for index in (0, 1))
    choices = [event["choices"][0] for event in events(body)]
    assert [(choice["index"], choice["delta"]) for choice in choices] == [
        (0, {"role": "assistant", "content": ""}),
        (0, {"content": "a"}),
        (1, {"role": "assistant", "content": ""}),
        (1, {"content": "a"}),
        (0, {"content": "b"}),
        (1, {"content": "b"}),
    ]


def test_tokens_without_text_yet_make_no_event_but_count() -> None:
    answer = Answer("m", False, Usage(3))
    assert answer.events(0, delta("", ids=2)) == b""
    assert answer.usage.completion_tokens == 2


def test_the_last_event_says_why_it_ended() -> None:
    (event,) = events(Answer("m", False, Usage(3)).events(0, delta("x", finish="stop", stop="END")))
    choice = event["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("x", "stop", "END")


def test_usage_so_far_comes_with_each_event_when_it_was_asked_for() -> None:
    answer = Answer("m", True, Usage(5), every_usage=True)
    said = events(answer.events(0, delta("a")) + answer.events(0, delta("b", ids=2)))
    assert [event["usage"]["total_tokens"] for event in said] == [6, 6, 8]


@pytest.mark.parametrize("streamed", [True, False])
def test_usage_counts_every_choice_and_the_cache_once_for_each_prompt(streamed: bool) -> None:
    """Two prompts with two choices each; both choices of a prompt saw the same cached tokens."""
    answer = Answer("m", False, Usage(8), n=2, include_usage=True)
    choices = [delta("ab", ids=3, index=index % 2, finish="length", cached_tokens=4) for index in range(4)]
    if streamed:
        body = b"".join(answer.events(index, choice) for index, choice in enumerate(choices))
        usage = events(body + answer.ending())[-2]["usage"]
    else:
        whole = json.loads(answer.whole(choices))
        usage = whole["usage"]
        assert [choice["index"] for choice in whole["choices"]] == [0, 1, 2, 3]
    assert usage == {
        "prompt_tokens": 8,
        "completion_tokens": 12,
        "total_tokens": 20,
        "prompt_tokens_details": {"cached_tokens": 8},
    }


@pytest.mark.parametrize("chat", [True, False])
def test_a_whole_answer_has_the_api_s_shape(chat: bool) -> None:
    answer = json.loads(Answer("m", chat, Usage(3)).whole([delta("hé", ids=2, finish="stop", stop=9)]))
    assert answer["id"].startswith("chatcmpl-" if chat else "cmpl-")
    assert answer["object"] == ("chat.completion" if chat else "text_completion")
    said = {"message": {"role": "assistant", "content": "hé"}} if chat else {"text": "hé"}
    ending = {"logprobs": None, "finish_reason": "stop", "stop_reason": 9}
    assert answer["choices"] == [{"index": 0} | said | ending]


def test_an_error_in_a_stream_is_an_event_and_ends_it() -> None:
    error = ApiError(503, 'a "bad"\nday', kind="server_error")
    assert events(error_event(error)) == [error.body, "[DONE]"]
    assert error_event(error).endswith(DONE)
