"""Which requests are vLLM's own application's to answer? One of each shape, for a comparison of two servers."""

import json
from typing import Any

CHAT, TEXT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"
COUNT, TOKENIZE, DETOKENIZE = "/v1/messages/count_tokens", "/tokenize", "/detokenize"
QUESTION = [{"role": "user", "content": "What is a class?"}]

Case = tuple[str, dict[str, Any] | bytes]


def chat(**fields: Any) -> Case:
    return CHAT, {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 12} | fields


def text(**fields: Any) -> Case:
    return TEXT, {"model": "tiny", "prompt": "The import statement", "temperature": 0, "max_tokens": 12} | fields


def response(**fields: Any) -> Case:
    return RESPONSES, {"model": "tiny", "input": "What is a class?", "temperature": 0, "max_output_tokens": 12} | fields


def message(**fields: Any) -> Case:
    return MESSAGES, {"model": "tiny", "messages": QUESTION, "temperature": 0, "max_tokens": 12} | fields


SCHEMA = {
    "type": "object",
    "properties": {"kind": {"type": "string", "enum": ["a", "b"]}, "yes": {"type": "boolean"}},
    "required": ["kind", "yes"],
    "additionalProperties": False,
}
TOOL = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": SCHEMA}}
NAMED = {"type": "function", "function": {"name": "look"}}
SHAPED = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
NAMED_SCHEMA = {"type": "json_schema", "name": "answer", "schema": SCHEMA, "strict": True}
CLAUDE_TOOL = {"name": "look", "description": "Looks.", "input_schema": SCHEMA}
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
LOOKED = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAACAkQBADs="

ANSWERED: dict[str, Case] = {
    "log-probabilities": chat(logprobs=True),
    "likeliest tokens": chat(logprobs=True, top_logprobs=3),
    "likeliest tokens, streamed": chat(logprobs=True, top_logprobs=2, **STREAMED),
    "choices with log-probabilities": chat(n=2, temperature=0.8, seed=3, logprobs=True),
    "choices with log-probabilities, streamed": chat(n=2, temperature=0.8, seed=3, logprobs=True, **STREAMED),
    "prompt log-probabilities": chat(prompt_logprobs=1),
    "log-probabilities of a text": text(logprobs=2),
    "log-probabilities of a text, streamed": text(logprobs=1, **STREAMED),
    "log-probabilities and echo": text(logprobs=1, echo=True),
    "echo": text(echo=True),
    "echo, streamed": text(echo=True, **STREAMED),
    "echo of token ids and nothing more": text(prompt=[5, 6, 7], echo=True, max_tokens=0),
    "prompt log-probabilities of a text": text(prompt_logprobs=0),
    "token ids told": chat(return_token_ids=True),
    "token ids told, streamed": chat(return_token_ids=True, **STREAMED),
    "tools that are not to be used": chat(tools=[TOOL], tool_choice="none"),
    "tools of the model's own accord": chat(tools=[TOOL]),
    "tools of the model's own accord, streamed": chat(tools=[TOOL], tool_choice="auto", **STREAMED),
    "a tool by name": chat(tools=[TOOL], tool_choice=NAMED, max_tokens=60),
    "a tool by name, streamed": chat(tools=[TOOL], tool_choice=NAMED, max_tokens=60, **STREAMED),
    "some tool": chat(tools=[TOOL], tool_choice="required", max_tokens=60),
    "an answer by a tool": chat(
        messages=[
            *QUESTION,
            {"role": "assistant", "tool_calls": [LOOKED]},
            {"role": "tool", "tool_call_id": "a", "content": "It is a type."},
        ]
    ),
    "a JSON schema": chat(response_format=SHAPED, max_tokens=60),
    "a JSON schema, streamed": chat(response_format=SHAPED, max_tokens=60, **STREAMED),
    "any JSON": chat(response_format={"type": "json_object"}, max_tokens=40),
    "text as a format": chat(response_format={"type": "text"}),
    "a choice of words": chat(structured_outputs={"choice": ["yes", "no"]}),
    "a pattern": text(structured_outputs={"regex": "[0-9]{3}"}),
    "words that are not to come": chat(bad_words=["the"]),
    "tokens that alone may come": chat(allowed_token_ids=[260, 300, 301]),
    "template arguments": chat(chat_template_kwargs={"anything": 1}),
    "an effort": chat(reasoning_effort="low"),
    "an unknown field": chat(unknown_field=3),
    "no model": (CHAT, {"messages": QUESTION, "temperature": 0, "max_tokens": 4}),
    "beam search": chat(use_beam_search=True, n=2, max_tokens=6),
    "a response": response(),
    "a response, streamed": response(stream=True),
    "a response that is not stored": response(store=False),
    "a response to messages": response(input=QUESTION, instructions="Be brief."),
    "a response in a schema": response(text={"format": NAMED_SCHEMA}, max_output_tokens=60),
    "a message": message(),
    "a message, streamed": message(stream=True),
    "a message with a system prompt": message(system="Be brief.", stop_sequences=["the"]),
    "a message of parts": message(messages=[{"role": "user", "content": [{"type": "text", "text": "Why?"}]}]),
    "a message with a tool": message(tools=[CLAUDE_TOOL], tool_choice={"type": "tool", "name": "look"}, max_tokens=60),
    "a message's tokens": (COUNT, {"model": "tiny", "messages": QUESTION}),
    "tokens of a text": (TOKENIZE, {"model": "tiny", "prompt": "naïve 日本", "return_token_strs": True}),
    "tokens of a chat": (TOKENIZE, {"model": "tiny", "messages": QUESTION}),
    "a token outside of the vocabulary": (DETOKENIZE, {"model": "tiny", "tokens": [10**6]}),
    "text of tokens": (DETOKENIZE, {"model": "tiny", "tokens": [264, 78, 324]}),
}  # fmt: skip

