"""What does an error of ours look like in Anthropic's API?"""

from typing import Any

import msgspec

from deployments.openai_wire import ApiError

TYPES = {
    "not_found": "not_found_error",
    "model_not_found": "not_found_error",
    "model_not_allowed": "permission_error",
    "invalid_api_key": "authentication_error",
    "body_too_large": "request_too_large",
    "rate_limit_exceeded": "rate_limit_error",
    "insufficient_quota": "rate_limit_error",
    "overloaded": "overloaded_error",
    "engine_error": "api_error",
    "timeout": "timeout_error",
}
"""By our code, what Anthropic's clients know; every other refusal is an `invalid_request_error`."""


def body(error: ApiError) -> dict[str, Any]:
    """The whole body of an answer."""
    kind = TYPES.get(error.code or "", "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": str(error)}}


def event(error: ApiError) -> bytes:
    """An error inside a stream, which ends with it."""
    return b"event: error\ndata: " + msgspec.json.encode(body(error)) + b"\n\n"
