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


MADE_ANEW = frozenset(
    {"id", "item_id", "request_id", "created", "created_at", "completed_at", "sequence_number", "system_fingerprint"}
)
"""What differs between two answers to the same request: ids, times, and numbers of events, which are joined here."""
JOINED = frozenset(
    {"content", "text", "delta", "reasoning", "arguments", "partial_json", "token_ids", "tokens", "token_logprobs",
     "top_logprobs", "text_offset"}
)  # fmt: skip
"""Where adjacent events hold pieces of one text or list."""


@dataclass(frozen=True, kw_only=True)
class Exact:
    """Everything that a program sees of an answer, but for MADE_ANEW; events are joined where they may be."""

    status: int
    kind: str
    said: Any


def ask_exactly(client: httpx.Client, path: str, body: dict[str, Any] | bytes) -> Exact:
    """Asks one server; a dictionary is sent as JSON."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = client.post(path, content=content, headers={"content-type": "application/json"})
    kind = response.headers.get("content-type", "")
    said = _told(response.text) if kind.startswith("text/event-stream") else _lasting(response.json())
    return Exact(status=response.status_code, kind=kind, said=said)


def _told(text: str) -> list[Any]:
    """The events of a stream: of each choice in order, adjacent pieces joined."""
    events = [_event(block) for block in text.split("\n\n") if block]
    joined: list[Any] = []
    for event in sorted(events, key=_choice):
        both = _join(joined[-1], event) if joined else None
        if both is None:
            joined.append(event)
        else:
            joined[-1] = both
    return joined


def _event(block: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    data = fields["data"]
    return {"event": fields.get("event", ""), "data": data if data == "[DONE]" else _lasting(json.loads(data))}


def _choice(event: dict[str, Any]) -> int:
    choices = event["data"].get("choices") if isinstance(event["data"], dict) else None
    return choices[0]["index"] if choices else 0 if choices is None and event["data"] != "[DONE]" else 99


def _lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lasting(inner) for name, inner in value.items() if name not in MADE_ANEW}
    if isinstance(value, list):
        return [_lasting(inner) for inner in value]
    return round(value, 3) if isinstance(value, float) else value


def _join(first: Any, second: Any, name: str = "") -> Any:
    """Two values as one; None when they are not pieces of one."""
    if first == second and name not in JOINED:
        return first
    if name in JOINED and type(first) is type(second) and isinstance(first, str | list):
        return first + second
    if isinstance(first, list) and isinstance(second, list) and len(first) == len(second) == 1:
        inner = _join(first[0], second[0])
        return None if inner is None else [inner]
    if not isinstance(first, dict) or not isinstance(second, dict):
        return None
    both = first | {name: value for name, value in second.items() if first.get(name) is None}
    for name in [name for name in first if first[name] is not None and second.get(name) is not None]:
        if (inner := _join(first[name], second[name], name)) is None:
            return None
        both[name] = inner
    return both
