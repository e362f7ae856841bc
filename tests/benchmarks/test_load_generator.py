"""Are the load generator's results read as what a client saw, and does the generator do what it is told?"""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.load_generator import Generator, Load, understand

LOAD = Load(
    url="http://h:1",
    api="completions",
    model="m",
    tokenizer=Path("t"),
    prompts=Path("p.jsonl"),
    requests=2,
    streams=1,
    prompt_tokens=5,
    output_tokens=4,
    seed=1,
)
CHAT = replace(LOAD, api="chat")


def result(itls: list[list[float]], *, ttfts: list[float] | None = None, **changes: Any) -> dict[str, Any]:
    """What the generator writes, of requests with these times between events."""
    count = len(itls)
    told = {"input_lens": [5] * count, "output_lens": [4] * count, "errors": [""] * count, "duration": 2.0}
    return told | {"ttfts": ttfts or [0.1] * count, "itls": itls} | changes


def test_a_completion_has_its_first_text_in_the_first_event() -> None:
    seen = understand(result([[0.01, 0.01, 0.01], [0.03, 0.03, 0.03]], ttfts=[0.1, 0.2]), LOAD)
    assert (seen.tokens, seen.content_events, seen.events_per_token) == (8, 8, 1.0)
    assert seen.ttft_p50_s == pytest.approx(0.15)
    assert seen.gap_p50_s == pytest.approx(0.02)


def test_the_role_that_opens_a_chat_is_neither_text_nor_a_time_between_texts() -> None:
    seen = understand(result([[0.05, 0.01, 0.01, 0.01], [0.05, 0.01, 0.01, 0.01]]), CHAT)
    assert (seen.content_events, seen.events_per_token) == (8, 1.0)
    assert seen.ttft_p50_s == pytest.approx(0.15)
    assert seen.gap_p95_s == pytest.approx(0.01)


@given(st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=3), min_size=2, max_size=2))
def test_tokens_that_share_an_event_are_missed(itls: list[list[float]]) -> None:
    seen = understand(result(itls), LOAD)
    assert seen.events_per_token == (2 + sum(map(len, itls))) / 8


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        (result([[0.1] * 3] * 2, errors=["", "Service Unavailable"]), "1 of 2 requests failed: Service Unavailable"),
        (result([[0.1] * 3]), "0 of 2 requests failed"),
        (result([[0.1] * 3] * 2, input_lens=[5, 6]), "prompt and output tokens were"),
        (result([[0.1] * 3] * 2, output_lens=[4, 3]), "prompt and output tokens were"),
        (result([[], []]), "each answer came as one event"),
    ],
    ids=["refused", "missing", "other prompt", "too few tokens", "not streamed"],
)
def test_an_answer_that_is_not_what_was_asked_for_is_no_figure(told: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        understand(told, LOAD)


class Answers(BaseHTTPRequestHandler):
    """A server that streams as many tokens as it is asked for, each in an event."""

    protocol_version = "HTTP/1.1"
    asked: list[dict[str, Any]]

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append(asked)
        tokens = asked.get("max_completion_tokens") or asked["max_tokens"]
        chat = self.path == "/v1/chat/completions"
        texts = [{"delta": {"content": "a"}} if chat else {"text": "a"}] * tokens
        opening = [{"delta": {"role": "assistant", "content": ""}}] if chat else []
        said = [{"choices": [choice]} for choice in opening + texts]
        said += [{"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": tokens}}]
        body = "".join(f"data: {json.dumps(event)}\n\n" for event in said) + "data: [DONE]\n\n"
        self.answer(200, body.encode())

    def do_GET(self) -> None:
        self.answer(404, b"")

    def answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def answering() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A server's address, and what it was asked."""
    asked: list[dict[str, Any]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Told", (Answers,), {"asked": asked})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1", asked
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
def test_vllms_generator_asks_for_what_a_load_says_and_its_result_is_understood(tmp_path: Path) -> None:
    from headrace.fetching import resolve

    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in ("one", "two", "three")))
    with answering() as (url, asked), closing(Generator(tmp_path / "log")) as generator:
        for api in ("chat", "completions"):
            load = replace(LOAD, url=url, api=api, tokenizer=resolve("tiny"), prompts=prompts, requests=3)
            seen = understand(generator.run(load, tmp_path / "result.json"), load)
            assert (seen.tokens, seen.events_per_token) == (12, 1.0)
        with pytest.raises(ValueError, match="No such file"):
            generator.run(replace(load, prompts=tmp_path / "none.jsonl"), tmp_path / "result.json")
    assert [body["prompt"] for body in asked[3:]] == ["one", "two", "three"]
    assert [body["messages"][0]["content"][0]["text"] for body in asked[:3]] == ["one", "two", "three"]
    assert all(body["stream"] and body["ignore_eos"] and body["temperature"] == 0 for body in asked)
