"""Which OpenAI-style request bodies ask for plain text, and what do they say?

The others are vLLM's own application's to read: `parse` answers None.
"""

from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta


class ApiError(Exception):
    """A refusal, or the end of a request that could not be answered; `body` is in OpenAI's shape."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
        allow: str | None = None,
        close: bool = False,
    ) -> None:
        # A name that a client made up may hold half a character, which no UTF-8 can say.
        message = message.encode(errors="replace").decode()
        super().__init__(message)
        self.status, self.code = status, code
        told = {"retry-after": retry_after_s, "allow": allow, "connection": "close" if close else None}
        self.headers = {name: str(value) for name, value in told.items() if value is not None}
        param = param.encode(errors="replace").decode() if param is not None else None
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


COMPLETION_TOKENS = 16
"""`max_tokens` of a text completion that names none: OpenAI's default, and vLLM's."""
INT64_MOST = 2**63 - 1

# Wider integers have no place in msgpack, nor in vLLM.
Integer = Annotated[int, Meta(ge=-INT64_MOST - 1, le=INT64_MOST)]
Count = Annotated[int, Meta(ge=1, le=INT64_MOST)]
TokenId = Annotated[int, Meta(ge=0, le=INT64_MOST)]


class StreamOptions(msgspec.Struct, forbid_unknown_fields=True):
    include_usage: bool = False
    continuous_usage_stats: bool = False


class Common(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Fields that chat and text completions share: OpenAI's, and vLLM's sampling extras."""

    model: str
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = 1
    max_tokens: Count | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Integer | None = None
    min_p: float | None = None
    seed: Integer | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    min_tokens: Integer | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[Integer] | None = None
    include_stop_str_in_output: bool | None = None
    skip_special_tokens: bool | None = None
    spaces_between_special_tokens: bool | None = None
    add_special_tokens: bool | None = None
    # Said about the request, without effect on the answer.
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: str | None = None
    # Clients write these out of habit. They ask for nothing only as they are here.
    response_format: None = None

    def plain(self) -> bool:
        """Whether the fields agree with each other, and none of them needs more than text."""
        return self.stream_options is None or bool(self.stream)


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    # The official client's `model_dump()` writes these into each answer that is sent back.
    refusal: None = None
    annotations: None = None
    audio: None = None
    function_call: None = None
    tool_calls: None = None


class ChatRequest(Common, kw_only=True, forbid_unknown_fields=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    tools: None = None
    tool_choice: None = None
    logprobs: bool | None = None
    top_logprobs: None = None

    def plain(self) -> bool:
        return Common.plain(self) and not self.logprobs


class CompletionRequest(Common, kw_only=True, forbid_unknown_fields=True):
    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]

    echo: bool | None = None
    suffix: None = None
    logprobs: None = None

    def plain(self) -> bool:
        """Also: prompts are all of one kind."""
        kinds = {type(item) for item in self.prompt} if isinstance(self.prompt, list) else ()
        return Common.plain(self) and not self.echo and len(kinds) <= 1

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one by one: texts or token ids."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        items: list[Any] = self.prompt
        return [items] if type(items[0]) is int else items


SAMPLING = (
    "n", "stop", "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "min_tokens", "ignore_eos", "stop_token_ids",
    "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens",
)  # fmt: skip

T = TypeVar("T", ChatRequest, CompletionRequest)

_DECODERS: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (ChatRequest, CompletionRequest)}


def parse(kind: type[T], body: bytes) -> T | None:
    """Reads the body of a request for plain text; None when it is none: other fields, or something wrong with them."""
    try:
        request = _DECODERS[kind].decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return request if request.plain() else None


def sampling(request: Common) -> dict[str, Any]:
    """The sampling parameters that the client gave, by vLLM's names, without `max_tokens`."""
    given = {name: value for name in SAMPLING if (value := getattr(request, name)) is not None}
    if given.get("n") == 1:
        del given["n"]
    return given
