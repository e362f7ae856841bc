"""What does a client see of many concurrent streams? A process of its own, so that its cost is nobody else's.

Reads jobs from stdin, one JSON object a line. For each it writes `loaded` as soon as the last stream has
ended, then a line of figures (JSON). While streams run, bytes are only kept with their time, and understood
afterwards.
"""

import asyncio
import json
import statistics
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """Chat requests, `streams` of them at a time; one that ends makes way for the next."""

    host: str
    port: int
    model: str
    prompts: list[str]
    streams: int
    prompt_tokens: int
    """What the server must count for each prompt."""
    output_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Figures of one job."""

    tokens: int
    content_events: int
    wall_s: float
    """From the first request to the end of the last stream."""
    ttft_p50_s: float
    """Seconds to the first event with text."""
    ttft_p95_s: float
    per_token_p50_s: float
    """Seconds between two events with text: each stream's mean, since one arrival may carry several."""
    client_cpu_s: float


class Stream(asyncio.Protocol):
    """One request on a connection of its own, and what came back."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self.sent_s = time.perf_counter()
        self.arrived_s: list[float] = []
        self.pieces: list[bytes] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.arrived_s.append(time.perf_counter())
        self.pieces.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended.set_result(None)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one stream said."""

    arrived_s: list[float]
    """When each event with text came."""
    tokens: int


async def load(job: Job) -> list[Stream]:
    """Runs every request of a job."""
    requests = iter([_request(job, prompt) for prompt in job.prompts])
    streams: list[Stream] = []

    async def one_after_another() -> None:
        for request in requests:
            stream = Stream(request)
            streams.append(stream)
            await asyncio.get_running_loop().create_connection(lambda stream=stream: stream, job.host, job.port)
            await stream.ended

    await asyncio.gather(*(one_after_another() for _ in range(job.streams)))
    return streams


def understand(job: Job, stream: Stream) -> Told:
    """Checks one answer from status to end mark. Raises ValueError when it is not what was asked for."""
    raw = b"".join(stream.pieces)
    head, _, body = raw.partition(b"\r\n\r\n")
    if b" 200 " not in head.split(b"\r\n")[0]:
        raise ValueError(f"answered {raw[:600]!r}")
    ends = list(accumulate(map(len, stream.pieces)))
    arrived_s, usage, done = [], None, False
    for event, end in _events(body, len(head) + 4):
        if done := event == "[DONE]":
            break
        said = json.loads(event)
        usage = said.get("usage") or usage
        if any(choice["delta"].get("content") for choice in said["choices"]):
            arrived_s.append(stream.arrived_s[bisect_left(ends, end)])
    counted = (usage or {}).get("prompt_tokens"), (usage or {}).get("completion_tokens")
    if not done or counted != (job.prompt_tokens, job.output_tokens):
        raise ValueError(f"ended {raw[-300:]!r}; prompt and output tokens {counted}")
    return Told(arrived_s=arrived_s, tokens=job.output_tokens)


def figures(streams: Sequence[Stream], told: Sequence[Told], *, wall_s: float, cpu_s: float) -> Seen:
    """Sums a job up."""
    first_s = [one.arrived_s[0] - stream.sent_s for stream, one in zip(streams, told, strict=True)]
    per_token_s = [(one.arrived_s[-1] - one.arrived_s[0]) / max(1, len(one.arrived_s) - 1) for one in told]
    return Seen(
        tokens=sum(one.tokens for one in told),
        content_events=sum(len(one.arrived_s) for one in told),
        wall_s=wall_s,
        ttft_p50_s=statistics.median(first_s),
        ttft_p95_s=statistics.quantiles(first_s, n=20, method="inclusive")[-1],
        per_token_p50_s=statistics.median(per_token_s),
        client_cpu_s=cpu_s,
    )


def _request(job: Job, prompt: str) -> bytes:
    body = json.dumps(
        {
            "model": job.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": job.output_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: {job.host}:{job.port}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body


def _events(body: bytes, offset: int) -> Iterator[tuple[str, int]]:
    """Events of a chunked body, each with the offset in the answer at which the chunk with its end ends."""
    at, kept = 0, b""
    while (size := int(body[at : (line := body.index(b"\r\n", at))], 16)) > 0:
        at = line + 2 + size
        *whole, kept = (kept + body[line + 2 : at]).split(b"\n\n")
        for event in whole:
            yield event.decode().removeprefix("data: "), offset + at
        at += 2


def main() -> None:
    for line in sys.stdin:
        job = Job(**json.loads(line))
        started_s, cpu_s = time.perf_counter(), time.process_time()
        streams = asyncio.run(load(job))
        wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - cpu_s
        print("loaded", flush=True)
        told = [understand(job, stream) for stream in streams]
        print(json.dumps(asdict(figures(streams, told, wall_s=wall_s, cpu_s=cpu_s))), flush=True)


if __name__ == "__main__":
    main()
