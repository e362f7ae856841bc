"""Does an engine whose model pools compute the right vectors, and if not, by how much is it off?"""

import asyncio
from math import dist, hypot, inf, isnan
from typing import Protocol

from deployments.numbers_check import Verdict, WrongNumbers
from deployments.reference import Vectors

TOLERANCE = {"float32": 0.001, "float16": 0.01, "bfloat16": 0.05}
"""Largest distance between vectors, as a share of their length, by dtype.

Good runs of MiniLM stayed under 0.0001 in float32 against a float32 reference; one whose rows of one tensor were
shifted was off by 0.41 at least. The others were not run against a reference: their mantissas are shorter.
"""


class Pooler(Protocol):
    """An engine that can be asked for vectors."""

    dtype: str
    max_model_len: int

    async def pooling_task(self) -> str: ...
    async def vector(self, ids: list[int]) -> list[float]: ...


async def check(engine: Pooler, prompts: list[list[int]], reference: Vectors | None) -> Verdict:
    """Compares vectors of `prompts` asked alone with those asked together, and with the reference's.

    A reference of another task, or of texts beyond the engine's context, is none. Raises WrongNumbers.
    """
    tolerance = TOLERANCE.get(engine.dtype, TOLERANCE["bfloat16"])
    self_distance = await _self_distance(engine, prompts)
    _judge(self_distance, tolerance, engine.dtype, "vectors asked together differ from those asked alone")
    reference_distance = None
    if reference is not None and reference.task == await engine.pooling_task():
        reference_distance = await _reference_distance(engine, reference)
    if reference is not None and reference_distance is not None:
        _judge(reference_distance, tolerance, engine.dtype, f"vectors differ from the reference ({reference.made_by})")
    return Verdict(self_distance=self_distance, reference_distance=reference_distance, tolerance=tolerance)


def distance(found: list[float], expected: list[float]) -> float:
    """Euclidean, as a share of the expected vector's length, or of 1 where that is shorter.

    For two vectors of length 1, half of its square is their cosine distance. Infinite when their sizes differ, or a
    number is none.
    """
    if len(found) != len(expected):
        return inf
    share = dist(found, expected) / max(1.0, hypot(*expected))
    return inf if isnan(share) else share


async def _self_distance(engine: Pooler, prompts: list[list[int]]) -> float:
    whole = [prompt[: engine.max_model_len] for prompt in prompts]
    alone = [await engine.vector(ids) for ids in whole]
    # Shorter ones between them: a batch of one length hides what mixes up its rows.
    company = [ids[: len(ids) // 2 + 1] for ids in whole]
    together = await asyncio.gather(*(engine.vector(ids) for ids in [*whole, *company]))
    return max((distance(one, other) for one, other in zip(together, alone, strict=False)), default=0.0)


async def _reference_distance(engine: Pooler, reference: Vectors) -> float | None:
    fitting = [vector for vector in reference.vectors if len(vector.token_ids) <= engine.max_model_len]
    if not fitting:
        return None
    found = [await engine.vector(list(vector.token_ids)) for vector in fitting]
    return max(distance(one, list(vector.values)) for one, vector in zip(found, fitting, strict=True))


def _judge(found: float, tolerance: float, dtype: str, what: str) -> None:
    if not found <= tolerance:
        raise WrongNumbers(
            f"numbers check failed: its {what} by {found:.2%} of their length; "
            f"good {dtype} engines stay under {tolerance:.2%}"
        )
