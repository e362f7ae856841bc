"""What has each call had of the engine: prompts, tokens, requests that it may still run?"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

ABORTED = "abort"
"""Why vLLM ends a request that was cancelled, and each one that a core has which was told to end."""


@dataclass(eq=False, slots=True)
class Tally:
    """What one call has had of the engine."""

    estimate_tokens: int
    order: int = 0
    """By routing.reading_order."""
    begun: bool = False
    """The engine has had a request of it: from now on the engine's own figures count."""
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """All of them since the last part."""
    gpu_s: float = 0.0
    """Of its requests that are over."""
    open: set[str] = field(default_factory=set)
    """Requests of it that the engine may still have."""
    left: bool = False
    """Nobody waits for the answer: requests are cancelled."""

    def take(self) -> tuple[int, int, int]:
        told = self.prompt_tokens, self.output_tokens, self.cached_tokens
        self.prompt_tokens = self.output_tokens = self.cached_tokens = 0
        return told


TALLY: ContextVar[Tally] = ContextVar("tally")
"""Of the call that is being answered."""


class CountedEngine:
    """vLLM's AsyncLLM, with the tokens of each call counted. `cut_off()` is called where the core ends a request that
    was not cancelled, with no answer; `spent(request_id)` says what a request that is over had of the devices.
    """

    def __init__(
        self, llm: Any, work_arrived: Callable[[], None], cut_off: Callable[[], None], spent: Callable[[str], float]
    ) -> None:
        self._llm, self._work_arrived, self._cut_off, self._spent = llm, work_arrived, cut_off, spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._llm, name)

    def generate(self, prompt: Any, sampling_params: Any, request_id: str, **more: Any) -> AsyncIterator[Any]:
        outputs = self._llm.generate(prompt, sampling_params, request_id, **more | {"priority": TALLY.get().order})
        new_tokens = _new_tokens(sampling_params.output_kind.name)
        return self._counted(TALLY.get(), outputs, request_id, new_tokens, _is_cut)

    def encode(self, prompt: Any, pooling_params: Any, request_id: str, **more: Any) -> AsyncIterator[Any]:
        outputs = self._llm.encode(prompt, pooling_params, request_id, **more | {"priority": TALLY.get().order})
        return self._counted(TALLY.get(), outputs, request_id, lambda _: 0, lambda _: False)

    async def _counted(
        self,
        tally: Tally,
        outputs: AsyncGenerator[Any],
        request_id: str,
        new_tokens: Callable[[Any], int],
        is_cut: Callable[[Any], bool],
    ) -> AsyncIterator[Any]:
        tally.begun = True
        tally.open.add(request_id)
        self._work_arrived()
        prompted = False
        try:
            async for output in outputs:
                if is_cut(output) and not tally.left:
                    # vLLM's application would take it for an answer. The core is about to die; until that is known
                    # there is nothing to say.
                    self._cut_off()
                    await asyncio.Event().wait()
                if not prompted:
                    prompted = True
                    tally.prompt_tokens += len(output.prompt_token_ids or ())
                    tally.cached_tokens += output.num_cached_tokens or 0
                tally.output_tokens += new_tokens(output)
                if output.finished:
                    tally.open.discard(request_id)
                yield output
        finally:
            await outputs.aclose()
            tally.gpu_s += self._spent(request_id)


def _is_cut(output: Any) -> bool:
    """Whether the core ended a request with no answer."""
    return any(choice.finish_reason == ABORTED for choice in output.outputs)


def _new_tokens(kind: str) -> Callable[[Any], int]:
    """Counts the tokens that each output of one request adds; outputs are deltas, or all so far."""
    if kind == "DELTA":
        return lambda output: sum(len(choice.token_ids) for choice in output.outputs)
    made: dict[int, int] = {}

    def grown(output: Any) -> int:
        before = sum(made.values())
        made.update((choice.index, len(choice.token_ids)) for choice in output.outputs)
        return sum(made.values()) - before

    return grown
