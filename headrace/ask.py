"""What does the served model answer to one question, and how fast?"""

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from time import monotonic
from typing import Any

import httpx

CHAT = "/v1/chat/completions"


class AnswerFailed(RuntimeError):
    """The endpoint refused or broke off; its text says so in the endpoint's own words."""


@dataclass(slots=True)
class Answer:
    """An answer as far as it has come."""

    text: str = ""
    first_s: float | None = None
    """Seconds from the question to the first text."""
    last_s: float = 0.0
    tokens: int = 0

    @property
    def figures(self) -> str:
        """Tokens, rate and time to first token, in one line."""
        if self.first_s is None:
            return f"{self.tokens} tokens"
        decoding_s = self.last_s - self.first_s
        rate = f", {(self.tokens - 1) / decoding_s:.1f} tokens/s" if self.tokens > 1 and decoding_s > 0 else ""
        return f"{self.tokens} tokens, first after {self.first_s:.2f} s{rate}"


def one_question(model: str, question: str) -> dict[str, Any]:
    """A request for the likeliest answer: the same each time."""
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 128}


def stream(url: str, request: dict[str, Any], answer: Answer) -> Iterator[str]:
    """Sends a chat request; yields text as it comes, and fills `answer` meanwhile. Raises AnswerFailed."""
    body = {**request, "stream": True, "stream_options": {"include_usage": True}}
    start_s = monotonic()
    try:
        for event in _events(url, body):
            if text := _text(event):
                answer.last_s = monotonic() - start_s
                answer.first_s = answer.last_s if answer.first_s is None else answer.first_s
                answer.text += text
                yield text
            if usage := event.get("usage"):
                answer.tokens = usage["completion_tokens"]
    except httpx.HTTPError as error:
        raise AnswerFailed(f"{url} broke off: {error or type(error).__name__}") from None


def curl(url: str, request: dict[str, Any]) -> str:
    """A shell command that sends the same request."""
    body = shlex.quote(json.dumps(request, ensure_ascii=False))
    return f"curl {url}{CHAT} -H 'Content-Type: application/json' -d {body}"


def _events(url: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    timeout = httpx.Timeout(10.0, read=600.0)
    with httpx.stream("POST", f"{url}{CHAT}", json=body, timeout=timeout, trust_env=False) as answer:
        if answer.status_code != 200:
            raise AnswerFailed(_refusal(answer.read(), answer.status_code))
        for line in answer.iter_lines():
            data = line.removeprefix("data: ")
            if data == line or data == "[DONE]":
                continue
            event = json.loads(data)
            if "error" in event:
                raise AnswerFailed(event["error"].get("message", data))
            yield event


def _text(event: dict[str, Any]) -> str:
    return "".join(choice["delta"].get("content") or "" for choice in event.get("choices", []))


def _refusal(content: bytes, status: int) -> str:
    try:
        return f"{status}: {json.loads(content)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}: {content[:200].decode(errors='replace')}"
