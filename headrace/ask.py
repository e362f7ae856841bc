"""What does the served model answer to one question, and how fast?"""

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

import httpx

from headrace.authorities import authorities

CHAT = "/v1/chat/completions"
KEY_VARIABLE = "HEADRACE_API_KEY"
"""Holds the key of a tenant, for endpoints that ask for one."""
VARIANT = "x-headrace-variant"
"""Header that names which form of the model an answer is from."""
POOLED = {"embed": "/v1/embeddings", "classify": "/classify"}
"""Where a model that gives no text is asked, by what it gives; /pooling for all else."""


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
    prompt_tokens: int = 0
    variant: str | None = None
    """Which one answered, where the model has any."""

    @property
    def figures(self) -> str:
        """Tokens, rate and time to first token, in one line."""
        if self.first_s is None:
            return f"{self.tokens} tokens"
        decoding_s = self.last_s - self.first_s
        rate = f", {(self.tokens - 1) / decoding_s:.1f} tokens/s" if self.tokens > 1 and decoding_s > 0 else ""
        return f"{self.tokens} tokens, first after {self.first_s:.2f} s{rate}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A request that a model of its kind answers."""

    path: str
    body: dict[str, Any]

    @property
    def streams(self) -> bool:
        """Its answer is text."""
        return self.path == CHAT


def authorization(key: str | None) -> dict[bytes, bytes]:
    """The header that says who asks."""
    return {} if key is None else {b"authorization": b"Bearer " + key.encode()}


def sample(url: str, model: str, text: str, key: str | None = None) -> Sample:
    """What `text` is to this model: a question, or something to pool. Raises AnswerFailed."""
    try:
        card = httpx.get(f"{url}/v1/models/{model}", headers=authorization(key), timeout=10.0, trust_env=False)
    except httpx.HTTPError as error:
        raise AnswerFailed(f"{url} broke off: {error or type(error).__name__}") from None
    if card.status_code != 200:
        raise AnswerFailed(_refusal(card.content, card.status_code))
    if (pooling := card.json().get("pooling")) is None:
        return Sample(path=CHAT, body=one_question(model, text))
    return Sample(path=POOLED.get(pooling, "/pooling"), body={"model": model, "input": text})


def one_question(model: str, question: str) -> dict[str, Any]:
    """A request for the likeliest answer: the same each time."""
    messages = [{"role": "user", "content": question}]
    return {"model": model, "messages": messages, "temperature": 0, "max_tokens": 128}


def stream(
    url: str,
    request: dict[str, Any],
    answer: Answer,
    key: str | None = None,
    headers: Mapping[bytes, bytes] | None = None,
) -> Iterator[str]:
    """Sends a chat request; yields text as it comes, and fills `answer` meanwhile. Raises AnswerFailed."""
    who = {**authorization(key), **(headers or {})}
    body = {**request, "stream": True, "stream_options": {"include_usage": True}}
    start_s = monotonic()
    try:
        for event in _events(url, body, answer, who):
            if text := _text(event):
                answer.last_s = monotonic() - start_s
                answer.first_s = answer.last_s if answer.first_s is None else answer.first_s
                answer.text += text
                yield text
            if usage := event.get("usage"):
                answer.tokens, answer.prompt_tokens = usage["completion_tokens"], usage.get("prompt_tokens", 0)
    except httpx.HTTPError as error:
        raise AnswerFailed(f"{url} broke off: {error or type(error).__name__}") from None


def numbers(url: str, request: Sample, key: str | None = None) -> str:
    """The first numbers that a text was pooled to, how many there are and how long it took. Raises AnswerFailed."""
    start_s = monotonic()
    try:
        answer = httpx.post(
            f"{url}{request.path}", json=request.body, headers=authorization(key), timeout=60.0, trust_env=False
        )
    except httpx.HTTPError as error:
        raise AnswerFailed(f"{url} broke off: {error or type(error).__name__}") from None
    if answer.status_code != 200:
        raise AnswerFailed(_refusal(answer.content, answer.status_code))
    (pooled,) = answer.json()["data"]
    values = next(pooled[name] for name in ("embedding", "probs", "data") if name in pooled)
    shown = ", ".join(str(value) if isinstance(value, list) else f"{value:.4f}" for value in values[:4])
    rest = ", ..." if len(values) > 4 else ""
    return f"[{shown}{rest}]\n  {len(values)} numbers after {monotonic() - start_s:.2f} s"


def curl(url: str, request: Sample | None, *, needs_key: bool = False) -> str:
    """A shell command that sends the same request, or asks which models there are; the key stays a variable."""
    who = f' -H "Authorization: Bearer ${KEY_VARIABLE}"' if needs_key else ""
    if request is None:
        return f"curl {url}/v1/models{who}"
    body = shlex.quote(json.dumps(request.body, ensure_ascii=False))
    return f"curl {url}{request.path}{who} -H 'Content-Type: application/json' -d {body}"


def _events(url: str, body: dict[str, Any], answer: Answer, headers: Mapping[bytes, bytes]) -> Iterator[dict[str, Any]]:
    http = httpx.Client(timeout=httpx.Timeout(10.0, read=600.0), trust_env=False, verify=authorities(url))
    with http, http.stream("POST", f"{url}{CHAT}", json=body, headers=headers) as reply:
        if reply.status_code != 200:
            raise AnswerFailed(_refusal(reply.read(), reply.status_code))
        answer.variant = reply.headers.get(VARIANT)
        for line in reply.iter_lines():
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
