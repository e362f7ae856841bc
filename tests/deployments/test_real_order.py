"""Does a real engine read the prompt of a user before those of tier batch that it has and did not read yet?"""

import asyncio

import pytest

from deployments.engine_process import engine_process
from deployments.fleet import Model
from deployments.frames import Delta, Submit
from deployments.vllm_engine import VllmEngine
from headrace.fetching import resolve
from routing import Tier

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LINES, PROMPT_TOKENS = 12, 200
STEP_TOKENS = 256
UNDER_WAY = 4
"""Lines whose reading may have begun when the user comes, with two steps ahead."""


async def first_words(engine: VllmEngine) -> list[str]:
    """Of lines of a batch, and of a user who came after them: in whose order the first tokens came."""
    came: list[str] = []
    ended = asyncio.Event()
    asked = [*((f"line {number}", Tier.BATCH) for number in range(LINES)), ("user", Tier.INTERACTIVE)]
    for number, (name, tier) in enumerate(asked):

        def hear(said: object, name: str = name) -> None:
            assert isinstance(said, Delta), said
            came.append(name)
            if len(came) == len(asked):
                ended.set()

        prompt = [(31 * number + place) % 250 for place in range(PROMPT_TOKENS)]
        sampling = {"max_tokens": 1, "ignore_eos": True}
        await engine.submit(name, Submit(number, 0, prompt, sampling, True, None, tier=tier), hear)
    await ended.wait()
    return came


def test_a_user_is_read_before_the_lines_of_a_batch_that_came_first() -> None:
    arguments = {"max_num_batched_tokens": STEP_TOKENS, "max_model_len": 512, "kv_cache_memory_bytes": 64 << 20}
    with engine_process(Model(name="tiny", source=str(resolve("tiny")), engine=arguments)) as process:
        came = process.ask(first_words)
    assert came.index("user") <= UNDER_WAY
    lines = [name for name in came if name != "user"]
    assert lines == [f"line {number}" for number in range(LINES)]
