"""What does an engine answer to prompts that are all there? All of them at once: it batches them itself."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from deployments.frames import Delta, Failure, Submit
from deployments.vllm_outputs import Emit


@dataclass(frozen=True, kw_only=True, slots=True)
class Prompt:
    """One that is rendered and tokenized."""

    ids: list[int]
    sampling: dict[str, Any]
    """By vLLM's names, `max_tokens` among them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """To one prompt."""

    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None
    """Why there is none."""


class EngineDied(RuntimeError):
    """Before it had answered."""


class Engine(Protocol):
    """Of deployments.vllm_engine.VllmEngine: what is used here."""

    async def submit(self, name: str, request: Submit, emit: Emit) -> str | None: ...

    def on_death(self, tell: Any) -> None: ...


class OfflineEngine:
    """An engine that answers several lots at a time, so that the end of one doesn't leave its slots empty."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._asked = engine, 0
        self._died = asyncio.Event()
        engine.on_death(self._died.set)

    async def answers(self, prompts: Sequence[Prompt]) -> list[Answer]:
        """In the order of the prompts. Raises EngineDied."""
        said = asyncio.gather(*[await self._ask(prompt) for prompt in prompts])
        dying = asyncio.ensure_future(self._died.wait())
        await asyncio.wait([said, dying], return_when=asyncio.FIRST_COMPLETED)
        dying.cancel()
        if not said.done():
            said.cancel()
            raise EngineDied("the engine died before it had answered")
        return [_answer(one, prompt) for one, prompt in zip(said.result(), prompts, strict=True)]

    async def _ask(self, prompt: Prompt) -> "asyncio.Future[Delta | Failure]":
        """Hands it to the engine, which says all of its answer at once."""
        heard: asyncio.Future[Delta | Failure] = asyncio.get_running_loop().create_future()

        def hear(said: Delta | Failure) -> None:
            if not heard.done():
                heard.set_result(said)

        self._asked += 1
        submit = Submit(self._asked, 0, prompt.ids, prompt.sampling, False, None)
        await self._engine.submit(f"row-{self._asked}", submit, hear)
        return heard


def _answer(said: Delta | Failure, prompt: Prompt) -> Answer:
    if isinstance(said, Failure):
        return Answer(prompt_tokens=len(prompt.ids), error=said.message)
    return Answer(
        text=said.text,
        finish_reason=said.finish,
        prompt_tokens=len(prompt.ids),
        output_tokens=len(said.token_ids),
    )
