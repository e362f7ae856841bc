"""What may an OpenAI-style request body say, and what is wrong with one that can't be taken?"""

import difflib
import re
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta


class ApiError(Exception):
    """A refusal in OpenAI's error shape."""

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
    ) -> None:
        super().__init__(message)
        self.status = status
        told = {"retry-after": retry_after_s, "allow": allow}
        self.headers = {name: str(value) for name, value in told.items() if value is not None}
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


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


class TextPart(msgspec.Struct, forbid_unknown_fields=True):
    type: Literal["text"]
    text: str


class Message(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None


class ChatRequest(Common, kw_only=True, forbid_unknown_fields=True):
    messages: Annotated[list[Message], Meta(min_length=1)]
    max_completion_tokens: Count | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class CompletionRequest(Common, kw_only=True, forbid_unknown_fields=True):
    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)]

    def prompts(self) -> list[str | list[int]]:
        """The prompts, one by one: texts or token ids. Raises ApiError when kinds are mixed."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        items: list[Any] = self.prompt
        kinds = {type(item) for item in items}
        if len(kinds) > 1:
            raise ApiError(400, "'prompt' mixes texts, token ids and lists of token ids.", param="prompt")
        return [items] if kinds == {int} else items


NOT_OFFERED = {
    "audio", "best_of", "chat_template", "chat_template_kwargs", "documents", "echo", "function_call",
    "functions", "guided_choice", "guided_grammar", "guided_json", "guided_regex", "logprobs", "modalities",
    "parallel_tool_calls", "prediction", "prompt_logprobs", "reasoning_effort", "response_format",
    "structured_outputs", "suffix", "tool_choice", "tools", "top_logprobs", "verbosity", "web_search_options",
}  # fmt: skip
"""Fields of the API that this server knows but can't serve yet."""

NOT_OFFERED_IN_MESSAGES = {
    "annotations", "audio", "function_call", "reasoning", "reasoning_content", "refusal", "tool_call_id",
    "tool_calls",
}  # fmt: skip
"""The same, of a message."""

SAMPLING = (
    "n", "stop", "temperature", "top_p", "top_k", "min_p", "seed", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "min_tokens", "ignore_eos", "stop_token_ids",
    "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens",
)  # fmt: skip

T = TypeVar("T", ChatRequest, CompletionRequest)

_DECODERS: dict[type, Any] = {kind: msgspec.json.Decoder(kind) for kind in (ChatRequest, CompletionRequest)}


def parse(kind: type[T], body: bytes) -> T:
    """Reads a request body. Raises ApiError(400) that names the field, what was wrong and what is allowed."""
    try:
        request = _DECODERS[kind].decode(body)
    except msgspec.DecodeError as error:
        request = _without_idle_fields(kind, body, str(error))
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "stream_options is only allowed with stream: true.", param="stream_options")
    return request


def sampling(request: Common) -> dict[str, Any]:
    """The sampling parameters that the client gave, by vLLM's names, without `max_tokens`."""
    given = {name: value for name in SAMPLING if (value := getattr(request, name)) is not None}
    if given.get("n") == 1:
        del given["n"]
    return given


def _active(fields: dict[str, Any], not_offered: set[str]) -> dict[str, Any]:
    """Without the fields that ask for nothing: clients send `tools: []` or `refusal: null` out of habit."""
    return {name: value for name, value in fields.items() if name not in not_offered or not _is_idle(name, value)}


def _is_idle(name: str, value: Any) -> bool:
    if value in (None, False, 0, [], {}, "none"):
        return True
    return (name, value) in (("response_format", {"type": "text"}), ("best_of", 1))


def _without_idle_fields(kind: type[T], body: bytes, words: str) -> T:
    """Parses again without the fields that ask for nothing; raises ApiError when there are none."""
    try:
        fields = msgspec.json.decode(body)
    except msgspec.DecodeError as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.", code="invalid_json") from None
    if not isinstance(fields, dict):
        raise ApiError(400, "The body must be a JSON object.")
    active = _active(fields, NOT_OFFERED)
    if isinstance(messages := active.get("messages"), list):
        active["messages"] = [
            _active(message, NOT_OFFERED_IN_MESSAGES) if isinstance(message, dict) else message for message in messages
        ]
    if active == fields:
        raise _field_error(kind, fields, words)
    return parse(kind, msgspec.json.encode(active))


def _field_error(kind: type, fields: dict[str, Any], words: str) -> ApiError:
    """Turns msgspec's words ("Expected `int`, got `str` - at `$.n`") into one sentence about the field."""
    where = re.search(r" - at `\$\.?([^`]*)`$", words)
    path = where.group(1) if where else ""
    said = (words[: where.start()] if where else words).replace("`", "")
    if unknown := re.search(r"unknown field (.*)", said):
        return _unknown_field(kind, unknown.group(1), path)
    if missing := re.search(r"missing required field (.*)", said):
        name = f"{path}.{missing.group(1)}".lstrip(".")
        return ApiError(400, f"'{name}' is missing.", param=name)
    # A path through a dictionary ends in [...]: which of its values it was is not said.
    shown = "" if "..." in path else f" (it was {msgspec.json.encode(_value_at(fields, path)).decode()[:80]})"
    return ApiError(400, f"'{path}': {said}{shown}.", param=path.removesuffix("[...]"))


def _unknown_field(kind: type, name: str, path: str) -> ApiError:
    param = f"{path}.{name}".lstrip(".")
    if name in (NOT_OFFERED_IN_MESSAGES if path else NOT_OFFERED):
        message = f"'{param}' is not offered by this server yet."
        return ApiError(400, message, param=param, code="unsupported_parameter")
    inside = f" in '{path}'" if path else ""
    known = [] if path else [field.name for field in msgspec.structs.fields(kind)]
    near = difflib.get_close_matches(name, known, 1)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return ApiError(400, f"Unknown field '{name}'{inside}.{hint}", param=param, code="unknown_parameter")


def _value_at(value: Any, path: str) -> Any:
    for key, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        try:
            value = value[key] if key else value[int(index)]
        except (KeyError, IndexError, TypeError):
            return None
    return value
