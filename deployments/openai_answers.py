"""What does an OpenAI-style answer look like on the wire, whole or streamed?"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from deployments.frames import Delta
from deployments.openai_wire import ApiError

encode = msgspec.json.encode
DONE = b"data: [DONE]\n\n"
AFTER_TEXT = b',"logprobs":null,"finish_reason":null}]}\n\n'
AFTER_CHAT = b"}" + AFTER_TEXT


@dataclass(slots=True)
class Usage:
    """Tokens of one HTTP request, over all its prompts and choices."""

    prompt_tokens: int
    completion_tokens: int = 0
    cached_tokens: int = 0

    def body(self) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }


@dataclass(slots=True)
class Answer:
    """One answer: its identity, what has come so far, and its shape (chat or text)."""

    model: str
    chat: bool
    usage: Usage
    n: int = 1
    """Choices of each prompt: choice i belongs to prompt i // n."""
    include_usage: bool = False
    every_usage: bool = False
    """Usage so far in each chunk too."""
    id: str = ""
    created: int = field(default_factory=lambda: int(time.time()))
    _opened: set[int] = field(default_factory=set)
    _before: dict[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.id = f"{'chatcmpl' if self.chat else 'cmpl'}-{os.urandom(12).hex()}"

    def events(self, index: int, delta: Delta) -> bytes:
        """Server-sent events for one delta of choice `index`."""
        self._count(index, delta)
        opening = b""
        if self.chat and index not in self._opened:
            self._opened.add(index)
            opening = self._event(index, {"role": "assistant", "content": ""})
        if delta.finish is None and not self.every_usage:
            return opening + self._text_event(index, delta.text) if delta.text else opening
        shown = {"content": delta.text} if delta.text else {}
        return opening + self._event(index, shown if self.chat else delta.text, delta.finish, delta.stop)

    def ending(self) -> bytes:
        """The last events: usage, if it was asked for, and the end mark."""
        if not self.include_usage:
            return DONE
        return b"data: " + encode(self._frame([]) | {"usage": self.usage.body()}) + b"\n\n" + DONE

    def whole(self, choices: Sequence[Delta]) -> bytes:
        """The body of an answer that is not streamed; the choices of each prompt follow each other."""
        for index, choice in enumerate(choices):
            self._count(index, choice)
        body = {
            "id": self.id,
            "object": "chat.completion" if self.chat else "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": [self._choice(index, choice) for index, choice in enumerate(choices)],
            "usage": self.usage.body(),
        }
        return encode(body)

    def _count(self, index: int, delta: Delta) -> None:
        self.usage.completion_tokens += len(delta.token_ids)
        if delta.finish is not None and index % self.n == 0:
            self.usage.cached_tokens += delta.cached_tokens

    def _choice(self, index: int, choice: Delta) -> dict[str, Any]:
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": choice.text}} if self.chat else {"text": choice.text}
        )
        ending = {"logprobs": None, "finish_reason": choice.finish, "stop_reason": choice.stop}
        return {"index": index} | said | ending

    def _frame(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        frame = {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        return frame | {"usage": self.usage.body()} if self.every_usage else frame

    def _event(self, index: int, said: Any, finish: str | None = None, stop: Any = None) -> bytes:
        key = "delta" if self.chat else "text"
        choice = {"index": index, key: said, "logprobs": None, "finish_reason": finish}
        if finish is not None:
            choice["stop_reason"] = stop
        return b"data: " + encode(self._frame([choice])) + b"\n\n"

    def _text_event(self, index: int, text: str) -> bytes:
        """The common case, from a prepared beginning: only the text is encoded."""
        before = self._before.get(index)
        if before is None:
            marked = self._event(index, {"content": "\0"} if self.chat else "\0")
            before = self._before[index] = marked[: marked.rindex(b'"\\u0000"')]
        return before + encode(text) + (AFTER_CHAT if self.chat else AFTER_TEXT)


def error_event(error: ApiError) -> bytes:
    """An error inside a stream, then the end mark."""
    return b"data: " + encode(error.body) + b"\n\n" + DONE
