"""What does vLLM's own load generator, `vllm bench serve`, see of a server? It runs in a process of its own.

That process is started once, since importing it takes seconds, and reads the generator's arguments from stdin, a JSON
list a line. It answers each line with another, an error's text or an empty one, once the generator has written its
result file.
"""

import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

APIS = {"chat": ("openai-chat", "/chat/completions"), "completions": ("openai", "/completions")}
"""The generator's backend and the endpoint of each.

The address ends with /v1: below it the generator looks for metrics, four times a turn, and finds none. Pages of metrics
cost each system something else, and would count as its serving.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Streaming requests to one server, `streams` of them at a time; one that ends makes way for the next."""

    url: str
    api: str
    model: str
    tokenizer: Path
    prompts: Path
    """A line of JSON for each request."""
    requests: int
    streams: int
    prompt_tokens: int
    """What the server must count for each prompt."""
    output_tokens: int
    seed: int

    def arguments(self, result: Path) -> list[str]:
        """As one would type them after `vllm bench serve`."""
        backend, endpoint = APIS[self.api]
        options = {
            **{"backend": backend, "base-url": self.url, "endpoint": endpoint, "model": self.model},
            **{"tokenizer": self.tokenizer, "dataset-name": "custom", "dataset-path": self.prompts},
            **{"custom-output-len": self.output_tokens, "num-prompts": self.requests},
            **{"max-concurrency": self.streams, "temperature": 0, "seed": self.seed},
            **{"result-dir": result.parent, "result-filename": result.name},
        }
        switches = ["ignore-eos", "skip-chat-template", "disable-shuffle", "no-oversample", "disable-tqdm"]
        switches += ["save-result", "save-detailed"]
        given = [f"--{name}={value}" for name, value in options.items()]
        return given + [f"--{name}" for name in switches]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """Figures of one load."""

    tokens: int
    content_events: int
    wall_s: float
    """From the first request to the end of the last stream."""
    ttft_p50_s: float
    """Seconds to the first event with text."""
    ttft_p95_s: float
    gap_p50_s: float
    """Seconds from one event with text to the next of the same stream; of events that arrive together, 0."""
    gap_p95_s: float

    @property
    def events_per_token(self) -> float:
        """1 when every token came as an event of its own."""
        return self.content_events / self.tokens


def understand(result: dict[str, Any], load: Load) -> Seen:
    """The generator's result file in figures. Raises ValueError when an answer is not what was asked for.

    The generator takes each event with a choice for text. In a chat the first one is the role, without text: the first
    text is the event after it.
    """
    errors = [error for error in result["errors"] if error]
    lengths = {*zip(result["input_lens"], result["output_lens"], strict=True)}
    if errors or len(result["ttfts"]) != load.requests:
        raise ValueError(f"{len(errors)} of {load.requests} requests failed: {' '.join(errors[:1])[-400:]}")
    if lengths != {(load.prompt_tokens, load.output_tokens)}:
        raise ValueError(f"prompt and output tokens were {sorted(lengths)[:5]}")
    before = int(load.api == "chat")
    firsts = [first + sum(gaps[:before]) for first, gaps in zip(result["ttfts"], result["itls"], strict=True)]
    gaps = [gap for gaps in result["itls"] for gap in gaps[before:]]
    if not gaps:
        raise ValueError("each answer came as one event")
    ttft_s, gap_s = np.percentile(firsts, (50, 95)), np.percentile(gaps, (50, 95))
    return Seen(
        tokens=load.requests * load.output_tokens,
        content_events=len(gaps) + load.requests,
        wall_s=result["duration"],
        ttft_p50_s=float(ttft_s[0]),
        ttft_p95_s=float(ttft_s[1]),
        gap_p50_s=float(gap_s[0]),
        gap_p95_s=float(gap_s[1]),
    )


class Generator:
    """The generator's process, as seen from the benchmark."""

    def __init__(self, log: Path) -> None:
        command = [sys.executable, "-m", "benchmarks.load_generator"]
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | {"NO_PROXY": "127.0.0.1", "VLLM_LOGGING_LEVEL": "WARNING"},
                # Ctrl-C is the benchmark's, which ends this.
                start_new_session=True,
            )

    def run(self, load: Load, result: Path) -> dict[str, Any]:
        """What the generator wrote about one load. Raises ValueError with its error."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(load.arguments(result)) + "\n")
        self._process.stdin.flush()
        if (answer := self._process.stdout.readline()) != "\n":
            raise ValueError(answer.strip() or "the load generator ended")
        return json.loads(result.read_text())

    def cpu_s(self) -> float:
        """CPU seconds that it has used."""
        times = psutil.Process(self._process.pid).cpu_times()
        return times.user + times.system

    def close(self) -> None:
        """Ends it."""
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.communicate()


def main() -> None:
    # What vLLM prints goes where errors go: answers alone are on stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from vllm.benchmarks.serve import add_cli_args, main_async
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    for line in sys.stdin:
        try:
            arguments: Any = parser.parse_args(json.loads(line))
            asyncio.run(main_async(arguments))
            error = ""
        except Exception as failure:
            error = " ".join(repr(failure).split())
        print(error, file=answers, flush=True)


if __name__ == "__main__":
    main()
