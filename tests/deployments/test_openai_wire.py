"""Which bodies does the API take, and what does it say about the others?"""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.frames import Submit
from deployments.openai_wire import (
    NOT_OFFERED,
    ApiError,
    ChatRequest,
    CompletionRequest,
    TextPart,
    parse,
    sampling,
)

HELLO = [{"role": "user", "content": "hello"}]


def chat(**fields: Any) -> ChatRequest:
    return parse(ChatRequest, msgspec.json.encode({"model": "m", "messages": HELLO} | fields))


def completion(**fields: Any) -> CompletionRequest:
    return parse(CompletionRequest, msgspec.json.encode({"model": "m", "prompt": "hello"} | fields))


def refusal(kind: type, body: bytes | dict[str, Any]) -> tuple[str, str | None, str | None]:
    """Message, param and code of the 400 that this body earns."""
    with pytest.raises(ApiError) as refused:
        parse(kind, body if isinstance(body, bytes) else msgspec.json.encode(body))
    error = refused.value.body["error"]
    assert refused.value.status == 400
    assert error["type"] == "invalid_request_error"
    return error["message"], error["param"], error["code"]


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


def test_prompts_of_several_kinds_are_refused() -> None:
    with pytest.raises(ApiError, match="mixes texts, token ids and lists") as refused:
        completion(prompt=["a", [1]]).prompts()
    assert refused.value.body["error"]["param"] == "prompt"


def test_fields_that_ask_for_nothing_are_passed_over() -> None:
    idle = {"tools": [], "tool_choice": "none", "logprobs": False, "top_logprobs": 0, "functions": None}
    request = chat(**idle, response_format={"type": "text"}, temperature=0.5)
    assert request == chat(temperature=0.5)
    assert completion(best_of=1, echo=False, suffix=None) == completion()


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


@pytest.mark.parametrize("name", sorted(NOT_OFFERED))
def test_what_is_known_but_not_offered_is_named(name: str) -> None:
    message, param, code = refusal(ChatRequest, {"model": "m", "messages": HELLO, name: {"some": "thing"}})
    assert message == f"'{name}' is not offered by this server yet."
    assert (param, code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"max_tokns": 3}, "Unknown field 'max_tokns'. Did you mean 'max_tokens'?", "max_tokns"),
        ({"zzz": 3}, "Unknown field 'zzz'.", "zzz"),
        ({"max_tokens": "3"}, """'max_tokens': Expected int | null, got str (it was "3").""", "max_tokens"),
        ({"max_tokens": 0}, "'max_tokens': Expected int >= 1 (it was 0).", "max_tokens"),
        ({"n": 0}, "'n': Expected int >= 1 (it was 0).", "n"),
        ({"n": 129}, "'n': Expected int <= 128 (it was 129).", "n"),
        ({"top_p": "a"}, """'top_p': Expected float | null, got str (it was "a").""", "top_p"),
        ({"messages": []}, "'messages': Expected array of length >= 1 (it was []).", "messages"),
        (
            {"messages": [{"role": "user", "content": 3}]},
            "'messages[0].content': Expected str | array | null, got int (it was 3).",
            "messages[0].content",
        ),
        ({"messages": [{"content": "a"}]}, "'messages[0].role' is missing.", "messages[0].role"),
        ({"messages": [HELLO[0] | {"nme": "a"}]}, "Unknown field 'nme' in 'messages[0]'.", "messages[0].nme"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            """'messages[0].content[0].type': Invalid enum value 'image_url' (it was "image_url").""",
            "messages[0].content[0].type",
        ),
        (
            {"stream_options": {"include_usage": True}},
            "stream_options is only allowed with stream: true.",
            "stream_options",
        ),
        (
            {"stream": True, "stream_options": {"usage": True}},
            "Unknown field 'usage' in 'stream_options'.",
            "stream_options.usage",
        ),
        ({"logit_bias": {"5": "a"}}, "'logit_bias[...]': Expected float, got str.", "logit_bias"),
        ({"seed": 2**63}, f"'seed': Expected int <= {2**63 - 1} (it was {2**63}).", "seed"),
        (
            {"tools": [], "seed": -(2**63) - 1},
            f"'seed': Expected int >= {-(2**63)} (it was {-(2**63) - 1}).",
            "seed",
        ),
        ({"seed": 10**30}, f"'seed': Expected int <= {2**63 - 1} (it was {10**30}).", "seed"),
        (
            {"messages": [HELLO[0] | {"tool_calls": [{"id": "a"}]}]},
            "'messages[0].tool_calls' is not offered by this server yet.",
            "messages[0].tool_calls",
        ),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_it_was_and_what_is_allowed(
    fields: dict[str, Any], message: str, param: str
) -> None:
    said = refusal(ChatRequest, {"model": "m", "messages": HELLO} | fields)
    assert said[:2] == (message, param)


@pytest.mark.parametrize(
    ("body", "message", "code"),
    [
        (b"{", "The body is not valid JSON", "invalid_json"),
        (b"", "The body is not valid JSON", "invalid_json"),
        (b"\xff\xfe{}", "The body is not valid JSON", "invalid_json"),
        (b'{"model": "\\ud800"}', "The body is not valid JSON", "invalid_json"),
        (b"[1]", "The body must be a JSON object.", None),
        (b"null", "The body must be a JSON object.", None),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(body: bytes, message: str, code: str | None) -> None:
    said = refusal(ChatRequest, body)
    assert said[0].startswith(message)
    assert said[2] == code


def test_a_missing_field_is_named() -> None:
    assert refusal(ChatRequest, b'{"messages":[{"role":"user"}]}')[:2] == ("'model' is missing.", "model")
    assert refusal(CompletionRequest, b'{"model":"m"}')[:2] == ("'prompt' is missing.", "prompt")


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
field_names = st.sampled_from([*ChatRequest.__struct_fields__, *CompletionRequest.__struct_fields__, *NOT_OFFERED, "x"])


@given(
    st.sampled_from([ChatRequest, CompletionRequest]),
    st.dictionaries(field_names, json_values, max_size=4),
    st.booleans(),
)
def test_any_json_is_either_refused_clearly_or_can_travel_on_the_link(
    kind: type, fields: dict[str, Any], whole: bool
) -> None:
    sound = {"model": "m"} | ({"messages": HELLO} if kind is ChatRequest else {"prompt": "a"})
    with suppress(ApiError):
        request = parse(kind, msgspec.json.encode(sound | fields if whole else fields))
        prompts = request.prompts() if isinstance(request, CompletionRequest) else []
        ids = [token for prompt in prompts for token in prompt if isinstance(token, int)]
        said = sampling(request) | {"max_tokens": request.max_tokens}
        assert msgspec.msgpack.encode(Submit(1, 0, ids, said, True, None))


@given(st.binary(max_size=60))
def test_any_bytes_are_refused_clearly(body: bytes) -> None:
    refusal(ChatRequest, body)
