"""Which engines pass the numbers check, and what is said of those that don't."""

from dataclasses import dataclass
from math import inf

import pytest

from deployments.numbers_check import TOLERANCE, WrongNumbers, check, mean_distance
from deployments.reference import Prompt, Reference

pytestmark = pytest.mark.anyio

PROMPTS = [[1, 2, 3], [4, 5]]
REFERENCE = Reference(
    made_by="a trusted implementation",
    prompts=(Prompt(token_ids=(1, 2, 3, 4), logprobs=(-1.0, -1.0, -1.0)),),
)


@dataclass
class Scorer:
    """An engine whose prefill says -1 nat for every token, and its decode steps `decode_off` more or less."""

    dtype: str = "float32"
    prefill_off: float = 0.0
    decode_off: float = 0.0
    max_model_len: int = 2048

    async def logprobs(self, ids: list[int]) -> list[float]:
        assert len(ids) < self.max_model_len, "vLLM refuses a prompt that leaves no room for a token"
        return [-1.0 + self.prefill_off] * (len(ids) - 1)

    async def continue_greedily(self, ids: list[int], count: int) -> tuple[list[int], list[float]]:
        return [7] * count, [-1.0 + self.prefill_off + self.decode_off] * count


async def test_a_good_engine_passes_and_is_verified() -> None:
    verdict = await check(Scorer(), PROMPTS, REFERENCE)
    assert (verdict.self_distance, verdict.reference_distance) == (0.0, 0.0)


async def test_without_a_reference_an_engine_passes_unverified() -> None:
    verdict = await check(Scorer(prefill_off=0.5), PROMPTS, None)
    assert verdict.reference_distance is None


async def test_an_engine_that_differs_from_the_reference_is_refused_with_the_figure() -> None:
    with pytest.raises(WrongNumbers, match=r"the reference \(a trusted implementation\) by 0\.250 nats"):
        await check(Scorer(prefill_off=0.25), PROMPTS, REFERENCE)


async def test_an_engine_whose_decode_steps_differ_from_its_prefill_is_refused() -> None:
    with pytest.raises(WrongNumbers, match=r"its decode steps differ from its own prefill by 3\.000 nats"):
        await check(Scorer(decode_off=-3.0), PROMPTS, None)


async def test_what_float32_may_not_do_bfloat16_may() -> None:
    off = (TOLERANCE["float32"] + TOLERANCE["bfloat16"]) / 2
    await check(Scorer(dtype="bfloat16", prefill_off=off), PROMPTS, REFERENCE)
    with pytest.raises(WrongNumbers):
        await check(Scorer(prefill_off=off), PROMPTS, REFERENCE)


async def test_prompts_are_cut_to_a_short_context() -> None:
    await check(Scorer(max_model_len=40), [[1] * 300], None)
    short = Scorer(max_model_len=3, prefill_off=0.25)
    with pytest.raises(WrongNumbers, match="the reference"):
        await check(short, [], REFERENCE)


async def test_numbers_that_are_none_are_refused() -> None:
    with pytest.raises(WrongNumbers):
        await check(Scorer(prefill_off=float("nan")), PROMPTS, REFERENCE)


def test_an_impossible_token_counts_ten_nats() -> None:
    assert mean_distance([-inf, -1.0], [-1.0, -1.0]) == 5.0
