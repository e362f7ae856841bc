"""Do a real engine's requests share what it was busy for, all of it, each by what it had?"""

import asyncio

import pytest

from deployments.engine_process import engine_process
from deployments.fleet import Model
from deployments.frames import Delta, Submit
from deployments.vllm_engine import VllmEngine
from headrace.fetching import resolve

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LOAD = {"short": (10, 5), "long answer": (10, 120), "long prompt": (900, 5), "left": (10, 500)}
"""Prompt tokens and tokens to be made."""


async def spent_s(engine: VllmEngine) -> tuple[dict[str, float], float, bool]:
    """Of each request of the load, sent together; of all steps; and whether each step said what it read."""
    took_s, told, step = 0.0, True, engine._shares.step

    def counted(seconds: float, outputs: object, read_tokens: int | None) -> None:
        nonlocal took_s, told
        took_s, told = took_s + seconds, told and read_tokens is not None
        step(seconds, outputs, read_tokens)  # type: ignore[arg-type]

    engine._shares.step = counted  # type: ignore[method-assign]
    ends = {name: asyncio.Event() for name in LOAD}
    keys: dict[str, str] = {}
    for number, (name, (prompt_tokens, tokens)) in enumerate(LOAD.items()):

        def hear(said: object, name: str = name) -> None:
            if isinstance(said, Delta) and (said.finish is not None or name == "left"):
                ends[name].set()

        prompt = [(7 * number + place) % 250 for place in range(prompt_tokens)]
        sampling = {"max_tokens": tokens, "ignore_eos": True, "temperature": 0.0}
        keys[name] = await engine.submit(name, Submit(number, 0, prompt, sampling, True, None), hear) or ""
    await ends["left"].wait()
    await engine.cancel(keys["left"])
    for end in ends.values():
        await end.wait()
    return {name: engine.spent_s(name) for name in LOAD}, took_s, told


def test_shares_add_up_to_the_steps_and_follow_the_tokens() -> None:
    arguments = {"max_num_batched_tokens": 256, "max_model_len": 1024, "kv_cache_memory_bytes": 64 << 20}
    with engine_process(Model(name="tiny", source=str(resolve("tiny")), engine=arguments)) as process:
        spent, took_s, told = process.ask(spent_s)
    assert told, "each step says what it read"
    assert sum(spent.values()) == pytest.approx(took_s, rel=0.02)
    assert spent["long answer"] > spent["short"] > 0
    assert spent["long prompt"] > spent["short"]
    assert spent["left"] > 0