REFUSED: dict[str, Case] = {
    "no body": (CHAT, b""),
    "half of a body": (CHAT, b'{"model": "tiny", '),
    "no object": (CHAT, b"[1]"),
    "an empty object": (CHAT, b"{}"),
    "an empty object for a text": (TEXT, b"{}"),
    "an empty object for a response": (RESPONSES, b"{}"),
    "an empty object for a message": (MESSAGES, b"{}"),
    "an empty object for tokens": (TOKENIZE, b"{}"),
    "bytes that are no text": (CHAT, b'{"model": "\xff"}'),
    "messages that are none": chat(messages="x"),
    "a message without a role": chat(messages=[{"content": "x"}]),
    "a limit of a wrong type": chat(max_tokens="many"),
    "a limit far too high": chat(max_tokens=10**9, logprobs=True),
    "a limit far too high for a message": message(max_tokens=10**9),
    "too many likeliest tokens": chat(logprobs=True, top_logprobs=50),
    "likeliest tokens without log-probabilities": chat(top_logprobs=2),
    "a tool that there is not": chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "run"}}),
    "no tools": chat(tools=[]),
    "a tool without tools": chat(tool_choice="required"),
    "a schema that is none": chat(response_format={"type": "json_schema"}),
    "a format that there is not": chat(response_format={"type": "xml"}),
    "a pattern that is none": chat(structured_outputs={"regex": "("}),
    "stream options without a stream": chat(stream_options={"include_usage": True}),
    "an image to a model that can't see": chat(
        messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}]
    ),
    "echo of a stream with prompt log-probabilities": text(echo=True, stream=True, prompt_logprobs=1),
    "a suffix": text(suffix="x"),
    "tokens that are none": (DETOKENIZE, {"model": "tiny", "tokens": "x"}),
    "embeddings of a model that writes": ("/v1/embeddings", {"model": "tiny", "input": "x"}),
    "a score of a model that writes": ("/score", {"model": "tiny", "queries": "a", "documents": "b"}),
}  # fmt: skip

UNKNOWN_MODEL: list[Case] = [
    (path, json.loads(json.dumps(body)) | {"model": "zz"})
    for path, body in (
        chat(logprobs=True), text(echo=True), response(), message(), (TOKENIZE, {"prompt": "x"}),
        (DETOKENIZE, {"tokens": [1]}), (COUNT, {"messages": QUESTION}),
    )
    if isinstance(body, dict)
]  # fmt: skip
