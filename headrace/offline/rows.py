"""What does a row ask of the model?"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from deployments.openai_wire import ChatRequest, CompletionRequest
from headrace.failure import bad_input

BODY = ("custom_id", "body")
"""Columns by which OpenAI's batch lines are known."""


class BadRow(ValueError):
    """A row that can't be asked; the text says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asks:
    """How rows of these files ask."""

    kind: Literal["prompt", "chat", "messages", "body"]
    """`chat`: a prompt that is one message of a user; `body`: OpenAI's batch lines."""
    column: str
    sampling: dict[str, Any]
    """By vLLM's names; what a body says itself comes before them."""


def asks(
    columns: Sequence[str], *, prompt: str | None, messages: str | None, chat: bool, sampling: Mapping[str, Any]
) -> Asks:
    """By what the user says, else by the columns' names. Raises Failure."""
    if prompt is not None and messages is not None:
        raise bad_input("--prompt and --messages: take one of them")
    kind, column = _meant(columns, prompt, messages)
    if column not in columns:
        raise bad_input(f"there is no column {column!r}; there are: {', '.join(columns) or 'none'}")
    if chat and kind != "prompt":
        raise bad_input("--chat goes with a column of prompts: messages are a chat already")
    found = Asks(kind="chat" if chat else kind, column=column, sampling=dict(sampling))
    try:
        _converted({"prompt": "x", **sampling}, CompletionRequest)
    except BadRow as error:
        raise bad_input(f"--sampling: {error}") from None
    return found


def request(fields: Mapping[str, Any], ask: Asks) -> ChatRequest | CompletionRequest:
    """What a row asks. Raises BadRow."""
    value = fields.get(ask.column)
    if value is None:
        raise BadRow(f"no {ask.column!r}")
    match ask.kind:
        case "body":
            return _of_body(_parsed(value), ask.sampling)
        case "messages":
            return _converted({"messages": _parsed(value), **ask.sampling}, ChatRequest)
        case _ if not isinstance(value, str):
            raise BadRow(f"{ask.column!r} should be a text")
        case "chat":
            return _converted({"messages": [{"role": "user", "content": value}], **ask.sampling}, ChatRequest)
        case _:
            return _converted({"prompt": value, **ask.sampling}, CompletionRequest)


def _meant(columns: Sequence[str], prompt: str | None, messages: str | None) -> tuple[Any, str]:
    if prompt is not None:
        return "prompt", prompt
    if messages is not None:
        return "messages", messages
    if set(BODY) <= set(columns):
        return "body", "body"
    for name in ("messages", "prompt"):
        if name in columns:
            return name, name
    named = "name one with --prompt or --messages"
    raise bad_input(f"there is no column `prompt`, `messages` or `body`: {named}; there are: {', '.join(columns)}")


def _of_body(body: Any, sampling: Mapping[str, Any]) -> ChatRequest | CompletionRequest:
    if not isinstance(body, dict):
        raise BadRow("'body' should be an object")
    asked = {**sampling, **body, "stream": False, "stream_options": None}
    return _converted(asked, ChatRequest if "messages" in asked else CompletionRequest)


def _parsed(value: Any) -> Any:
    """Messages and bodies are texts of JSON where a file has no other form for them."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"no JSON: {error}") from None


def _converted(body: dict[str, Any], kind: type[Any]) -> Any:
    body = {"model": "", **{name: value for name, value in body.items() if value is not None}}
    if "messages" in body:
        body["messages"] = _bare(body["messages"])
    try:
        request = msgspec.convert(body, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise BadRow(str(error)) from None
    if not request.plain():
        raise BadRow("asks for more than text")
    if (request.n or 1) > 1:
        raise BadRow(f"asks for {request.n} answers: a row has one")
    return request


def _bare(messages: Any) -> Any:
    """Messages without fields that are null: Parquet writes every field of a struct."""
    if not isinstance(messages, list):
        return messages
    return [
        {name: value for name, value in one.items() if value is not None} if isinstance(one, dict) else one
        for one in messages
    ]
