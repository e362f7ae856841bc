"""Does the load client understand what servers send, however the network cuts it?"""

import asyncio
import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.streaming_client import Job, Stream, figures, understand

JOB = Job(host="h", port=1, model="m", prompts=["p"], streams=1, prompt_tokens=5, output_tokens=3)
HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 3}

texts = st.lists(st.text(), max_size=5)
cuts = st.lists(st.integers(1, 60), min_size=1)


def events(contents: list[str], usage: dict[str, int] | None = None) -> list[bytes]:
    bodies = [{"choices": [{"delta": {"content": content}}]} for content in contents]
    whole = [*bodies, {"choices": [], "usage": usage or USAGE}]
    return [b"data: " + json.dumps(body).encode() + b"\n\n" for body in whole] + [b"data: [DONE]\n\n"]


def chunked(parts: list[bytes]) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in [*parts, b""])


def answered(raw: bytes, sizes: list[int]) -> Stream:
    """A stream that got these bytes in pieces of these sizes in turn, one a second."""

    async def fill() -> Stream:
        stream, at = Stream(b""), 0
        while at < len(raw):
            size = sizes[len(stream.pieces) % len(sizes)]
            stream.pieces.append(raw[at : at + size])
            stream.arrived_s.append(float(len(stream.pieces)))
            at += size
        return stream

    return asyncio.run(fill())


@given(contents=texts, sizes=cuts)
def test_however_bytes_are_cut_every_event_with_text_is_counted_when_its_last_byte_is_there(
    contents: list[str], sizes: list[int]
) -> None:
    parts = events(contents)
    stream = answered(HEAD + chunked(parts), sizes)
    told = understand(JOB, stream)
    ends = [len(HEAD + chunked(parts[: i + 1])) - len(b"\r\n0\r\n\r\n") for i in range(len(contents))]
    received = [sum(map(len, stream.pieces[: i + 1])) for i in range(len(stream.pieces))]
    expected = [
        float(next(i for i, had in enumerate(received, 1) if had >= end))
        for end, content in zip(ends, contents, strict=True)
        if content
    ]
    assert told.arrived_s == expected


@given(contents=texts, size=st.integers(1, 50))
def test_events_may_share_a_chunk_or_be_split_over_chunks(contents: list[str], size: int) -> None:
    body = b"".join(events(contents))
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    told = understand(JOB, answered(HEAD + chunked(parts), [1000]))
    assert len(told.arrived_s) == sum(map(bool, contents))


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 503 Service Unavailable\r\n\r\n",
        HEAD + chunked(events(["a"])[:-1]),
        HEAD + chunked(events(["a"], {"prompt_tokens": 4, "completion_tokens": 3})),
        HEAD + chunked(events(["a"], {"prompt_tokens": 5, "completion_tokens": 2})),
        HEAD + chunked(events(["a"]))[:-20],
    ],
    ids=["refused", "no end mark", "other prompt", "too few tokens", "cut off"],
)
def test_an_answer_that_is_not_what_was_asked_for_is_no_figure(raw: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        understand(JOB, answered(raw, [1000]))


def test_times_are_from_the_request_to_the_first_text_and_between_texts() -> None:
    streams = [answered(HEAD + chunked(events(["a", "b", "c"])), [len(HEAD) + 50]) for _ in range(2)]
    for stream, sent_s in zip(streams, (0.0, -2.0), strict=True):
        stream.sent_s = sent_s
    seen = figures(streams, [understand(JOB, stream) for stream in streams], wall_s=4.0, cpu_s=0.1)
    assert asdict(seen) == {
        "tokens": 6,
        "content_events": 6,
        "wall_s": 4.0,
        "ttft_p50_s": 3.0,
        "ttft_p95_s": pytest.approx(3.9),
        "per_token_p50_s": 0.5,
        "client_cpu_s": 0.1,
    }
