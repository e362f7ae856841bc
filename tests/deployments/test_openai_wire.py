"""Which bodies does the API take, and what does it say about the others?"""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.frames import Submit
from deployments.openai_wire import (
    ChatRequest,
    CompletionRequest,
    TextPart,
    parse,
    sampling,
)

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> ChatRequest:
    request = parse(ChatRequest, msgspec.json.encode({"model": "m", "messages": HELLO} | fields))
    assert request is not None
    return request


def completion(**fields: Any) -> CompletionRequest:
    request = parse(CompletionRequest, msgspec.json.encode({"model": "m", "prompt": "hello"} | fields))
    assert request is not None
    return request


def is_plain(kind: type, body: bytes | dict[str, Any]) -> bool:
    return parse(kind, body if isinstance(body, bytes) else msgspec.json.encode(body)) is not None


def test_a_plain_request_keeps_the_api_s_defaults() -> None:
    request = chat()
    assert (request.stream, request.n, request.max_tokens, request.stop) == (False, 1, None, None)
    assert sampling(request) == {}


def test_only_what_the_client_gave_is_said_to_the_engine() -> None:
    request = chat(n=2, temperature=0, stop=["a"], seed=7, user="me", metadata={"a": 1}, top_p=None, max_tokens=4)
    assert sampling(request) == {"n": 2, "temperature": 0.0, "stop": ["a"], "seed": 7}


def test_parts_of_text_are_taken_as_content() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    request = chat(messages=[{"role": "user", "content": parts}])
    assert request.messages[0].content == [TextPart("text", "a"), TextPart("text", "b")]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [[1, 2]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
    ],
)
def test_a_completion_takes_texts_and_token_ids(prompt: Any, prompts: list[Any]) -> None:
    assert completion(prompt=prompt).prompts() == prompts


def test_fields_that_ask_for_nothing_are_passed_over() -> None:
    idle = {"tools": None, "tool_choice": None, "logprobs": False, "top_logprobs": None, "response_format": None}
    assert sampling(chat(**idle, temperature=0.5)) == {"temperature": 0.5}
    assert sampling(completion(echo=False, suffix=None, logprobs=None)) == {}


def test_an_answer_can_be_sent_back_as_clients_dump_it() -> None:
    """The official client's `message.model_dump()` writes every field that a message can have."""
    dumped = {
        "role": "assistant",
        "content": "hi",
        "refusal": None,
        "annotations": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
    }
    assert chat(messages=[*HELLO, dumped]) == chat(messages=[*HELLO, {"role": "assistant", "content": "hi"}])
    assert not is_plain(ChatRequest, {"model": "m", "messages": [dumped | {"tool_calls": [{"id": "a"}]}]})


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokns": 3}, {"max_tokens": "3"}, {"max_tokens": 0}, {"n": 0}, {"n": 129}, {"top_p": "a"},
        {"messages": []},
        {"messages": [{"role": "user", "content": 3}]}, {"messages": [{"content": "a"}]},
        {"messages": [HELLO[0] | {"nme": "a"}]}, {"model": None}, {"model": 3},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
        {"stream_options": {"include_usage": True}}, {"stream": True, "stream_options": {"usage": True}},
        {"logit_bias": {"5": "a"}}, {"seed": 2**63}, {"seed": 10**30}, {"tools": []}, {"tools": [{}]},
        {"tool_choice": "none"}, {"logprobs": True}, {"top_logprobs": 2}, {"response_format": {"type": "text"}},
        {"structured_outputs": {"choice": ["a"]}}, {"prompt_logprobs": 1}, {"chat_template": "x"}, {"priority": 1},
        {"reasoning_effort": "low"}, {"best_of": 2},
    ],
)  # fmt: skip
def test_a_chat_that_needs_more_or_is_wrong_is_not_plain(fields: dict[str, Any]) -> None:
    assert not is_plain(ChatRequest, {"model": "m", "messages": HELLO} | fields)


@pytest.mark.parametrize(
    "fields",
    [{"prompt": []}, {"prompt": ["a", [1]]}, {"prompt": [1, [1]]}, {"prompt": [-1]}, {"prompt": None}, {"echo": True},
     {"logprobs": 0}, {"suffix": "x"}, {"best_of": 1}],
)  # fmt: skip
def test_a_text_that_needs_more_or_is_wrong_is_not_plain(fields: dict[str, Any]) -> None:
    assert not is_plain(CompletionRequest, {"model": "m", "prompt": "a"} | fields)


@pytest.mark.parametrize(
    "body",
    [
        b"{", b"", b"\xff\xfe{}", b'{"model": "\\ud800"}', b"[1]", b"null", b"[" * 100_000, b'{"model":"\xff"}',
        b'{"model":"m"}',
    ],
)  # fmt: skip
def test_a_body_that_is_no_request_is_not_plain(body: bytes) -> None:
    assert not is_plain(ChatRequest, body)
    assert not is_plain(CompletionRequest, body)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**63, -(2**63) - 1, 10**30])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
field_names = st.sampled_from([*ChatRequest.__struct_fields__, *CompletionRequest.__struct_fields__, "x"])


@given(
    st.sampled_from([ChatRequest, CompletionRequest]),
    st.dictionaries(field_names, json_values, max_size=4),
    st.booleans(),
)
def test_any_json_is_either_not_plain_or_can_travel_on_the_link(
    kind: type, fields: dict[str, Any], whole: bool
) -> None:
    sound = {"model": "m"} | ({"messages": HELLO} if kind is ChatRequest else {"prompt": "a"})
    if (request := parse(kind, msgspec.json.encode(sound | fields if whole else fields))) is not None:
        prompts = request.prompts() if isinstance(request, CompletionRequest) else []
        ids = [token for prompt in prompts for token in prompt if isinstance(token, int)]
        said = sampling(request) | {"max_tokens": request.max_tokens}
        assert msgspec.msgpack.encode(Submit(1, 0, ids, said, True, None))


@given(st.binary(max_size=60))
def test_any_bytes_are_not_plain(body: bytes) -> None:
    assert not is_plain(ChatRequest, body)
