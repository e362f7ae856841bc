"""What do two servers say to the same request, so that it can be compared?"""

import json
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a program can tell: not the words of an error, nor how a stream was cut into events."""

    status: int
    """Of the response, or of the error inside a stream: vLLM refuses some streams after it began them."""
    choices: tuple[tuple[int, str, str | None, Any], ...] = ()
    """Index, text, finish reason, stop reason; in order."""
    usage: tuple[int, int, int] | None = None
    """Prompt, completion and total tokens."""


def ask(client: httpx.Client, path: str, body: dict[str, Any] | bytes, *, stream: bool) -> Answer:
    """Asks one server. Streams are asked for their usage and joined."""
    if isinstance(body, bytes):
        response = client.post(path, content=body, headers={"content-type": "application/json"})
    elif stream:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        response = client.post(path, json=body | options)
    else:
        response = client.post(path, json=body)
    if response.status_code != 200:
        assert response.json()["error"]["message"]
        return Answer(status=response.status_code)
    return _joined(_events(response.text) if stream else [response.json()])


def _events(text: str) -> list[dict[str, Any]]:
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def _joined(parts: list[dict[str, Any]]) -> Answer:
    texts: dict[int, str] = {}
    ends: dict[int, tuple[str | None, Any]] = {}
    usage = None
    for part in parts:
        if "error" in part:
            return Answer(status=part["error"]["code"])
        for choice in part["choices"]:
            index = choice["index"]
            texts[index] = texts.get(index, "") + _text(choice)
            if choice["finish_reason"] is not None:
                ends[index] = (choice["finish_reason"], choice.get("stop_reason"))
        if part.get("usage") is not None:
            said = part["usage"]
            usage = (said["prompt_tokens"], said["completion_tokens"], said["total_tokens"])
    choices = tuple((index, texts[index], *ends.get(index, (None, None))) for index in sorted(texts))
    return Answer(status=200, choices=choices, usage=usage)


def _text(choice: dict[str, Any]) -> str:
    if "text" in choice:
        return choice["text"]
    return (choice.get("delta") or choice.get("message") or {}).get("content") or ""
