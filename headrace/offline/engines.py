"""Who answers partitions? Ray Data's pool of engines; each reads, answers and writes whole partitions itself."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deployments.offline_answers import Answer, EngineDied, OfflineEngine, Prompt
from deployments.openai_wire import ApiError, ChatRequest, CompletionRequest, sampling
from headrace.fetching import FetchError, resolve
from headrace.offline import parts
from headrace.offline.place import Place
from headrace.offline.rows import Asks, BadRow, request
from headrace.offline.table import Partition, Row, read

AT_ONCE = 2
"""Partitions of one engine: while the last rows of one are answered, those of the next fill its slots."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is the same for all partitions."""

    place: Place
    asks: Asks
    out: str
    prefix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """What came of one partition."""

    rows: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    began_s: float = 0.0
    """Since 1970."""
    errors: list[str] = field(default_factory=list)
    """Of rows that have no answer."""
    failed: str = ""
    """Why it was not written."""


Render = Callable[[ChatRequest | CompletionRequest], Prompt]
"""Raises BadRow."""
Generate = Callable[[Sequence[Prompt]], Awaitable[list[Answer]]]


async def finish(partition: Partition, work: Work, render: Render, generate: Generate) -> Done:
    """Reads, answers and writes one partition; all of its rows are asked at once. Raises OSError, EngineDied."""
    began_s = time.time()
    rows = await asyncio.to_thread(read, partition)
    prompts = await asyncio.to_thread(lambda: [_prompt(row, work.asks, render) for row in rows])
    said = iter(await generate([prompt for prompt in prompts if isinstance(prompt, Prompt)]))
    answers = [next(said) if isinstance(prompt, Prompt) else Answer(error=prompt) for prompt in prompts]
    answers = [_numbered(answer, row) for answer, row in zip(answers, rows, strict=True)]
    await asyncio.to_thread(parts.write, Path(work.out), partition, rows, answers, work.prefix)
    return Done(
        rows=len(rows),
        prompt_tokens=sum(answer.prompt_tokens for answer in answers),
        output_tokens=sum(answer.output_tokens for answer in answers),
        began_s=began_s,
        errors=[answer.error for answer in answers if answer.error is not None],
    )


def by_engines(partitions: Sequence[Partition], work: Work) -> Iterator[Done]:
    """By the Ray that this process is connected to, as they are done."""
    from ray import data  # seconds to import

    data.DataContext.get_current().enable_progress_bars = False
    # It tells of each step of its own: to the terminal, and far more to a file.
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    rows = [{"partition": json.dumps(asdict(partition))} for partition in partitions]
    pool = data.ActorPoolStrategy(
        size=min(work.place.engines, len(partitions)),
        max_tasks_in_flight_per_actor=AT_ONCE,
        max_concurrent_calls_per_actor=AT_ONCE,
    )
    # One partition a block: an engine that is lost takes no more with it.
    answered = data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _Engine,
        batch_size=1,
        compute=pool,
        fn_constructor_args=(work,),
        **work.place.actor,
    )
    for row in answered.iter_rows():
        yield Done(**json.loads(row["done"]))


class _Engine:
    """One engine, as Ray Data calls it: started by the first call, ended with its process."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._started: asyncio.Future[tuple[Render, OfflineEngine]] | None = None

    async def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        from deployments.vllm_start import EngineFailed

        told = json.loads(batch["partition"][0])
        partition = Partition(**told | {"columns": tuple(told["columns"])})
        if self._started is None:
            self._started = asyncio.ensure_future(self._start())
        try:
            render, engine = await asyncio.shield(self._started)
            done = await finish(partition, self._work, render, engine.answers)
        except (EngineFailed, EngineDied, FetchError, OSError) as error:
            # Raised, it would reach the other end inside three of Ray's own.
            done = Done(failed=str(error) or type(error).__name__)
        return {"done": [json.dumps(asdict(done))]}

    async def _start(self) -> tuple[Render, OfflineEngine]:
        """Here, where the loop is that vLLM will use; nothing else happens on it meanwhile."""
        from deployments.vllm_engine import VllmEngine
        from deployments.vllm_start import EngineFailed

        place = self._work.place
        model = place.model.model_copy(update={"source": str(resolve(place.model.source))})
        claims = None if place.claims is None else Path(place.claims)
        engine = VllmEngine.start(model, sharers=place.sharers, claims=claims)
        if engine.pools:
            raise EngineFailed(f"{place.model.name} pools: it gives vectors or classes, and no text")
        return renderer(model.source, engine.max_model_len), OfflineEngine(engine)


def renderer(source: str, max_model_len: int) -> Render:
    """Of a checkpoint whose context holds so many tokens."""
    from deployments.render import Renderer

    by = Renderer(source, ThreadPoolExecutor(max_workers=1))

    def render(asked: ChatRequest | CompletionRequest) -> Prompt:
        ids = _ids(asked, by)
        room = max_model_len - len(ids)
        if not ids or room < 1:
            raise BadRow(f"the prompt has {len(ids)} tokens, the model's context {max_model_len}")
        most = asked.max_tokens
        if isinstance(asked, ChatRequest) and asked.max_completion_tokens is not None:
            most = asked.max_completion_tokens
        return Prompt(ids=ids, sampling={**sampling(asked), "max_tokens": min(most or room, room)})

    return render


def _ids(asked: ChatRequest | CompletionRequest, by: Any) -> list[int]:
    if isinstance(asked, ChatRequest):
        return by.chat_ids(asked)
    prompts = asked.prompts()
    if len(prompts) != 1:
        raise BadRow(f"has {len(prompts)} prompts: a row has one")
    return (
        prompts[0] if isinstance(prompts[0], list) else by.text_ids(prompts[0], asked.add_special_tokens is not False)
    )


def _prompt(row: Row, ask: Asks, render: Render) -> Prompt | str:
    """What is asked for a row, or why nothing can be."""
    if row.wrong:
        return row.wrong
    try:
        return render(request(row.fields, ask))
    except (BadRow, ApiError, ValueError, TypeError) as error:
        return str(error) or type(error).__name__


def _numbered(answer: Answer, row: Row) -> Answer:
    """An error says of which row."""
    if answer.error is None:
        return answer
    return Answer(prompt_tokens=answer.prompt_tokens, error=f"row {row.number}: {answer.error}")
