"""What does the router's HTTP API look like as an OpenAPI document?

`python -m deployments.openapi` prints it. Bodies of which vLLM's own application knows more than this says are open:
any object.
"""

from typing import Any

import msgspec

from deployments import openapi_stored
from deployments.forward import ROUTES, anthropic
from deployments.openai_wire import ChatRequest, CompletionRequest

Schema = dict[str, Any]

REFERENCE = "#/components/schemas/{name}"
SUMMARIES = {
    "/v1/chat/completions": "A chat: plain text in the fields of ChatRequest, anything else as vLLM takes it",
    "/v1/completions": "A text: plain text in the fields of CompletionRequest, anything else as vLLM takes it",
    "/v1/responses": "OpenAI's responses; nothing is stored",
    "/v1/messages": "Anthropic's messages",
    "/v1/messages/count_tokens": "How many tokens Anthropic's messages have",
    "/tokenize": "Token ids of a text or a chat",
    "/detokenize": "The text of token ids",
}
BODIES = {"/v1/chat/completions": ChatRequest, "/v1/completions": CompletionRequest}
STREAMED = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages")
TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "integer"}


def document() -> Schema:
    """The document, in the form of OpenAPI 3.1."""
    _, structs = msgspec.json.schema_components(BODIES.values(), ref_template=REFERENCE)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": "1"},
        "paths": {path: {"post": _asked(path)} for path in ROUTES} | _told() | openapi_stored.paths(_named),
        "components": {"schemas": structs | ANSWERS | openapi_stored.answers(_named)},
    }


def _asked(path: str) -> Schema:
    """A route that takes a body. With one model in the fleet, the body need not name it."""
    whole = {"/v1/chat/completions": "Chat", "/v1/completions": "Text"}.get(path)
    answer = {"anyOf": [_named(whole), {"type": "object"}]} if whole else {"type": ["object", "array"]}
    content = _json(answer) | ({"text/event-stream": {"schema": TEXT}} if path in STREAMED else {})
    error = {"anyOf": [_named("AnthropicError"), _named("Error")]} if anthropic(path) else _named("Error")
    return {
        "summary": SUMMARIES.get(path, "As vLLM answers it, for models that pool; 404 for models that write"),
        "requestBody": {"required": True, "content": _json(_body(path))},
        "responses": {
            "200": {"description": "The answer", "content": content},
            "4XX": {"description": "Refused, by the router or by vLLM", "content": _json(error)},
            "5XX": {"description": "Not answered: a full queue, or no replica that can", "content": _json(error)},
        },
    }


def _body(path: str) -> Schema:
    """What may be asked: in a chat or a text also more than our struct knows."""
    more = {"type": "object", "properties": {"model": TEXT, "stream": {"type": ["boolean", "null"]}}}
    return {"anyOf": [_named(BODIES[path].__name__), more]} if path in BODIES else more


def _told() -> Schema:
    """The router's own routes."""
    name = {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    unknown = {"404": {"description": "There is no such model", "content": _json(_named("Error"))}}
    unready = {"503": {"description": "Starting, or shutting down", "content": _json(_named("Readiness"))}}
    metrics = {"description": "Prometheus' text form", "content": {"text/plain": {"schema": TEXT}}}
    return {
        "/v1/models": {"get": _get("The models", "Models")},
        "/v1/models/{name}": {"get": _get("One model", "Model", unknown) | {"parameters": [name]}},
        "/health": {"get": _get("Whether the router lives", "Health")},
        "/ready": {"get": _get("Whether every model has a replica, or wakes one", "Readiness", unready)},
        "/metrics": {"get": {"summary": "What Prometheus reads", "responses": {"200": metrics}}},
    }


def _get(summary: str, answer: str, more: Schema | None = None) -> Schema:
    told = {"200": {"description": summary, "content": _json(_named(answer))}}
    return {"summary": summary, "responses": told | (more or {})}


def _json(schema: Schema) -> Schema:
    return {"application/json": {"schema": schema}}


def _named(name: str) -> Schema:
    return {"$ref": REFERENCE.format(name=name)}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def _list(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def _just(*values: str) -> Schema:
    return {"enum": list(values)}


def _answer(kind: str, **said: Schema) -> Schema:
    finish = _just("stop", "length")
    choice = _object(index=NUMBER, **said, finish_reason=finish) | {"additionalProperties": True}
    usage = _object(prompt_tokens=NUMBER, completion_tokens=NUMBER, total_tokens=NUMBER)
    return _object(id=TEXT, object=_just(kind), created=NUMBER, model=TEXT, choices=_list(choice), usage=usage)


ANSWERS: Schema = {
    "Chat": _answer("chat.completion", message=_object(role=_just("assistant"), content=TEXT)),
    "Text": _answer("text_completion", text=TEXT),
    "Model": _object(
        id=TEXT,
        object=_just("model"),
        created=NUMBER,
        owned_by=TEXT,
        max_model_len={"type": ["integer", "null"]},
        pooling={"type": ["string", "null"]},
    ),
    "Models": _object(object=_just("list"), data=_list(_named("Model"))),
    "Health": _object(status=_just("ok")),
    "Readiness": _object(
        status=_just("ready", "starting", "draining"),
        models={"type": "object", "additionalProperties": _just("ready", "starting", "asleep")},
    ),
    "Error": _object(error=_object(message=TEXT, type=TEXT, param={"type": ["string", "null"]}, code={})),
    "AnthropicError": _object(type=_just("error"), error=_object(type=TEXT, message=TEXT)),
}

if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(document()), indent=1).decode())
