"""Does this engine compute the right numbers, and if not, by how much is it off?"""

from dataclasses import dataclass
from typing import Protocol

from deployments.reference import Reference

CONTINUATION_TOKENS = 32

TOLERANCE = {"float32": 0.005, "float16": 0.03, "bfloat16": 0.1}
"""Largest mean distance between log-probabilities, in nats, by dtype.

Good runs of SmolLM2-135M and of the test engine stayed under 0.0001 in float32 and under 0.041 in bfloat16, against a
float32 reference. float16 was not run: its mantissa has three bits more than bfloat16's.
"""


class Scorer(Protocol):
    """An engine that can be asked for log-probabilities."""

    dtype: str
    max_model_len: int

    async def logprobs(self, ids: list[int]) -> list[float]: ...
    async def continue_greedily(self, ids: list[int], count: int) -> tuple[list[int], list[float]]: ...


class WrongNumbers(RuntimeError):
    """The engine's log-probabilities are off; the text says by how much and against what."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What a passed check found. Distances are nats; of a model that pools, shares of a vector's length."""

    self_distance: float
    reference_distance: float | None
    """None: there was no reference beside the checkpoint; the engine is unverified."""
    tolerance: float


async def check(engine: Scorer, prompts: list[list[int]], reference: Reference | None) -> Verdict:
    """Compares decode steps with prefill on `prompts`, and prefill with the reference. Raises WrongNumbers."""
    tolerance = TOLERANCE.get(engine.dtype, TOLERANCE["bfloat16"])
    if reference is not None and reference.tolerance is not None:
        tolerance = reference.tolerance
    self_distance = await _self_distance(engine, prompts)
    _judge(self_distance, tolerance, engine.dtype, "its decode steps differ from its own prefill")
    reference_distance = None
    if reference is not None:
        reference_distance = await _reference_distance(engine, reference)
        _judge(
            reference_distance,
            tolerance,
            engine.dtype,
            f"it differs from the reference ({reference.made_by})",
        )
    return Verdict(self_distance=self_distance, reference_distance=reference_distance, tolerance=tolerance)


def mean_distance(found: list[float], expected: list[float]) -> float:
    """Mean absolute difference, in nats; differences count at most 10 (an impossible token is -inf)."""
    pairs = zip(found, expected, strict=True)
    return sum(min(10.0, abs(one - other)) for one, other in pairs) / max(1, len(found))


async def _self_distance(engine: Scorer, prompts: list[list[int]]) -> float:
    distances = []
    for prompt in prompts:
        # A prefill makes one token too: prompt and continuation leave room for it.
        ids = prompt[: max(1, engine.max_model_len - CONTINUATION_TOKENS - 1)]
        tokens, decoded = await engine.continue_greedily(ids, CONTINUATION_TOKENS)
        prefilled = (await engine.logprobs(ids + tokens))[-len(tokens) :]
        distances.append(mean_distance(decoded, prefilled))
    return max(distances, default=0.0)


async def _reference_distance(engine: Scorer, reference: Reference) -> float:
    distances = []
    for prompt in reference.prompts:
        ids = list(prompt.token_ids[: engine.max_model_len - 1])
        distances.append(mean_distance(await engine.logprobs(ids), list(prompt.logprobs[: len(ids) - 1])))
    return max(distances)


def _judge(distance: float, tolerance: float, dtype: str, what: str) -> None:
    if not distance <= tolerance:
        raise WrongNumbers(
            f"numbers check failed: {what} by {distance:.3f} nats per token on average; "
            f"good {dtype} engines stay under {tolerance:g}"
        )
