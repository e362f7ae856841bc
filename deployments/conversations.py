"""Which conversation does a request belong to?

Its opening says so: what was said up to the first words of the user, which every later request repeats. Prefix keys
would not do: conversations of one application begin with the same long instructions.
"""

from collections.abc import Iterable
from typing import Any

from deployments.openai_wire import ChatRequest, TextPart


def of_chat(request: ChatRequest) -> int | None:
    """The same number for every request of a conversation; None where no user said anything."""
    return _opening(request.model, ((message.role, message.content) for message in request.messages))


def of_body(fields: dict[str, Any] | None) -> int | None:
    """The same for a body of any API with messages: the number of a plain chat that says the same."""
    said = (fields or {}).get("messages") or (fields or {}).get("input")
    if fields is None or not isinstance(said, list):
        return None
    messages = [one for one in said if isinstance(one, dict)]
    return _opening(str(fields.get("model")), ((one.get("role"), one.get("content")) for one in messages))


def _opening(model: str, said: Iterable[tuple[object, object]]) -> int | None:
    words: list[str] = [model]
    for role, content in said:
        words += [str(role), *_texts(content)]
        if role == "user":
            return hash(tuple(words))
    return None


def _texts(content: object) -> list[str]:
    if not isinstance(content, list):
        return [content if isinstance(content, str) else ""]
    texts = (part.text if isinstance(part, TextPart) else _text(part) for part in content)
    return [text for text in texts if isinstance(text, str)]


def _text(part: object) -> object:
    return part.get("text") if isinstance(part, dict) else part
