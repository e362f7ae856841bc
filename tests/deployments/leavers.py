"""How does a client leave in the middle of each kind of request that runs for long?"""

import json
import random
import socket
import time
from typing import Any

from tests.deployments import forwarded

LONG: dict[str, Any] = {"max_tokens": 1500, "ignore_eos": True}
KINDS: dict[str, forwarded.Case] = {
    "a chat": forwarded.chat(**LONG),
    "a chat, streamed": forwarded.chat(**LONG, stream=True),
    "choices of a text": forwarded.text(**LONG, n=2, temperature=1),
    "a text, streamed": forwarded.text(**LONG, stream=True),
    "texts": forwarded.text(**LONG, prompt=["a", "b", "c"], stream=True),
    "log-probabilities": forwarded.chat(**LONG, logprobs=True),
    "log-probabilities, streamed": forwarded.chat(**LONG, logprobs=True, stream=True),
    "echo": forwarded.text(**LONG, echo=True),
    "log-probabilities of choices, streamed": forwarded.text(**LONG, logprobs=1, n=2, temperature=1, stream=True),
    "a response": forwarded.response(max_output_tokens=1500),
    "a response, streamed": forwarded.response(max_output_tokens=1500, stream=True),
    "a message": forwarded.message(max_tokens=1500),
    "a message, streamed": forwarded.message(max_tokens=1500, stream=True),
    "any JSON": forwarded.chat(**LONG, response_format={"type": "json_object"}),
    "some tool, streamed": forwarded.chat(
        **LONG, tools=[forwarded.TOOL], tool_choice="required", stream=True, temperature=1
    ),
    "beam search": forwarded.chat(use_beam_search=True, n=2, max_tokens=500),
    "tokens of a long text": (forwarded.TOKENIZE, {"prompt": "word " * 50_000}),
}
MOMENTS_S = (0, 0.001, 0.005, 0.02, 0.1)


def leave(port: int, case: forwarded.Case, chance: random.Random) -> None:
    """Asks, and closes the connection a moment later: before the body is complete, or having read some, or without."""
    path, body = case
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    kind, length = "content-type: application/json", f"content-length: {len(content)}"
    request = f"POST {path} HTTP/1.1\r\nhost: x\r\n{kind}\r\n{length}\r\n\r\n".encode() + content
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.settimeout(chance.choice(MOMENTS_S) or 0.0005)
        if chance.random() < 0.1:
            request = request[: chance.randrange(1, len(request))]
        client.sendall(request)
        try:
            while client.recv(1 << 16) and chance.random() < 0.9:
                pass
        except TimeoutError:
            time.sleep(0)
