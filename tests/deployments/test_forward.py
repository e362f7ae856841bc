"""What of a request may reach vLLM's own application, and is the rest refused by its name?"""

import json
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.forward import (
    NOT_MESSAGES,
    ROUTER_S_OWN,
    ROUTES,
    SALTED,
    Allowed,
    check,
    headers,
    prompt_tokens,
    read,
    salted,
)
from deployments.openai_wire import ApiError

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
DATA = "data:image/png;base64,AAAA"


def refused(fields: dict[str, Any], path: str = CHAT, allowed: Allowed | None = None) -> str:
    """The field that is refused; empty when all may pass."""
    try:
        check(path, fields, allowed or Allowed())
    except ApiError as error:
        wrong = error
    else:
        return ""
    name = wrong.body["error"]["param"]
    assert wrong.status == 400
    assert f"'{name}'" in str(wrong)
    return name


def said(*parts: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(parts)}]}


def test_operator_routes_are_not_on_the_list() -> None:
    never = (
        "profile sleep wake_up pause resume collective_rpc load_lora_adapter scale_elastic_ep metrics docs server_info"
    )
    assert not [route for route in ROUTES for word in never.split() if word in route]


@pytest.mark.parametrize("name", ROUTER_S_OWN)
@pytest.mark.parametrize("value", [0, 1, "", "x", {}, False])
def test_fields_that_reach_into_the_engine_are_refused_whatever_they_hold(name: str, value: object) -> None:
    assert refused({"model": "m", name: value}) == name
    assert refused({"model": "m", name: None}) == ""


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, ""),
        ({"store": False, "background": False, "previous_response_id": None}, ""),
        ({"store": True}, "store"),
        ({"store": "yes"}, "store"),
        ({"background": True}, "background"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ],
)
def test_a_response_may_not_ask_for_stored_state(fields: dict[str, Any], name: str) -> None:
    assert refused(fields, RESPONSES) == name
    assert refused(fields, CHAT) == ""


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image_url", "image_url": {"url": "file:///etc/passwd"}},
        {"type": "image_url", "image_url": " data:image/png;base64,AAAA"},
        {"image_url": "http://example.org/a.png"},
        {"type": "audio_url", "audio_url": {"url": "http://example.org/a"}},
        {"type": "video_url", "video_url": {"url": "ftp://example.org/a"}},
        {"type": "input_audio", "input_audio": {"url": "http://example.org/a"}},
        {"type": "input_audio", "input_audio": "http://example.org/a"},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "https://a.org"}}]},
    ],
)
def test_media_comes_inline_unless_the_fleet_fetches_it(part: dict[str, Any]) -> None:
    assert refused(said(part)) == "messages"
    assert refused({"input": said(part)["messages"]}, RESPONSES) == "input"
    assert refused(said(part), allowed=Allowed(media_urls=True)) == ""


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": DATA}},
        {"type": "image_url", "image_url": DATA},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "image_url", "image_url": None, "uuid": "a"},
        {"type": "text", "text": "see https://example.org/a.png"},
    ],
)
def test_inline_media_and_text_pass(part: dict[str, Any]) -> None:
    assert refused(said(part)) == ""


@pytest.mark.parametrize("name", sorted(NOT_MESSAGES))
def test_a_schema_may_have_a_field_that_is_called_url(name: str) -> None:
    assert refused({name: [{"parameters": {"url": "https://example.org", "image_url": "x"}}]}) == ""


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"chat_template": "{{ x }}"}, "chat_template"),
        ({"chat_template": ""}, "chat_template"),
        ({"chat_template_kwargs": {"chat_template": "{{ x }}"}}, "chat_template_kwargs.chat_template"),
    ],
)
def test_a_request_brings_a_template_only_where_the_fleet_allows_it(fields: dict[str, Any], name: str) -> None:
    assert refused(fields) == name
    assert refused(fields, allowed=Allowed(chat_templates=True)) == ""
    assert refused({"chat_template": None, "chat_template_kwargs": {"enable_thinking": False}}) == ""


def test_only_two_headers_pass() -> None:
    given = [
        (b"content-type", b"application/json"),
        (b"accept", b"*/*"),
        (b"x-vllm-priority", b"-9"),
        (b"x-data-parallel-rank", b"1"),
        (b"x-request-id", b"a"),
        (b"x-session-id", b"a"),
        (b"authorization", b"Bearer secret"),
        (b"traceparent", b"a"),
        (b"content-encoding", b"gzip"),
    ]
    assert headers(given) == [("content-type", "application/json"), ("accept", "*/*")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32-le", "utf-8-sig"])
def test_a_field_does_not_hide_in_an_encoding_that_vllm_reads(encoding: str) -> None:
    body = json.dumps({"priority": 1}).encode(encoding)
    assert read(body) == json.loads(body)


def test_a_field_does_not_hide_behind_one_of_its_own_name() -> None:
    fields = read(b'{"priority": null, "priority": 1, "nan": NaN, "half": "\\ud800"}')
    assert fields is not None
    assert refused(fields) == "priority"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"null", b"\xff\xff\xff"])
def test_what_is_no_object_has_no_fields(body: bytes) -> None:
    assert read(body) is None


def test_nesting_too_deep_to_be_checked_is_refused() -> None:
    with pytest.raises(ApiError, match="nested too deeply"):
        read(b'{"a":' * 100_000)


def test_tokens_are_estimated_from_the_body_unless_none_are_made() -> None:
    assert prompt_tokens(CHAT, b"x" * 4000) == 1001
    assert prompt_tokens("/tokenize", b"x" * 4000) == 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["url", "a", "data"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.dictionaries(st.sampled_from([*ROUTER_S_OWN, "messages", "input", "chat_template_kwargs", "model"]), json_values)
)
def test_any_fields_pass_or_one_of_them_is_named(fields: dict[str, Any]) -> None:
    name = refused(fields)
    assert not name or name.partition(".")[0] in fields


def test_a_body_gets_the_salt_of_its_tenant_where_its_route_takes_one() -> None:
    for path in ROUTES:
        body = salted(path, b' {"model": "m", "input": "x"}', "alpha")
        assert (json.loads(body).get("cache_salt") == "alpha") is (path in SALTED)
    assert set(ROUTES) - SALTED == {"/tokenize", "/detokenize", "/v1/messages/count_tokens", "/v2/embed"}


def members(kind: Any) -> Iterator[Any]:
    """The classes of a union of unions."""
    if not hasattr(kind, "model_fields"):
        for inner in get_args(kind):
            yield from members(inner)
    else:
        yield kind


@pytest.mark.slow
def test_the_engines_own_library_takes_a_salt_on_these_routes_and_on_no_others() -> None:
    modules = {
        "openai.chat_completion": {"ChatCompletionRequest"},
        "openai.completion": {"CompletionRequest"},
        "openai.responses": {"ResponsesRequest"},
        "anthropic": {"AnthropicMessagesRequest"},
        "pooling.embed": {"EmbeddingRequest"},
        "pooling.pooling": {"PoolingRequest"},
        "pooling.classify": {"ClassificationRequest"},
        "pooling.scoring": {"ScoreRequest", "RerankRequest"},
    }
    for module, names in modules.items():
        protocol = import_module(f"vllm.entrypoints.{module}.protocol")
        for name in names:
            for kind in members(getattr(protocol, name)):
                assert "cache_salt" in kind.model_fields, f"{name}: {kind.__name__}"
    embed = import_module("vllm.entrypoints.pooling.embed.protocol")
    assert "cache_salt" not in embed.CohereEmbedRequest.model_fields
