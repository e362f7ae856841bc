"""Which requests reach vLLM's own application, and do they as they were sent?"""

import json
from pathlib import Path
from typing import Any

import pytest

from deployments.fleet import RouterSettings
from deployments.forward import ROUTES, anthropic
from tests.deployments.fake_engine import FakeEngine
from tests.deployments.http_served import CHAT, MODEL, RESPONSES, TEXT, Served, do, serve

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("path", ROUTES)
async def test_every_route_reaches_the_application_with_the_body_as_it_was(served: Served, path: str) -> None:
    body = b'{"model" : "tiny", "odd": [1e400, NaN, "\\ud800"] }'
    headers = {"content-type": "application/json", "x-vllm-priority": "-9", "authorization": "Bearer x"}
    answer = await served.http.post(f"{path}?dev=1", content=body, headers=headers)
    said = answer.json()
    assert (said["method"], said["path"], said["body"]) == ("POST", path, body.decode())
    assert said["headers"] == {"content-type": "application/json", "accept": "*/*"}


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "logprobs": True}),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "tools": [{}]}),
        (CHAT, {"messages": "wrong"}),
        (CHAT, {}),
        (TEXT, {"prompt": "x", "echo": True}),
        (TEXT, {"prompt": ["x", [1]]}),
        (TEXT, {"prompt": "x", "unknown": 1}),
    ],
)
async def test_what_the_fast_path_does_not_take_is_the_application_s(
    served: Served, path: str, fields: dict[str, Any]
) -> None:
    answer = await served.http.post(path, json={"model": MODEL} | fields)
    assert json.loads(answer.json()["body"]) == {"model": MODEL} | fields
    assert not served.engine.submits


async def test_every_chat_of_a_model_that_reasons_is_the_application_s(fresh: Served) -> None:
    fresh.desk.reasons = True
    answer = await fresh.http.post(CHAT, json={"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
    assert answer.json()["path"] == CHAT
    answer = await fresh.http.post(TEXT, json={"model": MODEL, "prompt": "x"})
    assert answer.json()["object"] == "text_completion"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"3", b"{}", b'{"model":null}', b"\xff"])
async def test_with_one_model_a_body_need_not_name_it(served: Served, body: bytes) -> None:
    answer = await served.http.post(CHAT, content=body)
    assert answer.json()["body"].encode("latin-1") == body


async def test_with_several_models_a_body_must_name_one(served: Served) -> None:
    served.api._desks["other"] = served.desk
    try:
        for body in (b"{", b"{}", b'{"model":3}'):
            answer = await served.http.post(CHAT, content=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["type"] == "invalid_request_error"
    finally:
        del served.api._desks["other"]
    assert not served.engine.calls


async def test_an_unknown_model_is_not_found_on_every_route(served: Served) -> None:
    for path in ROUTES:
        answer = await served.http.post(path, json={"model": "big", "do": "echo"})
        assert answer.status_code == 404
        error = answer.json()["error"]
        assert (error.get("code"), error["type"]) == (
            (None, "not_found_error") if anthropic(path) else ("model_not_found", "invalid_request_error")
        )
    assert not served.engine.calls


@pytest.mark.parametrize(
    "path",
    [
        "/start_profile", "/stop_profile", "/sleep", "/wake_up", "/is_sleeping", "/pause", "/resume", "/is_paused",
        "/collective_rpc", "/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/update_weights",
        "/init_weight_transfer_engine", "/scale_elastic_ep", "/is_scaling_elastic_ep", "/abort_requests",
        "//sleep", "/sleep/", "/Sleep", "/%73leep", "/v1/../sleep", "/v1/%2e%2e/sleep", "/sleep;x",
        "/docs", "/openapi.json", "/server_info", "/reset_prefix_cache", "/v1/responses/resp_1",
        "/v1/responses/resp_1/cancel", "/v1/chat/completions/", "//tokenize", "/v1/chat/completions/batch",
        "/inference/v1/generate", "/invocations", "/tokenizer_info", "/load", "/version",
    ],
)  # fmt: skip
async def test_operator_routes_are_unknown_here(served: Served, path: str) -> None:
    for method in ("GET", "POST"):
        answer = await served.http.request(method, path, json={"model": MODEL})
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert not served.engine.calls


async def test_forwarded_routes_take_post_alone(served: Served) -> None:
    answer = await served.http.get("/tokenize")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "fields", "name"),
    [
        (CHAT, {"priority": -1}, "priority"),
        (CHAT, {"messages": [{"role": "user", "content": "x"}], "request_id": "a"}, "request_id"),
        (TEXT, {"prompt": "x", "cache_salt": "other's"}, "cache_salt"),
        (RESPONSES, {"background": True}, "background"),
        (RESPONSES, {"store": True}, "store"),
        (CHAT, {"messages": [{"role": "user", "content": [{"image_url": "http://a.org"}]}]}, "messages"),
        ("/tokenize", {"chat_template": "x"}, "chat_template"),
    ],
)
async def test_a_field_that_is_the_router_s_is_refused_by_its_name(
    served: Served, path: str, fields: dict[str, Any], name: str
) -> None:
    answer = await served.http.post(path, json={"model": MODEL} | fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, name)
    assert not served.engine.calls


@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_half_a_character_in_a_name_does_not_spoil_its_refusal(served: Served, path: str) -> None:
    answer = await served.http.post(path, content=b'{"model": "a\\ud800"}')
    assert answer.status_code == 404
    assert "The model 'a?' does not exist" in answer.json()["error"]["message"]
    answer = await served.http.post(path, content=b'{"model": "tiny", "\\udfff": [{"image_url": "http://a.org"}]}')
    assert answer.status_code == 400


async def test_a_fleet_may_allow_media_and_templates(tokenizer_folder: Path) -> None:
    settings = RouterSettings(allow_media_urls=True, allow_chat_templates=True)
    async with serve(tokenizer_folder, FakeEngine(), settings=settings) as served:
        answer = await served.http.post(
            CHAT, json=do("echo", chat_template="x", messages=[{"image_url": "http://a.org"}])
        )
        assert answer.status_code == 200
