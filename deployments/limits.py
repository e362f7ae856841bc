"""What does a request ask for beyond what the fleet allows one request?"""

from typing import Any

from deployments.fleet import Limits
from deployments.openai_wire import ApiError

LENGTHS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
"""Fields that bound an answer, by API."""
STOPS = ("stop", "stop_sequences")
FIELDS = (*LENGTHS, "n", *STOPS)


def check(asked: dict[str, Any], limits: Limits) -> None:
    """Raises ApiError(400) for a number or a list that is too large. What is no number or list is not ours to judge."""
    for name in LENGTHS:
        _check_number(name, asked.get(name), limits.max_tokens)
    _check_number("n", asked.get("n"), limits.n)
    for name in STOPS:
        if isinstance(stop := asked.get(name), list) and len(stop) > limits.stop_strings:
            raise _too_much(name, f"holds {len(stop)} strings", limits.stop_strings)


def check_prompt(tokens: int, limits: Limits, field: str) -> None:
    """Raises ApiError(400) for a prompt that is too long."""
    if limits.prompt_tokens is not None and tokens > limits.prompt_tokens:
        raise _too_much(field, f"has {tokens} tokens", limits.prompt_tokens)


def _check_number(name: str, value: Any, most: int | None) -> None:
    if most is not None and isinstance(value, int) and value > most:
        raise _too_much(name, f"is {value}", most)


def _too_much(field: str, told: str, most: int) -> ApiError:
    message = f"'{field}' {told}; this server takes {most} at most."
    return ApiError(400, message, param=field, code="limit_exceeded")
