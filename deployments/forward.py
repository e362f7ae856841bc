"""Which requests may vLLM's own application answer, and what of them reaches it?

A body is read with the parser that vLLM's application uses, so that no field hides from these checks.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from deployments.openai_wire import ApiError

ROUTES = (
    "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens",
    "/v1/embeddings", "/v2/embed", "/v1/score", "/v1/rerank", "/v2/rerank", "/score", "/rerank", "/pooling",
    "/classify", "/tokenize", "/detokenize",
)  # fmt: skip
"""All take POST. Which of them a model answers depends on what it is: vLLM says 404 for the others."""

HEADERS = frozenset({b"content-type", b"accept"})
"""The only headers that pass: others would set priority, data-parallel rank or request id."""

ROUTER_S_OWN = (
    "priority", "cache_salt", "kv_transfer_params", "request_id", "session_id", "vllm_xargs", "data_parallel_rank",
)  # fmt: skip
"""Fields that reach into the engine."""

STORED = ("store", "background", "previous_response_id")
"""Fields of a response that ask for stored state."""

MEDIA = frozenset({"url", "image_url", "audio_url", "video_url", "file_url", "input_audio"})
"""Keys under which a part of a message says where media is."""
NOT_MESSAGES = frozenset(
    {"tools", "functions", "response_format", "structured_outputs", "text", "metadata", "documents"}
)
"""Fields that hold schemas or plain data, where those keys mean nothing."""
SCORES = frozenset({"/score", "/v1/score", "/rerank", "/v1/rerank", "/v2/rerank"})
"""Here documents may be made of parts, as messages are."""

UNTOKENED = frozenset({"/tokenize", "/detokenize", "/v1/messages/count_tokens"})
"""Nothing is computed for these."""
SALTED = frozenset(ROUTES) - UNTOKENED - {"/v2/embed"}
"""Routes whose bodies may hold a `cache_salt`. Cohere's has no field for it."""
BYTES_PER_TOKEN = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """What the fleet lets requests bring along."""

    media_urls: bool = False
    chat_templates: bool = False


def read(body: bytes) -> dict[str, Any] | None:
    """The fields of a body; None when it holds no JSON object, which vLLM will refuse in its own words."""
    try:
        fields = json.loads(body)
    except RecursionError:
        raise ApiError(400, "The body is nested too deeply.", code="invalid_json") from None
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None


def check(path: str, fields: dict[str, Any], allowed: Allowed) -> None:
    """Raises ApiError(400) for a field that may not pass; null asks for nothing."""
    for name in ROUTER_S_OWN:
        _refuse_if(fields.get(name) is not None, name, "is set by this server, not by requests")
    if path == "/v1/responses":
        for name in STORED:
            _refuse_if(fields.get(name) not in (None, False), name, "needs stored responses, which this server lacks")
    if not allowed.chat_templates:
        more = fields.get("chat_template_kwargs")
        inner = more.get("chat_template") if isinstance(more, dict) else None
        _refuse_if(fields.get("chat_template") is not None, "chat_template", "is not allowed by this fleet")
        _refuse_if(inner is not None, "chat_template_kwargs.chat_template", "is not allowed by this fleet")
    if not allowed.media_urls:
        _check_media(path, fields)


def anthropic(path: str) -> bool:
    """Whether a route is of Anthropic's API, which has errors of its own shape."""
    return path.startswith("/v1/messages")


def headers(given: Iterable[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Those of a request's headers that pass; ASGI gives names in lower case."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in given if name in HEADERS]


def prompt_tokens(path: str, body: bytes) -> int:
    """Tokens that a body may hold, for the queue's order and budget until the engine tells them."""
    return 1 if path in UNTOKENED else 1 + len(body) // BYTES_PER_TOKEN


def _refuse_if(wrong: bool, name: str, why: str) -> None:
    if wrong:
        raise ApiError(400, f"'{name}' {why}.", param=name, code="unsupported_parameter")


def _check_media(path: str, fields: dict[str, Any]) -> None:
    plain = NOT_MESSAGES - {"documents"} if path in SCORES else NOT_MESSAGES
    for name, value in fields.items():
        if name not in plain and (key := _remote_media(value)):
            _refuse_if(True, name, f"has '{key}' that is no data: URL; this fleet does not fetch media")
    images = fields.get("images") if path == "/v2/embed" else None
    for image in images if isinstance(images, list) else ():
        remote = isinstance(image, str) and not image.startswith("data:")
        _refuse_if(remote, "images", "holds one that is no data: URL; this fleet does not fetch media")


def _remote_media(value: Any) -> str | None:
    """The key under which something other than inline data is asked for, anywhere inside."""
    left = [value]
    while left:
        inside = left.pop()
        if isinstance(inside, list):
            left.extend(inside)
        elif isinstance(inside, dict):
            for key, held in inside.items():
                if key in MEDIA and isinstance(held, str) and held and not held.startswith("data:"):
                    return key
                left.append(held)
    return None


def salted(path: str, body: bytes, salt: str) -> bytes:
    """The body of an object that is not empty, such that the engine shares its prefixes with this salt's alone."""
    start = body.find(b"{") + 1
    if path not in SALTED or not start or b"\0" in body[: start + 1]:  # UTF-16 can be read, too
        return body
    return body[:start] + f'"cache_salt":{json.dumps(salt)},'.encode() + body[start:]
