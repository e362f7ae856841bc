"""Which engines that pool pass the check of their vectors, and what is said of those that don't."""

import asyncio
from dataclasses import dataclass, field
from math import inf, nan, sqrt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.numbers_check import WrongNumbers
from deployments.reference import Vector, Vectors
from deployments.vector_check import TOLERANCE, check, distance

pytestmark = pytest.mark.anyio

PROMPTS = [[3, 4], [4, 3, 12]]


def embedding(ids: list[int]) -> list[float]:
    """A vector of length 1 that tells texts apart."""
    values = [float(sum(ids)), float(len(ids)), float(ids[0])]
    length = sqrt(sum(value * value for value in values))
    return [value / length for value in values]


REFERENCE = Vectors(
    made_by="a trusted implementation",
    task="embed",
    vectors=tuple(Vector(token_ids=tuple(ids), values=tuple(embedding(ids))) for ids in ([1, 2, 3], [9] * 40)),
)


@dataclass
class Pooler:
    """An engine whose vectors are `off` by so much, and by `mixed` more while others run."""

    dtype: str = "float32"
    off: float = 0.0
    mixed: float = 0.0
    max_model_len: int = 512
    task: str = "embed"
    lengths: list[int] = field(default_factory=list)
    running: int = 0

    async def pooling_task(self) -> str:
        return self.task

    async def vector(self, ids: list[int]) -> list[float]:
        assert 0 < len(ids) <= self.max_model_len, "vLLM refuses such a prompt"
        self.lengths.append(len(ids))
        self.running += 1
        await asyncio.sleep(0)
        crowded = self.running > 1
        await asyncio.sleep(0)
        self.running -= 1
        first, *rest = embedding(ids)
        return [first + self.off + (self.mixed if crowded else 0.0), *rest]


async def test_a_good_engine_passes_and_is_verified() -> None:
    verdict = await check(Pooler(), PROMPTS, REFERENCE)
    assert (verdict.self_distance, verdict.reference_distance) == (0.0, 0.0)


async def test_without_a_reference_an_engine_passes_unverified() -> None:
    assert (await check(Pooler(off=0.5), PROMPTS, None)).reference_distance is None


async def test_an_engine_that_differs_from_the_reference_is_refused_with_the_figure() -> None:
    with pytest.raises(WrongNumbers, match=r"the reference \(a trusted implementation\) by 25\.00% of their length"):
        await check(Pooler(off=0.25), PROMPTS, REFERENCE)


async def test_an_engine_that_mixes_up_what_runs_together_is_refused() -> None:
    with pytest.raises(WrongNumbers, match=r"asked together differ from those asked alone by 50\.00%"):
        await check(Pooler(mixed=0.5), PROMPTS, None)


async def test_texts_of_several_lengths_run_together() -> None:
    engine = Pooler()
    await check(engine, PROMPTS, None)
    assert len(set(engine.lengths[len(PROMPTS) :])) > 1


async def test_what_float32_may_not_do_bfloat16_may() -> None:
    off = (TOLERANCE["float32"] + TOLERANCE["bfloat16"]) / 2
    await check(Pooler(dtype="bfloat16", off=off), PROMPTS, REFERENCE)
    with pytest.raises(WrongNumbers):
        await check(Pooler(off=off), PROMPTS, REFERENCE)


async def test_a_reference_of_another_task_is_none() -> None:
    assert (await check(Pooler(task="classify", off=0.5), PROMPTS, REFERENCE)).reference_distance is None


async def test_a_short_context_leaves_out_texts_that_do_not_fit() -> None:
    verdict = await check(Pooler(max_model_len=3), [[1] * 300], REFERENCE)
    assert verdict.reference_distance == 0.0
    assert (await check(Pooler(max_model_len=2), PROMPTS, REFERENCE)).reference_distance is None


@pytest.mark.parametrize("off", [nan, inf])
async def test_numbers_that_are_none_are_refused(off: float) -> None:
    with pytest.raises(WrongNumbers):
        await check(Pooler(off=off), PROMPTS, None)


numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=1, max_size=8))
def test_a_vector_is_no_distance_from_itself_and_its_whole_length_from_nothing(values: list[float]) -> None:
    assert distance(values, values) == 0.0
    assert distance([0.0] * len(values), values) <= 1.0
    assert distance(values, [*values, 1.0]) == inf


@given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8), st.floats(1.0, 100.0))
def test_a_unit_does_not_matter_to_long_vectors(pairs: list[tuple[float, float]], unit: float) -> None:
    found, expected = [one for one, _ in pairs], [other + 1.0 for _, other in pairs]
    if max(map(abs, expected)) >= 1.0:
        scaled = distance([value * unit for value in found], [value * unit for value in expected])
        assert scaled == pytest.approx(distance(found, expected))
